//! Text from a target, made safe for a terminal, and numbers made readable.
//!
//! Owns: what reaches a terminal. Must not know: tables, commands.
//! Keeps: no control character, escape sequence or invisible direction mark of a target gets through.

use std::{borrow::Cow, fmt::Write as _, time::Duration};

use memflow_core::address::{GIB, KIB, MIB};

/// `text` with every character that is not visible written as an escape (`\n`, `\u{1b}`).
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_visible) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_visible(character) {
            escaped.push(character);
        } else {
            escaped.extend(character.escape_debug());
        }
    }
    Cow::Owned(escaped)
}

/// As [`escape`], for bytes; those that are not UTF-8 are written as `\xNN`.
pub(crate) fn escape_bytes(bytes: &[u8]) -> String {
    let mut escaped = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        escaped.push_str(&escape(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _infallible = write!(escaped, "\\x{byte:02x}");
        }
    }
    escaped
}

/// True when a terminal shows the character and does nothing else with it.
pub(super) fn is_visible(character: char) -> bool {
    // `escape_debug` knows which characters are printable; quotes and the backslash it escapes for other reasons.
    matches!(character, '\'' | '"' | '\\') || character.escape_debug().len() == 1
}

/// A time since boot, as `ps -o etime` writes spans, with hundredths: `[[DAYS-]HOURS:]MINUTES:SECONDS`.
pub(crate) fn elapsed(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let rest = format!("{minutes:02}:{:02}.{:02}", seconds % 60, time.subsec_millis() / 10);
    match (days, hours) {
        (0, 0) => rest,
        (0, _) => format!("{hours:02}:{rest}"),
        _ => format!("{days}-{hours:02}:{rest}"),
    }
}

/// A count of bytes with a binary unit: exact when it divides, else with one decimal.
pub(crate) fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..KIB => return format!("{bytes} B"),
        KIB..MIB => (KIB, "KiB"),
        MIB..GIB => (MIB, "MiB"),
        _ => (GIB, "GiB"),
    };
    if bytes.is_multiple_of(unit) {
        return format!("{} {name}", bytes / unit);
    }
    // Rounded down: a size that is shown is there.
    format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
}

/// `count` and the noun, with its s.
pub(crate) fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("{count} {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_never_get_through() {
        assert_eq!(escape("plain name"), "plain name");
        assert_eq!(escape("\u{1b}[31mred\u{7}"), "\\u{1b}[31mred\\u{7}");
        assert_eq!(escape("a\nb\tc\r"), "a\\nb\\tc\\r");
        assert_eq!(escape("\u{9b}2J"), "\\u{9b}2J");
        assert_eq!(escape("abc\u{202e}fed"), "abc\\u{202e}fed");
    }

    #[test]
    fn visible_text_stays_as_it_is() {
        assert_eq!(escape(r#"it's "C:\x" größe 日本"#), r#"it's "C:\x" größe 日本"#);
    }

    #[test]
    fn bytes_that_are_not_text_are_written_as_numbers() {
        assert_eq!(escape_bytes(b"a\xffb\x1b"), "a\\xffb\\u{1b}");
    }

    #[test]
    fn elapsed_grows_to_the_left() {
        assert_eq!(elapsed(Duration::from_millis(1_239)), "00:01.23");
        assert_eq!(elapsed(Duration::from_secs(3_661)), "01:01:01.00");
        assert_eq!(elapsed(Duration::from_secs(90_061)), "1-01:01:01.00");
        assert_eq!(elapsed(Duration::ZERO), "00:00.00");
    }

    #[test]
    fn sizes_are_exact_or_rounded_down() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(4096), "4 KiB");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(2 << 30), "2 GiB");
        assert_eq!(size((2 << 30) - 1), "1.9 GiB");
        assert_eq!(size(u64::MAX), "17179869183.9 GiB");
    }
}
