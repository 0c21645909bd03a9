//! What code that the attributes of `memflow-derive` generate needs, and nobody else.
//!
//! Owns: conversions of what a plugin's function returns, and texts of the descriptor that only this build knows.
//! Must not know: the attributes.

use std::sync::Arc;

use super::Connection;
use crate::{error::Result, memory::PhysicalMemory, os::Os};

/// The plugin ABI's version as a descriptor has it.
pub const ABI: &str = memflow_abi::VERSION;
/// Crate and version of the layout description in the entry table.
pub const LAYOUT: &str = "abi_stable 0.11";

/// What a connector's function may return.
#[diagnostic::on_unimplemented(
    message = "a connector cannot return `{Self}`",
    label = "expected `Result<Connection>`, or a `Result` of a type that implements `PhysicalMemory`"
)]
pub trait Opened {
    /// It, as a connection.
    fn into_connection(self) -> Connection;
}

impl Opened for Connection {
    fn into_connection(self) -> Connection {
        self
    }
}

// Else the compiler would tell every type that is physical memory, and not what a connector returns.
#[diagnostic::do_not_recommend]
impl<M: PhysicalMemory + 'static> Opened for M {
    fn into_connection(self) -> Connection {
        self.into()
    }
}

/// What an OS layer's function may return.
#[diagnostic::on_unimplemented(
    message = "an OS layer cannot return `{Self}`",
    label = "expected a `Result` of a type that implements `Os`, or `Result<Arc<dyn Os>>`"
)]
pub trait Found {
    /// It, to be shared.
    fn into_shared(self) -> Arc<dyn Os>;
}

impl Found for Arc<dyn Os> {
    fn into_shared(self) -> Arc<dyn Os> {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<O: Os + 'static> Found for O {
    fn into_shared(self) -> Arc<dyn Os> {
        Arc::new(self)
    }
}

/// What a connector's function returned, as a connection.
///
/// # Errors
/// That of the function.
pub fn connection<T: Opened>(opened: Result<T>) -> Result<Connection> {
    opened.map(T::into_connection)
}

/// What an OS layer's function returned, to be shared.
///
/// # Errors
/// That of the function.
pub fn os<T: Found>(found: Result<T>) -> Result<Arc<dyn Os>> {
    found.map(T::into_shared)
}

#[cfg(test)]
mod tests {
    #[test]
    fn text_of_the_abi_is_its_version() {
        assert_eq!(super::ABI, crate::plugin::ABI.to_string());
    }
}
