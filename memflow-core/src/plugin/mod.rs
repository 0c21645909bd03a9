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
mod inventory;
mod library;
mod log;
#[cfg(test)]
mod tests;
mod wire;

use self::descriptor::AbiVersion;
pub use self::{
    definition::{Connection, Connector, ConnectorRequest, OnProgress, OsLayer, OsRequest, TargetInfo},
    inventory::{
        Chain, ChainError, ConnectOptions, ConnectorLink, Inventory, InventoryBuilder, LayerArgs, Layered, Origin,
        OsLink, Place, PlaceState, Plugin, Rejected, forward_log_level,
    },
};

/// The version of the plugin ABI that this build has.
pub const ABI: AbiVersion = AbiVersion::new(memflow_abi::MAJOR, memflow_abi::MINOR);
