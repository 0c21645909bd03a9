//! Numbers as they lie in memory.
//!
//! Owns: the types of [`Pattern::value`](super::Pattern::value) and their text form. Must not know: patterns, memory.
//! Keeps: a number that its type does not hold is an error, never cut.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use super::pattern::shorten;
use crate::{
    error::{Error, Result},
    units,
};

/// The types, for errors.
const TYPES: &str =
    "u8, u16, u32, u64, i8, i16, i32, i64, f32, f64, ptr32 or ptr64, each with be behind it for big-endian";

/// A type of number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Number {
    Unsigned { bytes: usize },
    Signed { bytes: usize },
    Single,
    Double,
}

/// True for the name of a type.
pub(super) fn is_type(name: &str) -> bool {
    number_type(name).is_some()
}

/// A type's name: what it is, and whether it is big-endian.
fn number_type(name: &str) -> Option<(Number, bool)> {
    let (name, big) = match name.strip_suffix("be") {
        Some(name) => (name, true),
        None => (name, false),
    };
    let number = match name {
        "u8" => Number::Unsigned { bytes: 1 },
        "u16" => Number::Unsigned { bytes: 2 },
        "u32" | "ptr32" => Number::Unsigned { bytes: 4 },
        "u64" | "ptr64" => Number::Unsigned { bytes: 8 },
        "i8" => Number::Signed { bytes: 1 },
        "i16" => Number::Signed { bytes: 2 },
        "i32" => Number::Signed { bytes: 4 },
        "i64" => Number::Signed { bytes: 8 },
        "f32" => Number::Single,
        "f64" => Number::Double,
        _ => return None,
    };
    Some((number, big))
}

/// The bytes of `TYPE:NUMBER`.
pub(super) fn parse(text: &str) -> Result<Vec<u8>> {
    let wrong = |what: String, expected: String, found: &str| Error::Argument {
        what: what.into(),
        expected: expected.into(),
        found: shorten(found),
    };
    let Some((name, number)) = text.split_once(':') else {
        return Err(wrong("value".to_owned(), "TYPE:NUMBER".to_owned(), text));
    };
    let Some((kind, big)) = number_type(name) else {
        return Err(wrong("type of a value".to_owned(), TYPES.to_owned(), name));
    };
    let parsed = match kind {
        Number::Unsigned { bytes } => units::number(number).ok().and_then(|value| low_bytes(value, bytes)),
        Number::Signed { bytes } => signed(number, bytes),
        Number::Single => {
            float(number).and_then(|text| text.parse::<f32>().ok()).map(|value| value.to_le_bytes().to_vec())
        }
        Number::Double => {
            float(number).and_then(|text| text.parse::<f64>().ok()).map(|value| value.to_le_bytes().to_vec())
        }
    };
    let Some(mut bytes) = parsed else {
        let expected = match kind {
            Number::Unsigned { bytes } => format!("a number of {bytes} bytes (decimal, or hexadecimal with 0x)"),
            Number::Signed { bytes } => format!("a number of {bytes} bytes with or without sign"),
            Number::Single | Number::Double => "a number such as 1.5 or -2e10".to_owned(),
        };
        return Err(wrong(format!("value of type {name}"), expected, number));
    };
    if big {
        bytes.reverse();
    }
    Ok(bytes)
}

/// The lowest `bytes` bytes of a number that has no others.
fn low_bytes(value: u64, bytes: usize) -> Option<Vec<u8>> {
    let all = value.to_le_bytes();
    let (low, high) = all.split_at_checked(bytes)?;
    high.iter().all(|byte| *byte == 0).then(|| low.to_vec())
}

/// The bytes of a number with a sign.
fn signed(text: &str, bytes: usize) -> Option<Vec<u8>> {
    let (digits, negative) = match text.strip_prefix('-') {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    let magnitude = i128::from(units::number(digits).ok()?);
    let value = if negative { magnitude.checked_neg()? } else { magnitude };
    // The bytes above repeat the sign, also that of the highest byte that is kept.
    let all = value.to_le_bytes();
    let (low, high) = all.split_at_checked(bytes)?;
    let sign = if negative && value != 0 { 0xff } else { 0 };
    let fits = high.iter().all(|byte| *byte == sign) && low.last().is_some_and(|byte| byte & 0x80 == sign & 0x80);
    fits.then(|| low.to_vec())
}

/// A number with a point or without; names such as `nan` and `infinity`, which stand for many bytes or for none that lie in memory
/// by accident, are not taken.
fn float(text: &str) -> Option<&str> {
    text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)).then_some(text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Bytes from the definitions of two's complement and IEEE 754.
    #[test]
    fn numbers_lie_as_processors_put_them() {
        assert_eq!(parse("u32:0x12345678").unwrap(), [0x78, 0x56, 0x34, 0x12]);
        assert_eq!(parse("u32be:0x12345678").unwrap(), [0x12, 0x34, 0x56, 0x78]);
        assert_eq!(parse("u8:255").unwrap(), [0xff]);
        assert_eq!(parse("i16:-2").unwrap(), [0xfe, 0xff]);
        assert_eq!(parse("i8:-128").unwrap(), [0x80]);
        assert_eq!(parse("i64be:-1").unwrap(), [0xff; 8]);
        assert_eq!(parse("i32:-0").unwrap(), [0; 4]);
        assert_eq!(parse("f32:1.5").unwrap(), [0, 0, 0xc0, 0x3f]);
        assert_eq!(parse("f64be:-2").unwrap(), [0xc0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parse("ptr64:0xffff888000000000").unwrap(), [0, 0, 0, 0, 0x80, 0x88, 0xff, 0xff]);
        assert_eq!(parse("ptr32:1").unwrap(), [1, 0, 0, 0]);
    }

    #[test]
    fn what_a_type_does_not_hold_is_refused() {
        for text in
            ["u8:256", "u16:-1", "i8:128", "i8:-129", "i64:0x8000000000000000", "f32:nan", "f64:", "u32:", "u32:1_0"]
        {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with("value of type "), "{error}");
        }
        assert_eq!(
            parse("u8:256").unwrap_err().to_string(),
            "value of type u8: expected a number of 1 bytes (decimal, or hexadecimal with 0x), found `256`"
        );
        assert!(parse("u7:1").unwrap_err().to_string().starts_with("type of a value: expected u8, u16"));
        assert!(parse("7").is_err());
    }
}
