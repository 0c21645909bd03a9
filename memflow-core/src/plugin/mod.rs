//! Connectors and OS layers as plugins: what one is, how it is found, inspected, loaded and called.
//!
//! Must not know: any one connector or OS layer.

pub mod analyze;
pub mod descriptor;
