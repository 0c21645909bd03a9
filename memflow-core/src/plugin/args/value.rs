//! The value of one argument.
//!
//! Owns: [`ArgValue`], text whatever it was made from, so that code and the command line give a plugin the same thing.
//! Must not know: keys, kinds, the text form of lists.
//! Keeps: what a conversion writes, the getter of that type reads back as the same value.

use std::{borrow::Cow, path::Path, time::Duration};

use crate::{
    error::{Error, Result},
    units::{Size, Time},
};

/// What an argument was given: nothing but its name, or text.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ArgValue {
    /// The name alone (`partial`): a flag that is on.
    Bare,
    /// `key=text`.
    Text(String),
}

impl ArgValue {
    /// The text, or nothing for a name alone.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Bare => None,
            Self::Text(text) => Some(text),
        }
    }

    /// The value for a path. Arguments are text, so this is not a plain conversion.
    ///
    /// # Errors
    /// [`Error::Argument`] when the path is not UTF-8: a replacement character would name another file.
    pub fn path(path: &Path) -> Result<Self> {
        match path.to_str() {
            Some(text) => Ok(text.into()),
            None => Err(Error::Argument {
                what: "path as an argument".into(),
                expected: "a path in UTF-8; a link to the file may have another name".into(),
                found: path.to_string_lossy().into_owned(),
            }),
        }
    }
}

impl From<&str> for ArgValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for ArgValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Cow<'_, str>> for ArgValue {
    fn from(text: Cow<'_, str>) -> Self {
        Self::Text(text.into_owned())
    }
}

/// `true` is the name alone.
impl From<bool> for ArgValue {
    fn from(on: bool) -> Self {
        if on { Self::Bare } else { Self::Text("false".to_owned()) }
    }
}

/// A number, in decimal; also a size in bytes. Signed ones are there for plain literals (`with_arg("cache", 16 << 20)`): a negative
/// number is text that no number or size accepts.
macro_rules! from_numbers {
    ($($number:ty)*) => {
        $(impl From<$number> for ArgValue {
            fn from(number: $number) -> Self {
                Self::Text(number.to_string())
            }
        })*
    };
}

from_numbers!(u8 u16 u32 u64 usize i32 i64);

impl From<Size> for ArgValue {
    fn from(size: Size) -> Self {
        Self::Text(size.to_string())
    }
}

impl From<Time> for ArgValue {
    fn from(time: Time) -> Self {
        Self::Text(time.to_string())
    }
}

impl From<Duration> for ArgValue {
    fn from(time: Duration) -> Self {
        Time(time).into()
    }
}
