//! What a plugin says about one of its arguments.
//!
//! Owns: [`ArgSpec`] and its line in a descriptor, `name:kind[!]:default:help`.
//! Must not know: the file that a descriptor lies in, the values that a user gave.
//! Keeps: a spec that [`ArgSpec::validate`] accepts is written as one line that is read back as the same spec; a line of a hostile
//! descriptor is refused or valid.
//!
//! In `default`, `\:` is a colon and `\\` a backslash; no other backslash may stand there. `help` is the rest of the line as it is.

use std::{borrow::Cow, collections::HashSet, fmt, str::FromStr};

use super::{
    ArgKind, ArgValue, MAX_ARGS,
    quote::{self, shorten},
};
use crate::error::{Error, Result};

/// Bytes of the longest line.
const MAX_LINE: usize = 4 << 10;

/// One argument that a plugin takes. The strings are literals in a plugin, and owned when they come out of a descriptor.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ArgSpec {
    /// What it is called: a lower-case letter, then lower-case letters, digits, `-` and `_`, at most 64 in all.
    pub name: Cow<'static, str>,
    /// What values it takes.
    pub kind: ArgKind,
    /// Whether it must be given.
    pub required: bool,
    /// The value when it is not given; empty when there is none.
    pub default: Cow<'static, str>,
    /// What it does, in one line.
    pub help: Cow<'static, str>,
}

impl ArgSpec {
    /// An argument that may be left out, without default and help.
    pub fn new(name: impl Into<Cow<'static, str>>, kind: ArgKind) -> Self {
        Self { name: name.into(), kind, required: false, default: "".into(), help: "".into() }
    }

    /// Says that it must be given.
    #[must_use]
    pub fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// Sets the value that is used when it is not given.
    #[must_use]
    pub fn default(self, value: impl Into<Cow<'static, str>>) -> Self {
        Self { default: value.into(), ..self }
    }

    /// Sets the line that says what it does.
    #[must_use]
    pub fn help(self, text: impl Into<Cow<'static, str>>) -> Self {
        Self { help: text.into(), ..self }
    }

    /// Reads the lines of one plugin.
    ///
    /// # Errors
    /// [`Error::Argument`] for the first line that is malformed, for a name that comes up twice, and for more than [`MAX_ARGS`] lines.
    pub fn parse_all<'l>(lines: impl IntoIterator<Item = &'l str>) -> Result<Vec<Self>> {
        let mut specs: Vec<Self> = Vec::new();
        let mut names = HashSet::new();
        for line in lines {
            let problem = |expected: Cow<'static, str>| {
                let what = "line of a plugin's argument".into();
                Error::Argument { what, expected, found: shorten(line) }
            };
            if specs.len() >= MAX_ARGS {
                return Err(problem(format!("at most {MAX_ARGS} arguments").into()));
            }
            let spec: Self = line.parse()?;
            if !names.insert(spec.name.clone()) {
                return Err(problem(format!("argument `{}` once", spec.name).into()));
            }
            specs.push(spec);
        }
        Ok(specs)
    }

    /// How it is given: `cache=SIZE`, `partial`.
    pub fn usage(&self) -> String {
        match self.kind {
            ArgKind::Flag => self.name.to_string(),
            _ => format!("{}={}", self.name, self.kind.placeholder()),
        }
    }

    /// Checks that the name is one, that the default is a value of the kind, and that everything fits on one line.
    ///
    /// # Errors
    /// [`Error::Argument`] names the argument and what is wrong with it.
    pub fn validate(&self) -> Result<()> {
        let problem = |expected: Cow<'static, str>, found: &str| {
            let what = format!("argument `{}` of a plugin", shorten(&self.name)).into();
            Err(Error::Argument { what, expected, found: shorten(found) })
        };
        if !quote::is_key(&self.name) {
            let expected = "a lower-case letter, then lower-case letters, digits, - and _, at most 64 in all";
            return problem(expected.into(), &self.name);
        }
        self.kind.validate()?;
        if self.required && !self.default.is_empty() {
            return problem("no default, as it must be given".into(), &self.default);
        }
        if !self.default.is_empty() && !self.kind.accepts(&ArgValue::from(&*self.default)) {
            return problem(format!("{} as default", self.kind.accepted()).into(), &self.default);
        }
        for text in [&self.default, &self.help] {
            if text.contains(char::is_control) {
                return problem("text without line breaks and other control characters".into(), text);
            }
        }
        let line = self.to_string();
        if line.len() > MAX_LINE {
            return problem(format!("at most {MAX_LINE} bytes").into(), &line);
        }
        Ok(())
    }
}

impl fmt::Display for ArgSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, required, default, help } = self;
        let mark = if *required { "!" } else { "" };
        write!(f, "{name}:{kind}{mark}:{}:{help}", default.replace('\\', r"\\").replace(':', r"\:"))
    }
}

impl FromStr for ArgSpec {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let problem = |expected: String| {
            let what = "line of a plugin's argument".into();
            Error::Argument { what, expected: expected.into(), found: shorten(line) }
        };
        if line.len() > MAX_LINE {
            return Err(problem(format!("at most {MAX_LINE} bytes")));
        }
        let form = || problem("name:kind:default:help, or name:kind!:: and help for one that must be given".to_owned());
        let (name, rest) = line.split_once(':').ok_or_else(form)?;
        let (kind, rest) = rest.split_once(':').ok_or_else(form)?;
        let (kind, required) = match kind.strip_suffix('!') {
            Some(kind) => (kind, true),
            None => (kind, false),
        };
        let mut default = String::new();
        let mut characters = rest.chars();
        loop {
            match characters.next() {
                None => return Err(form()),
                Some(':') => break,
                Some('\\') => match characters.next() {
                    Some(escaped @ (':' | '\\')) => default.push(escaped),
                    _ => return Err(problem(r"only \: and \\ with a backslash in the default".to_owned())),
                },
                Some(other) => default.push(other),
            }
        }
        let spec = Self {
            name: name.to_owned().into(),
            kind: kind.parse()?,
            required,
            default: default.into(),
            help: characters.as_str().to_owned().into(),
        };
        spec.validate()?;
        Ok(spec)
    }
}
