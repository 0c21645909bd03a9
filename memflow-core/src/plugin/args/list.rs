//! The arguments of a plugin.
//!
//! Owns: [`Args`], the list, and reading a value as the type it stands for.
//! Must not know: which plugin takes what, how the list is written (`grammar`).
//! Keeps: the order in which arguments were given, and each key once.

use std::{borrow::Cow, fmt, path::PathBuf, str::FromStr, time::Duration};

use super::{ArgKind, ArgValue, kind, quote::shorten};
use crate::{
    error::{Error, Result},
    units,
};

/// Arguments in the order in which they were given, each key once. From text with `parse`, or from code:
///
/// ```
/// use std::time::Duration;
/// use memflow_core::{plugin::args::Args, units::Size};
///
/// let args = Args::new().with("layout", "flat").with("cache", Size(16 << 20)).with("delay", Duration::from_micros(5));
/// assert_eq!(args.to_string(), "layout=flat,cache=16MiB,delay=5us");
/// assert_eq!(args, "layout=flat,cache=16MiB,delay=5us".parse()?);
/// assert_eq!(args.size("cache")?, Some(16 << 20));
/// # Ok::<(), memflow_core::Error>(())
/// ```
///
/// Its text is a list of `key=value` and `key` with commas between them; nothing is the empty list.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Args {
    // INVARIANT: no two have the same key.
    entries: Vec<(String, ArgValue)>,
}

impl Args {
    /// No arguments.
    pub fn new() -> Self {
        Self::default()
    }

    /// The list with one more argument; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<ArgValue>) -> Self {
        self.set(key, value);
        self
    }

    /// Adds an argument, or replaces the value of the one that is there and returns the former one.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<ArgValue>) -> Option<ArgValue> {
        let (key, value) = (key.into(), value.into());
        match self.entries.iter_mut().find(|(found, _)| *found == key) {
            Some((_, place)) => Some(std::mem::replace(place, value)),
            None => {
                self.entries.push((key, value));
                None
            }
        }
    }

    /// Takes an argument out of the list.
    pub fn remove(&mut self, key: &str) -> Option<ArgValue> {
        let index = self.entries.iter().position(|(found, _)| found == key)?;
        Some(self.entries.remove(index).1)
    }

    /// The value of an argument as it was given.
    pub fn get(&self, key: &str) -> Option<&ArgValue> {
        self.entries.iter().find(|(found, _)| found == key).map(|(_, value)| value)
    }

    /// Keys and values, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &ArgValue)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value as it was written; `None` when the argument was not given, as with every method that follows.
    ///
    /// # Errors
    /// [`Error::Argument`] for a name alone.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.read(key, || ArgKind::Text.accepted(), Some)
    }

    /// Whether a flag is on: its name alone, `true`, `yes`, `on` or `1`; off is `false`, `no`, `off` or `0`.
    ///
    /// # Errors
    /// [`Error::Argument`] for any other value.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            Some(ArgValue::Bare) => Ok(Some(true)),
            _ => self.read(key, || ArgKind::Flag.accepted(), kind::flag),
        }
    }

    /// A [number](units::number).
    ///
    /// # Errors
    /// [`Error::Argument`] for any other value.
    pub fn number(&self, key: &str) -> Result<Option<u64>> {
        self.read(key, || ArgKind::Number.accepted(), |text| units::number(text).ok())
    }

    /// A [size](units::size), in bytes.
    ///
    /// # Errors
    /// [`Error::Argument`] for any other value.
    pub fn size(&self, key: &str) -> Result<Option<u64>> {
        self.read(key, || ArgKind::Size.accepted(), |text| units::size(text).ok())
    }

    /// A [time](units::time).
    ///
    /// # Errors
    /// [`Error::Argument`] for any other value.
    pub fn time(&self, key: &str) -> Result<Option<Duration>> {
        self.read(key, || ArgKind::Time.accepted(), |text| units::time(text).ok())
    }

    /// A path.
    ///
    /// # Errors
    /// [`Error::Argument`] for a name alone, an empty value and one with NUL.
    pub fn path(&self, key: &str) -> Result<Option<PathBuf>> {
        self.read(key, || ArgKind::Path.accepted(), |text| kind::is_path(text).then(|| PathBuf::from(text)))
    }

    /// A value of any type that is read from text; `expected` says what belongs there ("an address below 2^52").
    ///
    /// # Errors
    /// [`Error::Argument`] with `expected` for a name alone, and when the type refuses the text also with its reason.
    pub fn parse<T: FromStr<Err: fmt::Display>>(
        &self,
        key: &str,
        expected: impl Into<Cow<'static, str>>,
    ) -> Result<Option<T>> {
        let expected = expected.into();
        let Some(text) = self.read(key, || expected.clone(), Some)? else { return Ok(None) };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(reason) => {
                let expected = format!("{expected} ({})", shorten(&reason.to_string()));
                Err(wrong_value(key, expected.into(), self.get(key)))
            }
        }
    }

    /// Reads the text of an argument with `read`; nothing is an argument that is not given.
    fn read<'a, T>(
        &'a self,
        key: &str,
        accepted: impl FnOnce() -> Cow<'static, str>,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.text().and_then(read) {
            Some(value) => Ok(Some(value)),
            None => Err(wrong_value(key, accepted(), Some(value))),
        }
    }
}

/// The error for a value of the wrong kind.
pub(super) fn wrong_value(key: &str, accepted: Cow<'static, str>, value: Option<&ArgValue>) -> Error {
    let key = shorten(key);
    let what = format!("argument `{key}`").into();
    match value.and_then(ArgValue::text) {
        Some(text) => Error::Argument { what, expected: accepted, found: shorten(text) },
        // Nothing but its name: the form helps more than the empty value.
        None => Error::Argument { what, expected: format!("{accepted}, as `{key}=…`").into(), found: key },
    }
}
