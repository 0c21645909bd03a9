//! OS layer for Linux: processes, modules and symbols without a profile.
