//! Which texts stand as they are, and quotes for the others.
//!
//! Owns: the characters that mean something, and how any text is written so that it is read back the same.
//! Must not know: what the text is.
//! Keeps: [`Quoted`] of any text is one target or value of the [grammar](super).

use std::fmt;

/// Characters of an input that errors show.
const SHOWN: usize = 120;
/// Bytes of the longest key and of the longest version.
const MAX_NAME: usize = 64;
/// Bytes of the longest name of a plugin.
const MAX_PLUGIN_NAME: usize = 32;

/// Characters that stand in a target or value only in quotes.
pub(super) fn is_special(character: char) -> bool {
    matches!(character, ':' | ',' | '=' | '"' | '\'') || character.is_control()
}

/// True for the name of a plugin: a lower-case letter or digit, then lower-case letters, digits, `-` and `_`, at most 32 in all.
pub fn is_plugin_name(text: &str) -> bool {
    text.len() <= MAX_PLUGIN_NAME
        && text.starts_with(|first: char| is_lower(first) || first.is_ascii_digit())
        && is_lower_word(text)
}

/// True for the version of a plugin as target strings name it: a letter or digit, then letters, digits, `.`, `-`, `_` and `+`.
pub(super) fn is_version(text: &str) -> bool {
    text.len() <= MAX_NAME && text.starts_with(|first: char| first.is_ascii_alphanumeric()) && is_word(text)
}

/// True for a key that needs no quotes: a lower-case letter, then lower-case letters, digits, `-` and `_`.
pub(super) fn is_key(text: &str) -> bool {
    text.len() <= MAX_NAME && text.starts_with(is_lower) && is_lower_word(text)
}

/// True for a word of a choice.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.+".contains(&byte))
}

fn is_lower(character: char) -> bool {
    character.is_ascii_lowercase()
}

fn is_lower_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte))
}

/// The drive of a path on Windows (`C:`) and the rest, which starts with a slash or backslash.
pub(super) fn split_drive(text: &str) -> Option<(&str, &str)> {
    let (drive, rest) = text.split_at_checked(2)?;
    let letter = drive.strip_suffix(':')?;
    (letter.bytes().all(|byte| byte.is_ascii_alphabetic()) && rest.starts_with(['\\', '/'])).then_some((drive, rest))
}

/// True for text that is a target or value without quotes.
pub(super) fn is_plain(text: &str) -> bool {
    let rest = split_drive(text).map_or(text, |(_, rest)| rest);
    // A backslash at the end would stand before the separator that may follow.
    !rest.is_empty() && !rest.contains(is_special) && !rest.ends_with('\\') && text.trim() == text
}

/// Text as a target or value: as it is where that is possible, else in quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted<'t>(pub(super) &'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = *self;
        let needs_escapes = text.contains(char::is_control) || text.contains('\'');
        if is_plain(text) {
            f.write_str(text)
        } else if !needs_escapes && text.contains(['"', '\\']) {
            write!(f, "'{text}'")
        } else {
            write_quoted(f, text)
        }
    }
}

/// Writes text in double quotes.
pub(super) fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(f, "\\{character}")?,
            control if control.is_control() => write!(f, "\\u{{{:x}}}", u32::from(control))?,
            other => write!(f, "{other}")?,
        }
    }
    f.write_str("\"")
}

/// The input as an error shows it: cut when it is long, without control characters.
pub(super) fn shorten(text: &str) -> String {
    let mut shown = String::new();
    let mut characters = text.chars();
    for character in characters.by_ref().take(SHOWN) {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    if !characters.as_str().is_empty() {
        shown.push('…');
    }
    shown
}
