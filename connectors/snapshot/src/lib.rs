//! Connector for files that hold physical memory: raw images, LiME, ELF cores.
