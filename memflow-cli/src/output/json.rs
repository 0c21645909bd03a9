//! JSON forms that every command shares.
//!
//! Owns: how addresses, bytes and problems are written. Must not know: any command.
//! Keeps: field names are stable; numbers are numbers, addresses are `"0x…"` texts, because JSON numbers lose precision above 2^53
//! in many readers.

use std::fmt::Write as _;

use memflow_core::{Error, PhysAddr, VirtAddr, address::Address};
use serde::{Serialize, Serializer};

/// A number that is written as `"0x…"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hex(pub(crate) u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

impl From<VirtAddr> for Hex {
    fn from(address: VirtAddr) -> Self {
        Self(address.to_u64())
    }
}

impl From<PhysAddr> for Hex {
    fn from(address: PhysAddr) -> Self {
        Self(address.to_u64())
    }
}

/// Bytes as hexadecimal digits, two for each.
pub(crate) fn hex_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        // Writing to a string cannot fail.
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

/// The texts of problems.
pub(crate) fn texts(problems: &[Error]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_texts_and_bytes_are_digits() {
        assert_eq!(serde_json::to_string(&Hex(u64::MAX)).unwrap(), "\"0xffffffffffffffff\"");
        assert_eq!(hex_bytes(&[0, 0xab]), "00ab");
    }
}
