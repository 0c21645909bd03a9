//! Numbers, sizes, addresses and ranges as people write them on a command line.
//!
//! Owns: the grammar of the command's own arguments; numbers and sizes are the library's. Must not know: targets; nothing here reads
//! memory, a symbol stays a name.
//! Keeps: decimal unless `0x`, binary units only, and an error quotes the input and says what is accepted.

use std::{fmt, str::FromStr};

use memflow_core::{
    address::{Address, Range},
    units,
};

/// A number: decimal, or hexadecimal with `0x`.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    units::number(text).map_err(|error| error.to_string())
}

/// A count of bytes: a [`number`], or a decimal number with a binary unit (`16MiB`).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    units::size(text).map_err(|error| error.to_string())
}

/// A byte: a [`number`] up to 255.
pub(crate) fn byte(text: &str) -> Result<u8, String> {
    number(text)?.try_into().map_err(|_| format!("`{text}` is not a byte; bytes go from 0 to 255 (0xff)"))
}

/// A range of addresses: `START-END`, where END is the first address after it, or `START+LENGTH`.
pub(crate) fn range<A: Address>(text: &str) -> Result<Range<A>, String> {
    let ends_before_start = || format!("range `{text}`: the end lies before the start");
    let parsed = if let Some((start, len)) = text.split_once('+') {
        Range::new(A::from_u64(number(start)?), size(len)?).ok_or_else(|| format!("range `{text}` goes past 2^64"))?
    } else if let Some((start, end)) = text.split_once('-') {
        Range::between(A::from_u64(number(start)?), A::from_u64(number(end)?)).ok_or_else(ends_before_start)?
    } else {
        return Err(format!(
            "`{text}` is not a range; write START-END (END is the first address after it) or START+LENGTH"
        ));
    };
    if parsed.is_empty() { Err(format!("range `{text}` is empty")) } else { Ok(parsed) }
}

/// An address as an argument: a number, or a symbol of the kernel with an offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum AddressExpr {
    /// A number.
    Number(u64),
    /// A symbol, and bytes to add to its address (modulo 2^64, so that `symbol-8` works).
    Symbol { name: String, offset: u64 },
}

impl FromStr for AddressExpr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an address is a number (decimal, or hexadecimal with 0x), or a kernel symbol with an offset \
                        (`jiffies`, `init_task+0x10`)"
                .to_owned());
        }
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            return number(text).map(Self::Number);
        }
        // Symbol names hold letters, digits, `_`, `.` and `$`, so the first sign starts the offset.
        let (name, offset) = match text.find(['+', '-']) {
            None => (text, 0),
            Some(at) => {
                let (name, rest) = text.split_at(at);
                let offset = number(rest.get(1..).unwrap_or_default())?;
                (name, if rest.starts_with('-') { offset.wrapping_neg() } else { offset })
            }
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.$".contains(&byte)) {
            return Err(format!("`{text}` is neither a number (decimal, or hexadecimal with 0x) nor a kernel symbol"));
        }
        Ok(Self::Symbol { name: name.to_owned(), offset })
    }
}

impl fmt::Display for AddressExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(value) => write!(f, "{value:#x}"),
            Self::Symbol { name, offset: 0 } => f.write_str(name),
            Self::Symbol { name, offset } => match i64::try_from(offset.wrapping_neg()) {
                Ok(below) => write!(f, "{name}-{below:#x}"),
                Err(_) => write!(f, "{name}+{offset:#x}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use memflow_core::PhysRange;

    use super::*;

    #[test]
    fn numbers_are_decimal_unless_marked() {
        assert_eq!(number("10"), Ok(10));
        assert_eq!(number("0x10"), Ok(16));
        assert_eq!(number("0xffffffffffffffff"), Ok(u64::MAX));
        assert!(number("0x10000000000000000").is_err());
        assert!(number("").is_err());
        assert!(number("+5").is_err());
        assert!(number("0x+5").is_err());
        assert_eq!(
            number("ffff81000000").unwrap_err(),
            "`ffff81000000` is not a decimal number; hexadecimal numbers start with 0x"
        );
    }

    #[test]
    fn sizes_take_binary_units_and_do_not_wrap() {
        assert_eq!(size("16MiB"), Ok(16 << 20));
        assert_eq!(size("4 KiB"), Ok(4096));
        assert_eq!(size("7B"), Ok(7));
        assert_eq!(size("0x1B"), Ok(0x1b));
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("99999999TiB").unwrap_err(), "`99999999TiB` is 2^64 bytes or more");
        assert!(size("16MB").unwrap_err().contains("units are B, KiB"));
    }

    #[test]
    fn ranges_have_two_forms_and_are_never_empty() {
        let expected = PhysRange::new(memflow_core::PhysAddr::new(0x1000), 0x1000).unwrap();
        assert_eq!(range("0x1000-0x2000"), Ok(expected));
        assert_eq!(range("4096+4KiB"), Ok(expected));
        assert!(range::<memflow_core::PhysAddr>("0x1000-0x1000").unwrap_err().contains("is empty"));
        assert!(range::<memflow_core::PhysAddr>("0x2000-0x1000").unwrap_err().contains("before the start"));
        assert!(range::<memflow_core::PhysAddr>("0xffffffffffffffff+2").unwrap_err().contains("past 2^64"));
        assert!(range::<memflow_core::PhysAddr>("0x1000").unwrap_err().contains("START-END"));
    }

    #[test]
    fn symbols_take_offsets_both_ways() {
        assert_eq!("jiffies".parse(), Ok(AddressExpr::Symbol { name: "jiffies".into(), offset: 0 }));
        assert_eq!("a.b+0x10".parse(), Ok(AddressExpr::Symbol { name: "a.b".into(), offset: 16 }));
        let below: AddressExpr = "a-8".parse().unwrap();
        assert_eq!(below, AddressExpr::Symbol { name: "a".into(), offset: 8u64.wrapping_neg() });
        assert_eq!(below.to_string(), "a-0x8");
        assert_eq!("0x10".parse(), Ok(AddressExpr::Number(16)));
        assert!("".parse::<AddressExpr>().is_err());
        assert!("a b".parse::<AddressExpr>().is_err());
        assert!("+5".parse::<AddressExpr>().is_err());
        assert!("0xzz".parse::<AddressExpr>().is_err());
    }
}
