//! What code that the attributes of `memflow-derive` generate needs, and nobody else.
//!
//! Owns: conversions of what a plugin's function returns, and texts of the descriptor that only this build knows.
//! Must not know: the attributes.

use std::sync::Arc;

use super::Connection;
use crate::{error::Result, os::Os};

/// The plugin ABI's version as a descriptor has it.
pub const ABI: &str = memflow_abi::VERSION;
/// Crate and version of the layout description in the entry table.
pub const LAYOUT: &str = "abi_stable 0.11";

/// What a connector's function returned, as a connection.
///
/// # Errors
/// That of the function.
pub fn connection<C: Into<Connection>>(opened: Result<C>) -> Result<Connection> {
    opened.map(Into::into)
}

/// What an OS layer's function returned, to be shared.
///
/// # Errors
/// That of the function.
pub fn os<O: Os + 'static>(found: Result<O>) -> Result<Arc<dyn Os>> {
    match found {
        Ok(os) => Ok(Arc::new(os)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn text_of_the_abi_is_its_version() {
        assert_eq!(super::ABI, crate::plugin::ABI.to_string());
    }
}
