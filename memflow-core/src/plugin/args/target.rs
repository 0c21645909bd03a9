//! Target strings: which plugin, what it opens, and with which arguments.
//!
//! Owns: [`ConnectorSpec`] and [`OsSpec`]. Must not know: which plugins there are, how text is read (`grammar`).
//! Keeps: what is written is read back as the same value, whatever its target and arguments hold.

use std::{fmt, str::FromStr};

use super::{
    ArgValue, Args,
    grammar::Parser,
    quote::{self, Quoted, shorten},
};
use crate::error::{Error, Result};

/// A connector with its target and arguments: `name[@version][:[target][:arguments]]`. From text with `parse`, or from code, where
/// nothing needs quotes:
///
/// ```
/// use std::time::Duration;
/// use memflow_core::plugin::args::ConnectorSpec;
///
/// let spec = ConnectorSpec::new("snapshot")?
///     .with_target("/dumps/a:b,c.raw")
///     .with_arg("layout", "flat")
///     .with_arg("cache", 16 << 20)
///     .with_arg("delay", Duration::from_micros(5))
///     .with_arg("partial", true);
/// let text = r#"snapshot:"/dumps/a:b,c.raw":layout=flat,cache=16777216,delay=5us,partial"#;
/// assert_eq!(spec.to_string(), text);
/// assert_eq!(spec, text.parse()?);
/// # Ok::<(), memflow_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ConnectorSpec {
    plugin: Plugin,
    target: Option<String>,
    args: Args,
}

/// An OS layer with its arguments: `name[@version][:arguments]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OsSpec {
    plugin: Plugin,
    args: Args,
}

/// Which plugin.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Plugin {
    // INVARIANT: the grammar's `name` and `version`.
    name: String,
    version: Option<String>,
}

impl Plugin {
    fn new(name: String) -> Result<Self> {
        if quote::is_plugin_name(&name) {
            return Ok(Self { name, version: None });
        }
        Err(Error::Argument {
            what: "name of a plugin".into(),
            expected: "1 to 32 lower-case letters, digits, - and _, no - or _ first".into(),
            found: shorten(&name),
        })
    }

    fn with_version(self, version: String) -> Result<Self> {
        if quote::is_version(&version) {
            return Ok(Self { version: Some(version), ..self });
        }
        Err(Error::Argument {
            what: format!("version of plugin {}", self.name).into(),
            expected: "letters, digits, ., -, _ and +, such as 0.1.0".into(),
            found: shorten(&version),
        })
    }
}

impl fmt::Display for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version } = self;
        match version {
            Some(version) => write!(f, "{name}@{version}"),
            None => f.write_str(name),
        }
    }
}

impl ConnectorSpec {
    /// A connector without target and arguments, of whichever version there is.
    ///
    /// # Errors
    /// [`Error::Argument`] when no plugin can have this name.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        Ok(Self { plugin: Plugin::new(name.into())?, target: None, args: Args::new() })
    }

    /// Asks for one version.
    ///
    /// # Errors
    /// [`Error::Argument`] when no plugin can have this version.
    pub fn with_version(self, version: impl Into<String>) -> Result<Self> {
        Ok(Self { plugin: self.plugin.with_version(version.into())?, ..self })
    }

    /// Sets what the connector opens: a path, an address, a name, whatever it takes.
    #[must_use]
    pub fn with_target(self, target: impl Into<String>) -> Self {
        Self { target: Some(target.into()), ..self }
    }

    /// Sets all arguments.
    #[must_use]
    pub fn with_args(self, args: Args) -> Self {
        Self { args, ..self }
    }

    /// Adds an argument, as [`Args::with`].
    #[must_use]
    pub fn with_arg(self, key: impl Into<String>, value: impl Into<ArgValue>) -> Self {
        Self { args: self.args.with(key, value), ..self }
    }

    /// The name of the plugin.
    pub fn name(&self) -> &str {
        &self.plugin.name
    }

    /// The version that was asked for.
    pub fn version(&self) -> Option<&str> {
        self.plugin.version.as_deref()
    }

    /// What the connector is to open.
    pub fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    /// The arguments.
    pub fn args(&self) -> &Args {
        &self.args
    }

    /// The arguments, to be changed.
    pub fn args_mut(&mut self) -> &mut Args {
        &mut self.args
    }
}

impl fmt::Display for ConnectorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plugin, target, args } = self;
        plugin.fmt(f)?;
        match target {
            Some(target) => write!(f, ":{}", Quoted(target))?,
            None if args.is_empty() => return Ok(()),
            None => f.write_str(":")?,
        }
        if args.is_empty() { Ok(()) } else { write!(f, ":{args}") }
    }
}

impl FromStr for ConnectorSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parser = Parser::new(text)?;
        let (name, version) = parser.head()?;
        let mut spec = Self { plugin: Plugin { name, version }, target: None, args: Args::new() };
        if !parser.take(':') {
            return Ok(spec);
        }
        let (after_name, name) = (parser.rest(), spec.name());
        let target = parser.target(name)?;
        if parser.take(':') {
            let hint = if target.is_some() && !after_name.starts_with(['"', '\'']) {
                let whole = shorten(&Quoted(after_name).to_string());
                format!("; a target that holds `:` stands in quotes (`{name}:{whole}`)")
            } else {
                String::new()
            };
            spec.args = parser.args(&hint)?;
        }
        spec.target = target;
        Ok(spec)
    }
}

impl OsSpec {
    /// An OS layer without arguments, of whichever version there is.
    ///
    /// # Errors
    /// [`Error::Argument`] when no plugin can have this name.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        Ok(Self { plugin: Plugin::new(name.into())?, args: Args::new() })
    }

    /// Asks for one version.
    ///
    /// # Errors
    /// [`Error::Argument`] when no plugin can have this version.
    pub fn with_version(self, version: impl Into<String>) -> Result<Self> {
        Ok(Self { plugin: self.plugin.with_version(version.into())?, ..self })
    }

    /// Sets all arguments.
    #[must_use]
    pub fn with_args(self, args: Args) -> Self {
        Self { args, ..self }
    }

    /// Adds an argument, as [`Args::with`].
    #[must_use]
    pub fn with_arg(self, key: impl Into<String>, value: impl Into<ArgValue>) -> Self {
        Self { args: self.args.with(key, value), ..self }
    }

    /// The name of the plugin.
    pub fn name(&self) -> &str {
        &self.plugin.name
    }

    /// The version that was asked for.
    pub fn version(&self) -> Option<&str> {
        self.plugin.version.as_deref()
    }

    /// The arguments.
    pub fn args(&self) -> &Args {
        &self.args
    }

    /// The arguments, to be changed.
    pub fn args_mut(&mut self) -> &mut Args {
        &mut self.args
    }
}

impl fmt::Display for OsSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plugin, args } = self;
        if args.is_empty() { plugin.fmt(f) } else { write!(f, "{plugin}:{args}") }
    }
}

impl FromStr for OsSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parser = Parser::new(text)?;
        let (name, version) = parser.head()?;
        let mut spec = Self { plugin: Plugin { name, version }, args: Args::new() };
        if parser.take(':') {
            let name = spec.name();
            spec.args = parser.args(&format!("; an OS layer has no target, only arguments (`{name}:key=value`)"))?;
        }
        Ok(spec)
    }
}

impl fmt::Display for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            if quote::is_key(key) {
                f.write_str(key)?
            } else {
                quote::write_quoted(f, key)?
            }
            if let Some(text) = value.text() {
                write!(f, "={}", Quoted(text))?;
            }
        }
        Ok(())
    }
}

impl FromStr for Args {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parser = Parser::new(text)?;
        if parser.at_end() { Ok(Self::new()) } else { parser.args("") }
    }
}
