//! JSON forms that every command shares.
//!
//! Owns: how addresses, bytes and problems are written. Must not know: any command.
//! Keeps: field names are stable; numbers are numbers, addresses are `"0x…"` texts, because JSON numbers lose precision above 2^53
//! in many readers; a document is exact, and yet holds no character that a terminal acts on.

use std::fmt::Write as _;

use memflow_core::{Error, PhysAddr, VirtAddr, address::Address};
use serde::{Serialize, Serializer};

use super::text::is_visible;

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

/// The text of a document.
pub(crate) fn to_text(document: &impl Serialize) -> serde_json::Result<String> {
    let plain = serde_json::to_string_pretty(document)?;
    let safe = |character| character == '\n' || is_visible(character);
    if plain.chars().all(safe) {
        return Ok(plain);
    }
    let mut text = String::with_capacity(plain.len());
    for character in plain.chars() {
        if safe(character) {
            text.push(character);
        } else {
            // Outside of strings all characters are visible, so this is inside one, where every reader takes `\uNNNN`.
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _infallible = write!(text, "\\u{unit:04x}");
            }
        }
    }
    Ok(text)
}

/// The texts of problems.
pub(crate) fn texts(problems: &[Error]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_are_not_visible_are_escaped_and_come_back() {
        let hostile = "\u{1b}[2J \u{9b}31m \u{7f} \u{202e} \u{e0001} größe 日本 \"\\ \n";
        let text = to_text(&[hostile]).unwrap();
        assert!(text.chars().all(|character| character == '\n' || is_visible(character)), "{text:?}");
        assert!(text.contains("\\udb40\\udc01 größe 日本"), "{text}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&text).unwrap(), [hostile]);
    }

    #[test]
    fn addresses_are_texts_and_bytes_are_digits() {
        assert_eq!(serde_json::to_string(&Hex(u64::MAX)).unwrap(), "\"0xffffffffffffffff\"");
        assert_eq!(hex_bytes(&[0, 0xab]), "00ab");
    }
}
