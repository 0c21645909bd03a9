//! Bytes as hexadecimal digits.
//!
//! Owns: both directions. Must not know: packets.
//! Keeps: what is not pairs of digits is `None`, never part of a result.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

const DIGITS: [u8; 16] = *b"0123456789abcdef";

/// The bytes of a text of digits.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)?.checked_shl(4)? | digit(*low)?)).collect()
}

/// The value of a digit.
pub(crate) fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => byte.checked_sub(b'0'),
        b'a'..=b'f' => byte.checked_sub(b'a'.checked_sub(10)?),
        b'A'..=b'F' => byte.checked_sub(b'A'.checked_sub(10)?),
        _ => None,
    }
}

/// The digits of a number below 16; other numbers have none.
pub(crate) fn digit_of(value: u8) -> u8 {
    DIGITS.get(usize::from(value)).copied().unwrap_or(b'?')
}

/// Puts the digits of bytes behind `out`.
pub(crate) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(bytes.iter().flat_map(|byte| [digit_of(byte >> 4), digit_of(byte & 15)]));
}

/// A number of up to 16 digits.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 16 || !text.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text = Vec::new();
        encode(&all, &mut text);
        assert_eq!(decode(&text).unwrap(), all);
        assert_eq!(decode(&text.to_ascii_uppercase()).unwrap(), all);
    }

    #[test]
    fn half_bytes_and_other_letters_are_nothing() {
        assert_eq!((decode(b"123"), decode(b"1g"), decode(b"+1")), (None, None, None));
        assert_eq!(
            (number(b""), number(b"+1"), number(b"1_0"), number(b"11112222333344445")),
            (None, None, None, None)
        );
        assert_eq!(number(b"Ff"), Some(255));
    }
}
