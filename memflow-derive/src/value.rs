//! Which texts a descriptor takes where.
//!
//! Owns: names, kinds of arguments, and their defaults, as far as the compiler can refuse them at the right place.
//! Must not know: tokens.
//! Keeps: what is accepted here is accepted by `memflow-core` when it reads the descriptor, and the other way round. A macro cannot
//! link the crate that its output is for, so the rules stand here a second time; `tests/values.rs` holds them together.

/// What kind of value an argument takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Text,
    Path,
    Flag,
    Number,
    Size,
    Time,
    Choice(Vec<String>),
}

/// The kinds, for errors.
pub(crate) const KINDS: &str = "text, path, flag, number, size, time, choice(a | b)";
/// What a plugin's name is.
pub(crate) const NAME: &str = "at most 32 of a-z, 0-9, `_` and `-`, not beginning with `_` or `-`";
/// What an argument's name is.
pub(crate) const KEY: &str = "a lower-case letter, then lower-case letters, digits, `-` and `_`, at most 64 in all";
/// What a word of a choice is.
pub(crate) const WORD: &str = "1 to 64 letters, digits, `_`, `-`, `.` and `+`";
/// The longest list of choices.
pub(crate) const MAX_CHOICES: usize = 256;
/// The most arguments of a plugin.
pub(crate) const MAX_ARGS: usize = 256;
/// Bytes of the longest text in a descriptor.
pub(crate) const MAX_VALUE: usize = 64 << 10;
/// Bytes of the longest line of an argument.
pub(crate) const MAX_LINE: usize = 4 << 10;

impl Kind {
    /// The kind without words that has this name.
    pub(crate) fn simple(name: &str) -> Option<Self> {
        Some(match name {
            "text" => Self::Text,
            "path" => Self::Path,
            "flag" => Self::Flag,
            "number" => Self::Number,
            "size" => Self::Size,
            "time" => Self::Time,
            _ => return None,
        })
    }

    /// The kind in a descriptor.
    pub(crate) fn descriptor(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Flag => "flag".to_owned(),
            Self::Number => "number".to_owned(),
            Self::Size => "size".to_owned(),
            Self::Time => "time".to_owned(),
            Self::Choice(words) => format!("choice({})", words.join("|")),
        }
    }

    /// True for a text that is a value of this kind.
    pub(crate) fn accepts(&self, text: &str) -> bool {
        match self {
            Self::Text => true,
            Self::Path => !text.is_empty() && !text.contains('\0'),
            Self::Flag => matches!(text, "true" | "yes" | "on" | "1" | "false" | "no" | "off" | "0"),
            Self::Number => number(text).is_some(),
            Self::Size => size(text).is_some(),
            Self::Time => time(text),
            Self::Choice(words) => words.iter().any(|word| word == text),
        }
    }

    /// What is accepted, as the end of a sentence with "expected".
    pub(crate) fn accepted(&self) -> String {
        match self {
            Self::Text => "a text".to_owned(),
            Self::Path => "a path (not empty, without NUL)".to_owned(),
            Self::Flag => "true, yes, on, 1, false, no, off or 0".to_owned(),
            Self::Number => "a number below 2^64 (decimal, or hexadecimal with 0x)".to_owned(),
            Self::Size => {
                "a size below 2^64 bytes (a decimal number with B, KiB, MiB, GiB or TiB, or bytes alone)".to_owned()
            }
            Self::Time => "a time (a decimal number with ns, us, ms, s or min)".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
        }
    }
}

/// True for the name of a plugin.
pub(crate) fn is_plugin_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 32
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|byte| plain(byte) || matches!(byte, b'_' | b'-'))
}

/// True for the name of an argument.
pub(crate) fn is_key(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'))
}

/// True for a word of a choice.
pub(crate) fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+'))
}

fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match hex_digits(text) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // `from_str_radix` would take a sign.
    if digits.starts_with('+') { None } else { u64::from_str_radix(digits, radix).ok() }
}

fn size(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?.trim_end(), bytes)));
    match unit {
        // `0x1B` is a number, not a byte with a unit.
        Some((count, bytes)) if hex_digits(text).is_none() => number(count)?.checked_mul(*bytes),
        _ => number(text),
    }
}

fn time(text: &str) -> bool {
    const SECOND: u128 = 1_000_000_000;
    // Names that end in the name of another unit come before it.
    const UNITS: [(&str, u128); 5] = [("min", 60 * SECOND), ("ms", 1_000_000), ("us", 1_000), ("ns", 1), ("s", SECOND)];
    let Some((digits, nanos)) =
        UNITS.iter().find_map(|(unit, nanos)| Some((text.strip_suffix(unit)?.trim_end(), nanos)))
    else {
        return false;
    };
    let decimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let total = decimal.then(|| digits.parse::<u128>().ok()?.checked_mul(*nanos)).flatten();
    total.is_some_and(|total| total / SECOND <= u128::from(u64::MAX))
}

fn hex_digits(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}
