//! Numbers, sizes and times as people write them.
//!
//! Owns: the text form of each, in both directions. Must not know: what is counted, or where the text comes from.
//! Keeps: decimal unless `0x`, binary units only, a time has a unit; nothing wraps or is rounded, and what is written here is read
//! back as the same value.
//!
//! ```
//! use std::time::Duration;
//! use memflow_core::units::{self, Size, Time};
//!
//! assert_eq!(units::size("16MiB"), Ok(16 << 20));
//! assert_eq!(units::time("5us"), Ok(Duration::from_micros(5)));
//! assert_eq!(Size(16 << 20).to_string(), "16MiB");
//! assert_eq!(Time(Duration::from_millis(1500)).to_string(), "1500ms");
//! ```
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{fmt, str::FromStr, time::Duration};

use crate::address::{GIB, KIB, MIB};

/// Bytes in a tebibyte.
const TIB: u64 = GIB << 10;
/// Units of sizes, largest first; `B` is last, as every other name ends in it.
const SIZES: [(&str, u64); 5] = [("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)];
/// Nanoseconds in a second.
const SECOND: u128 = 1_000_000_000;
/// Units of times in nanoseconds, largest first.
const TIMES: [(&str, u128); 5] = [("min", 60 * SECOND), ("s", SECOND), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];

/// Text that is no number, size or time. Its own text quotes the input and says what is accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// Hexadecimal digits without `0x`.
    #[error("`{text}` is not a decimal number; hexadecimal numbers start with 0x")]
    HexWithoutPrefix {
        /// The input.
        text: String,
    },
    /// No number, or one of 2^64 or more.
    #[error("`{text}` is not a number below 2^64 (decimal, or hexadecimal with 0x)")]
    Number {
        /// The input.
        text: String,
    },
    /// Not a count of bytes.
    #[error("{number}; units are B, KiB, MiB, GiB and TiB")]
    Size {
        /// Why it is not a number either.
        number: Box<UnitError>,
    },
    /// A count of bytes that no machine has.
    #[error("`{text}` is 2^64 bytes or more")]
    SizeTooLarge {
        /// The input.
        text: String,
    },
    /// A time without its unit: nothing says what the number counts.
    #[error("`{text}` has no unit of time; units are ns, us, ms, s and min")]
    TimeWithoutUnit {
        /// The input.
        text: String,
    },
    /// Not a time.
    #[error("`{text}` is not a time (a decimal number and a unit: ns, us, ms, s or min)")]
    Time {
        /// The input.
        text: String,
    },
    /// A time of 2^64 seconds or more.
    #[error("`{text}` is 2^64 seconds or more")]
    TimeTooLong {
        /// The input.
        text: String,
    },
}

/// A number: decimal, or hexadecimal with `0x`.
///
/// # Errors
/// [`UnitError::HexWithoutPrefix`] or [`UnitError::Number`].
pub fn number(text: &str) -> Result<u64, UnitError> {
    let parsed = match hex_digits(text) {
        Some(digits) if digits.starts_with('+') => None,
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if text.starts_with('+') => None,
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| {
        let text = text.to_owned();
        if text.bytes().any(|byte| byte.is_ascii_alphabetic()) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            UnitError::HexWithoutPrefix { text }
        } else {
            UnitError::Number { text }
        }
    })
}

/// A count of bytes: a [`number`], or a decimal number with a binary unit (`16MiB`). There are no fractions: `1.5GiB` is `1536MiB`.
///
/// # Errors
/// [`UnitError::SizeTooLarge`] from 2^64 bytes on, [`UnitError::Size`] for anything else that is not accepted.
pub fn size(text: &str) -> Result<u64, UnitError> {
    // `0x1B` is a number, not a byte with a unit.
    let with_unit = hex_digits(text).is_none().then(|| split_unit(text, &SIZES)).flatten();
    if let Some((count, bytes)) = with_unit
        && let Ok(count) = number(count)
    {
        return count.checked_mul(bytes).ok_or_else(|| UnitError::SizeTooLarge { text: text.to_owned() });
    }
    number(text).map_err(|error| UnitError::Size { number: Box::new(error) })
}

/// A time: a decimal number with a unit (`10ms`). The unit is part of it, also for zero.
///
/// # Errors
/// [`UnitError::TimeWithoutUnit`], [`UnitError::TimeTooLong`], or [`UnitError::Time`] for anything else that is not accepted.
pub fn time(text: &str) -> Result<Duration, UnitError> {
    let too_long = || UnitError::TimeTooLong { text: text.to_owned() };
    let is_decimal = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // Names that end in the name of another unit come before it.
    const BY_ENDING: [(&str, u128); 5] = {
        let [minute, second, milli, micro, nano] = TIMES;
        [minute, milli, micro, nano, second]
    };
    match split_unit(text, &BY_ENDING) {
        Some((digits, nanos)) if is_decimal(digits) => {
            // More digits than a u128 has are too long as well.
            let count: u128 = digits.parse().map_err(|_| too_long())?;
            duration(count.checked_mul(nanos).ok_or_else(too_long)?).ok_or_else(too_long)
        }
        None if is_decimal(text) => Err(UnitError::TimeWithoutUnit { text: text.to_owned() }),
        _ => Err(UnitError::Time { text: text.to_owned() }),
    }
}

/// A count of bytes whose text has a unit: the largest that divides it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = in_largest_unit(self.0.into(), SIZES.map(|(unit, bytes)| (unit, bytes.into())), "B");
        write!(f, "{count}{unit}")
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        size(text).map(Self)
    }
}

/// A time whose text has a unit: the largest that divides it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = in_largest_unit(self.0.as_nanos(), TIMES, "s");
        write!(f, "{count}{unit}")
    }
}

impl FromStr for Time {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        time(text).map(Self)
    }
}

/// What follows `0x`.
fn hex_digits(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

/// The text before the unit, which may stand after a space, and the unit's worth.
fn split_unit<'t, N: Copy>(text: &'t str, units: &[(&str, N)]) -> Option<(&'t str, N)> {
    units.iter().find_map(|(unit, worth)| Some((text.strip_suffix(unit)?.trim_end(), *worth)))
}

/// The value in the largest unit that divides it; zero in the unit `of_zero`.
fn in_largest_unit<'u>(value: u128, units: [(&'u str, u128); 5], of_zero: &'u str) -> (u128, &'u str) {
    let exact = |(unit, worth): (&'u str, u128)| match value.checked_rem(worth) {
        Some(0) => value.checked_div(worth).map(|count| (count, unit)),
        _ => None,
    };
    if value == 0 { (0, of_zero) } else { units.into_iter().find_map(exact).unwrap_or((value, of_zero)) }
}

/// The time of so many nanoseconds, `None` when it has more than 2^64 seconds.
fn duration(nanos: u128) -> Option<Duration> {
    let seconds = nanos.checked_div(SECOND)?.try_into().ok()?;
    let rest = nanos.checked_rem(SECOND)?.try_into().ok()?;
    Some(Duration::new(seconds, rest))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_decimal_unless_marked() {
        assert_eq!(number("10"), Ok(10));
        assert_eq!(number("0x10"), Ok(16));
        assert_eq!(number("0XfF"), Ok(255));
        assert_eq!(number("18446744073709551615"), Ok(u64::MAX));
        for text in ["", "0x", "+5", "0x+5", "-1", "18446744073709551616", "0x10000000000000000", "1_000", " 1", "1 "] {
            assert_eq!(number(text), Err(UnitError::Number { text: text.into() }), "{text}");
        }
        assert_eq!(number("10ff"), Err(UnitError::HexWithoutPrefix { text: "10ff".into() }));
    }

    /// memflow 0.2.4 took `10mb` for 16 MiB.
    #[test]
    fn sizes_are_decimal() {
        assert_eq!(size("10MiB"), Ok(10 << 20));
        assert_eq!(size("0x10"), Ok(16));
        assert_eq!(size("0x1B"), Ok(0x1b), "no unit after hexadecimal digits");
        assert_eq!(size("7B"), Ok(7));
        assert_eq!(size("4 KiB"), Ok(4096));
        assert_eq!(size("16777215TiB"), Ok(0xffff_ff00_0000_0000));
    }

    /// memflow 0.2.4 refused a size without a unit.
    #[test]
    fn sizes_without_unit_are_bytes() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("0"), Ok(0));
    }

    /// memflow 0.2.4 multiplied `ffffffffffffffffgb` with wrapping, and panicked in debug builds.
    #[test]
    fn sizes_do_not_wrap() {
        for text in ["16777216TiB", "18446744073709551615KiB", "18446744073709551615 GiB"] {
            assert_eq!(size(text), Err(UnitError::SizeTooLarge { text: text.into() }));
        }
        let error = size("0xffffffffffffffffGiB").unwrap_err().to_string();
        assert_eq!(
            error,
            "`0xffffffffffffffffGiB` is not a number below 2^64 (decimal, or hexadecimal with 0x); \
             units are B, KiB, MiB, GiB and TiB"
        );
    }

    /// memflow 0.2.4 panicked on `cache_size=1kb`.
    #[test]
    fn other_units_of_size_and_fractions_are_refused() {
        for text in ["1kb", "16MB", "1.5GiB", "1mib", "MiB", "B", "-1B", "+1KiB", "1KiBB", "1,5MiB", "10MiB "] {
            assert!(size(text).unwrap_err().to_string().ends_with("; units are B, KiB, MiB, GiB and TiB"), "{text}");
        }
        assert!(size("10ff").unwrap_err().to_string().contains("hexadecimal numbers start with 0x"));
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("1500ns"), Ok(Duration::from_nanos(1500)));
        assert_eq!(time("5us"), Ok(Duration::from_micros(5)));
        assert_eq!(time("10 ms"), Ok(Duration::from_millis(10)));
        assert_eq!(time("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(time("3min"), Ok(Duration::from_secs(180)));
        assert_eq!(time("18446744073709551615s"), Ok(Duration::from_secs(u64::MAX)));
        assert_eq!(time("0"), Err(UnitError::TimeWithoutUnit { text: "0".into() }));
        assert_eq!(time("10").unwrap_err().to_string(), "`10` has no unit of time; units are ns, us, ms, s and min");
    }

    #[test]
    fn other_times_are_refused() {
        for text in ["", "s", "ms", "1.5s", "-1s", "+1s", "0x10ms", "1h", "1S", "1m", "1 s ", "1sms", "10,5ms"] {
            assert_eq!(time(text), Err(UnitError::Time { text: text.into() }), "{text}");
        }
        let long = format!("{}s", "9".repeat(60));
        for text in ["18446744073709551616s", "307445734561825861min", long.as_str()] {
            assert_eq!(time(text), Err(UnitError::TimeTooLong { text: text.into() }));
        }
    }

    #[test]
    fn text_has_the_largest_unit_that_divides() {
        let sizes = [(0, "0B"), (1, "1B"), (1536, "1536B"), (4096, "4KiB"), (3 << 40, "3TiB"), (1 << 30, "1GiB")];
        for (bytes, text) in sizes {
            assert_eq!(Size(bytes).to_string(), text);
        }
        let times = [(0, "0s"), (999, "999ns"), (5000, "5us"), (90_000_000_000, "90s"), (60_000_000_000, "1min")];
        for (nanos, text) in times {
            assert_eq!(Time(Duration::from_nanos(nanos)).to_string(), text);
        }
        assert_eq!(Time(Duration::MAX).to_string().parse(), Ok(Time(Duration::MAX)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read_back(bytes in any::<u64>(), shift in 0u32..64, seconds in any::<u64>(), nanos in 0u32..1_000_000_000) {
            for bytes in [bytes, bytes << shift] {
                prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
                prop_assert_eq!(number(&bytes.to_string()), Ok(bytes));
                prop_assert_eq!(number(&format!("{bytes:#x}")), Ok(bytes));
            }
            for time in [Duration::new(seconds, nanos), Duration::from_millis(seconds), Duration::from_secs(u64::from(nanos))] {
                prop_assert_eq!(Time(time).to_string().parse(), Ok(Time(time)));
            }
        }

        #[test]
        fn any_text_has_an_answer(text in "\\PC{0,12}", digits in "[0-9a-fxX+ ]{0,30}(B|KiB|TiB|ns|us|ms|s|min|)") {
            for text in [text, digits] {
                let _ = (number(&text), size(&text), time(&text));
            }
        }
    }
}
