//! From an address on the command line to an address of the target.
//!
//! Owns: the look-up of symbols in address arguments. Must not know: what the address is for.

use memflow_core::{Error, VirtAddr, os::Os};

use crate::{
    failure::{Failure, Outcome},
    parse::AddressExpr,
};

/// How many addresses an error names before it stops.
const NAMED: usize = 4;

/// The address that `expr` stands for.
pub(super) fn resolve(os: &dyn Os, expr: &AddressExpr) -> Outcome<VirtAddr> {
    let (name, offset) = match expr {
        AddressExpr::Number(value) => return Ok(VirtAddr::new(*value)),
        AddressExpr::Symbol { name, offset } => (name, *offset),
    };
    match os.symbols_named(name)?.as_slice() {
        [] => {
            let missing = Error::NotFound { what: "kernel symbol", name: name.clone() };
            Err(if name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                Failure::Missing(format!("{missing}; hexadecimal addresses start with 0x"))
            } else {
                missing.into()
            })
        }
        [symbol] => Ok(symbol.address.wrapping_add(offset)),
        several => {
            let addresses: Vec<String> = several.iter().take(NAMED).map(|symbol| symbol.address.to_string()).collect();
            let more = if several.len() > NAMED { ", …" } else { "" };
            Err(Failure::Usage(format!(
                "{} kernel symbols are called {name}: {}{more}; give the address of one of them",
                several.len(),
                addresses.join(", ")
            )))
        }
    }
}
