//! What kinds of values arguments have.
//!
//! Owns: which texts each kind accepts, what an error says about it, and the name of the kind in descriptors.
//! Must not know: which plugin has which arguments.
//! Keeps: a value that a kind accepts is one that the getter of that kind in [`Args`](super::Args) can read.

use std::{borrow::Cow, fmt, str::FromStr};

use super::{
    ArgValue,
    quote::{self, shorten},
};
use crate::{
    error::{Error, Result},
    units,
};

/// The longest list of choices.
const MAX_CHOICES: usize = 256;

/// What kind of value an argument takes. Its text is `text`, `path`, `flag`, `number`, `size`, `time` or `choice(a|b|c)`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ArgKind {
    /// Any text.
    Text,
    /// A path: text that is not empty and holds no NUL.
    Path,
    /// On or off: the name alone, or one of `true`, `yes`, `on`, `1`, `false`, `no`, `off`, `0`.
    Flag,
    /// A [number](units::number).
    Number,
    /// A [count of bytes](units::size).
    Size,
    /// A [time](units::time).
    Time,
    /// One of these words (letters, digits, `_`, `-`, `.` and `+`).
    Choice(Vec<Cow<'static, str>>),
}

impl ArgKind {
    /// One of these words.
    pub fn choice<W: Into<Cow<'static, str>>>(words: impl IntoIterator<Item = W>) -> Self {
        Self::Choice(words.into_iter().map(Into::into).collect())
    }

    /// True when a value is of this kind.
    pub fn accepts(&self, value: &ArgValue) -> bool {
        let Some(text) = value.text() else { return matches!(self, Self::Flag) };
        match self {
            Self::Text => true,
            Self::Path => is_path(text),
            Self::Flag => flag(text).is_some(),
            Self::Number => units::number(text).is_ok(),
            Self::Size => units::size(text).is_ok(),
            Self::Time => units::time(text).is_ok(),
            Self::Choice(words) => words.iter().any(|word| word == text),
        }
    }

    /// What is accepted, as the end of a sentence with "expected".
    pub fn accepted(&self) -> Cow<'static, str> {
        match self {
            Self::Text => "a text".into(),
            Self::Path => "a path (not empty, without NUL)".into(),
            Self::Flag => "the name alone, or true, yes, on, 1, false, no, off or 0".into(),
            Self::Number => "a number below 2^64 (decimal, or hexadecimal with 0x)".into(),
            Self::Size => {
                "a size below 2^64 bytes (a decimal number with B, KiB, MiB, GiB or TiB, or bytes alone)".into()
            }
            Self::Time => "a time (a decimal number with ns, us, ms, s or min)".into(),
            Self::Choice(words) => format!("one of {}", words.join(", ")).into(),
        }
    }

    /// The value as usage lines show it: `SIZE`, `auto|flat`; nothing for a flag.
    pub fn placeholder(&self) -> Cow<'static, str> {
        match self {
            Self::Text => "TEXT".into(),
            Self::Path => "PATH".into(),
            Self::Flag => "".into(),
            Self::Number => "NUMBER".into(),
            Self::Size => "SIZE".into(),
            Self::Time => "TIME".into(),
            Self::Choice(words) => words.join("|").into(),
        }
    }

    /// Checks that the kind can be written and read back.
    pub(super) fn validate(&self) -> Result<()> {
        let Self::Choice(words) = self else { return Ok(()) };
        let problem = |expected: String, found: &str| {
            Err(Error::Argument {
                what: "choices of an argument".into(),
                expected: expected.into(),
                found: shorten(found),
            })
        };
        if words.is_empty() || words.len() > MAX_CHOICES {
            return problem(format!("1 to {MAX_CHOICES} words"), &words.len().to_string());
        }
        for (index, word) in words.iter().enumerate() {
            if !quote::is_word(word) {
                return problem("words of letters, digits, _, -, . and +".to_owned(), word);
            }
            if words.iter().take(index).any(|earlier| earlier == word) {
                return problem("each word once".to_owned(), word);
            }
        }
        Ok(())
    }
}

/// What the text of a flag means, if it is one.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// True for text that can name a file.
pub(super) fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

impl fmt::Display for ArgKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Path => "path",
            Self::Flag => "flag",
            Self::Number => "number",
            Self::Size => "size",
            Self::Time => "time",
            Self::Choice(words) => return write!(f, "choice({})", words.join("|")),
        })
    }
}

impl FromStr for ArgKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let kind = match text {
            "text" => Self::Text,
            "path" => Self::Path,
            "flag" => Self::Flag,
            "number" => Self::Number,
            "size" => Self::Size,
            "time" => Self::Time,
            _ => match text.strip_prefix("choice(").and_then(|rest| rest.strip_suffix(')')) {
                // One more than the limit, so that too many are noticed and no more are kept.
                Some(words) => Self::choice(words.split('|').take(MAX_CHOICES.saturating_add(1)).map(str::to_owned)),
                None => {
                    return Err(Error::Argument {
                        what: "kind of an argument".into(),
                        expected: "text, path, flag, number, size, time or choice(a|b|c)".into(),
                        found: shorten(text),
                    });
                }
            },
        };
        kind.validate()?;
        Ok(kind)
    }
}
