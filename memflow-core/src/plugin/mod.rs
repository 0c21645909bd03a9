//! Connectors and OS layers as plugins: what one is, how it is found, inspected, loaded and called.
//!
//! Must not know: any one connector or OS layer.

mod definition;
pub mod descriptor;
pub mod export;
mod import;
mod log;
mod wire;

pub use self::definition::{Connection, Connector, ConnectorRequest, OnProgress, OsLayer, OsRequest, TargetInfo};
