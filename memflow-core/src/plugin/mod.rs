//! Connectors and OS layers as plugins: what one is, how it is found, inspected, loaded and called.
//!
//! Must not know: any one connector or OS layer.

pub mod analyze;
pub mod args;
mod definition;
#[doc(hidden)]
pub mod derive;
pub mod descriptor;
pub mod export;
mod import;
mod library;
mod log;
#[cfg(test)]
mod tests;
mod wire;

pub use self::definition::{Connection, Connector, ConnectorRequest, OnProgress, OsLayer, OsRequest, TargetInfo};
use self::descriptor::AbiVersion;

/// The version of the plugin ABI that this build has.
pub const ABI: AbiVersion = AbiVersion::new(memflow_abi::MAJOR, memflow_abi::MINOR);
