//! Reading descriptors from the bytes of their section.
//!
//! Owns: [`Descriptor::parse_section`] and its limits.
//! Must not know: where in which file the bytes were.
//! Keeps: work and memory are bounded by the section's size, which is bounded itself; a mistake in one plugin's strings leaves the
//! others of the section as they are.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use super::record::{AbiVersion, BadDescriptor, Descriptor, DescriptorError, excerpt};

/// Most bytes of a section.
pub const MAX_SECTION: usize = 1 << 20;
/// Most bytes of a value.
pub const MAX_VALUE: usize = 64 << 10;
/// Most plugins of one section.
pub const MAX_PLUGINS: usize = 64;
/// Most arguments of one plugin.
pub const MAX_ARGS: usize = 256;

/// Version of the format that is read here.
const FORMAT: u32 = 1;
/// The key that begins a plugin.
const START: &[u8] = b"memflow_plugin=";
/// Longest name.
const MAX_NAME: usize = 32;
/// Longest symbol and longest target triple.
const MAX_IDENTIFIER: usize = 255;

impl Descriptor {
    /// The descriptors in the bytes of a section, each taken or rejected by itself.
    ///
    /// # Errors
    /// A section that is too large or holds too many plugins, is empty, or does not begin with a plugin. What is wrong with one
    /// plugin is in its place of the list.
    pub fn parse_section(section: &[u8]) -> Result<Vec<Result<Self, BadDescriptor>>, DescriptorError> {
        if section.len() > MAX_SECTION {
            return Err(DescriptorError::SectionTooLarge { found: wide(section.len()), limit: wide(MAX_SECTION) });
        }
        let mut plugins: Vec<Fields> = Vec::new();
        let strings = Strings { rest: section, offset: 0 };
        for string in strings {
            if string.bytes.starts_with(START) {
                if plugins.len() == MAX_PLUGINS {
                    return Err(DescriptorError::TooManyPlugins { limit: MAX_PLUGINS });
                }
                plugins.push(Fields::default());
            }
            let Some(fields) = plugins.last_mut() else {
                return Err(DescriptorError::NoStart { offset: wide(string.offset), found: excerpt(string.bytes) });
            };
            // After its first mistake a plugin is only searched for its name.
            if let Err(error) = fields.take(&string) {
                fields.error.get_or_insert(error);
            }
        }
        if plugins.is_empty() {
            return Err(DescriptorError::Empty);
        }
        Ok(plugins.into_iter().enumerate().map(|(index, fields)| fields.finish(index)).collect())
    }
}

/// A string of the section.
struct SectionString<'a> {
    offset: usize,
    /// Without the NUL.
    bytes: &'a [u8],
    /// Whether there is a NUL.
    ends: bool,
}

/// The strings of a section that are not empty.
struct Strings<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Strings<'a> {
    type Item = SectionString<'a>;

    fn next(&mut self) -> Option<SectionString<'a>> {
        let padding = self.rest.iter().take_while(|byte| **byte == 0).count();
        let offset = self.offset.saturating_add(padding);
        let text = self.rest.get(padding..).filter(|text| !text.is_empty())?;
        let len = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        let (bytes, rest) = text.split_at_checked(len)?;
        // The NUL that ends the string is padding to the next.
        (self.rest, self.offset) = (rest, offset.saturating_add(len));
        Some(SectionString { offset, bytes, ends: !rest.is_empty() })
    }
}

/// What has been read of one plugin.
#[derive(Default)]
struct Fields {
    kind: Option<super::PluginKind>,
    name: Option<String>,
    version: Option<semver::Version>,
    abi: Option<AbiVersion>,
    target: Option<String>,
    entry: Option<String>,
    description: Option<String>,
    accepts: Vec<super::Accepts>,
    args: Vec<String>,
    layout: Option<String>,
    help: Option<String>,
    /// The first mistake.
    error: Option<DescriptorError>,
}

impl Fields {
    fn take(&mut self, string: &SectionString<'_>) -> Result<(), DescriptorError> {
        let offset = wide(string.offset);
        if !string.ends {
            return Err(DescriptorError::Unterminated { offset });
        }
        let text = std::str::from_utf8(string.bytes).map_err(|error| DescriptorError::NotUtf8 {
            offset: wide(string.offset.saturating_add(error.valid_up_to())),
        })?;
        let Some((key, value)) = text.split_once('=') else {
            return Err(DescriptorError::NoValue { offset, found: excerpt(string.bytes) });
        };
        if value.len() > MAX_VALUE {
            return Err(DescriptorError::TooLong {
                key: excerpt(key.as_bytes()),
                found: wide(value.len()),
                limit: wide(MAX_VALUE),
            });
        }
        match key {
            "memflow_plugin" if value != "1" => {
                Err(DescriptorError::Format { found: excerpt(value.as_bytes()), expected: FORMAT })
            }
            "kind" => once(&mut self.kind, "kind", value, "`connector` or `os`", |text| text.parse().ok()),
            "name" => once(&mut self.name, "name", value, NAME, name),
            "version" => once(&mut self.version, "version", value, "a semantic version like 1.2.3", |text| {
                semver::Version::parse(text).ok()
            }),
            "abi" => once(&mut self.abi, "abi", value, "two numbers like 1.0", abi),
            "target" => once(&mut self.target, "target", value, "a target triple", target),
            "entry" => once(&mut self.entry, "entry", value, "a C identifier", identifier),
            "description" => once(&mut self.description, "description", value, "one line of text", line),
            "layout" => once(&mut self.layout, "layout", value, "one line of text", line),
            "help" => once(&mut self.help, "help", value, "text", |text| Some(text.to_owned())),
            "accepts" => self.accept(value),
            "arg" => self.argument(value),
            // Of a later minor version.
            _ => Ok(()),
        }
    }

    fn accept(&mut self, value: &str) -> Result<(), DescriptorError> {
        let accepts = value.parse().map_err(|()| bad_value("accepts", "`content` or `os`", value))?;
        if !self.accepts.contains(&accepts) {
            self.accepts.push(accepts);
        }
        Ok(())
    }

    fn argument(&mut self, value: &str) -> Result<(), DescriptorError> {
        if self.args.len() == MAX_ARGS {
            return Err(DescriptorError::TooManyArgs { limit: MAX_ARGS });
        }
        self.args.push(value.to_owned());
        Ok(())
    }

    fn finish(mut self, index: usize) -> Result<Descriptor, BadDescriptor> {
        let name = self.name.clone();
        self.complete().map_err(|error| BadDescriptor { index, name, error })
    }

    fn complete(&mut self) -> Result<Descriptor, DescriptorError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        Ok(Descriptor {
            kind: required(&mut self.kind, "kind")?,
            name: required(&mut self.name, "name")?,
            version: required(&mut self.version, "version")?,
            abi: required(&mut self.abi, "abi")?,
            target: required(&mut self.target, "target")?,
            entry: required(&mut self.entry, "entry")?,
            description: required(&mut self.description, "description")?,
            accepts: std::mem::take(&mut self.accepts),
            args: std::mem::take(&mut self.args),
            layout: self.layout.take(),
            help: self.help.take().unwrap_or_default(),
        })
    }
}

fn required<T>(field: &mut Option<T>, key: &'static str) -> Result<T, DescriptorError> {
    field.take().ok_or(DescriptorError::Missing { key })
}

/// Puts a value in its place, if there is none yet and it is what `expected` says.
fn once<T>(
    field: &mut Option<T>,
    key: &'static str,
    value: &str,
    expected: &'static str,
    read: fn(&str) -> Option<T>,
) -> Result<(), DescriptorError> {
    if field.is_some() {
        return Err(DescriptorError::Duplicate { key });
    }
    *field = Some(read(value).ok_or_else(|| bad_value(key, expected, value))?);
    Ok(())
}

fn bad_value(key: &'static str, expected: &'static str, found: &str) -> DescriptorError {
    DescriptorError::Value { key, expected, found: excerpt(found.as_bytes()) }
}

const NAME: &str = "at most 32 of a-z, 0-9, `_` and `-`, not beginning with `_` or `-`";

fn name(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = text.len() <= MAX_NAME
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|byte| plain(byte) || matches!(byte, b'_' | b'-'));
    good.then(|| text.to_owned())
}

/// Digits, a dot, digits; each a number below 2^16.
fn abi(text: &str) -> Option<AbiVersion> {
    let (major, minor) = text.split_once('.')?;
    Some(AbiVersion::new(number(major)?, number(minor)?))
}

fn number(text: &str) -> Option<u16> {
    // `parse` would take a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn target(text: &str) -> Option<String> {
    let good = (1..=MAX_IDENTIFIER).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    good.then(|| text.to_owned())
}

fn identifier(text: &str) -> Option<String> {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let good = text.len() <= MAX_IDENTIFIER
        && text.bytes().next().is_some_and(letter)
        && text.bytes().all(|byte| letter(byte) || byte.is_ascii_digit());
    good.then(|| text.to_owned())
}

fn line(text: &str) -> Option<String> {
    (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
}

/// A length as the type of offsets; no length is too large for it on any machine that Rust runs on.
fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
