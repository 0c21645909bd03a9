//! Items that no plugin can be made of.

use memflow_core::{
    Result,
    plugin::{Connection, ConnectorRequest, OsRequest},
};

#[memflow_derive::connector(name = "structure")]
struct Structure;

/// Too much of everything.
#[memflow_derive::connector(name = "unfit", type = Unfit)]
async unsafe extern "C" fn unfit<T, const N: usize>(_: &ConnectorRequest<'_>, _: u8, _: [u8; 2]) -> Result<Connection> {
    Err(memflow_core::Error::Cancelled)
}

/// Nothing.
#[memflow_derive::os_layer(name = "nothing", accepts(content))]
fn nothing() {}

impl Structure {
    /// A method.
    #[memflow_derive::os_layer(name = "method")]
    fn method(&self, _: OsRequest<'_>) -> Result<u8> {
        Ok(5)
    }
}

fn main() {}
