//! Reading target strings and lists of arguments.
//!
//! Owns: one pass over the text, character by character, as the [grammar](super) says. Must not know: which plugins there are and
//! what they take.
//! Keeps: every character is part of the result or of an error with its position; no text is longer than [`MAX_TEXT`], no list than
//! [`MAX_ARGS`].

use std::borrow::Cow;

use super::{
    ArgValue, Args,
    quote::{self, Quoted, is_special, shorten},
};
use crate::error::{Error, Result};

/// Bytes of the longest text.
pub const MAX_TEXT: usize = 64 << 10;
/// Most arguments of one plugin.
pub const MAX_ARGS: usize = 256;

/// A text and how much of it was read.
#[derive(Debug)]
pub(super) struct Parser<'t> {
    text: &'t str,
    // INVARIANT: on a character's border.
    at: usize,
}

/// What a text stands for, which decides where it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Target,
    Key,
    Value,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Key => "key",
            Self::Value => "value",
        }
    }

    fn ends_at(self, character: char) -> bool {
        match self {
            Self::Target => character == ':',
            Self::Key => matches!(character, '=' | ','),
            Self::Value => character == ',',
        }
    }

    fn separators(self) -> &'static str {
        match self {
            Self::Target => "`:`",
            Self::Key => "`=`, `,`",
            Self::Value => "`,`",
        }
    }
}

impl<'t> Parser<'t> {
    /// The start of a text.
    pub(super) fn new(text: &'t str) -> Result<Self> {
        let parser = Self { text, at: 0 };
        match text.len() {
            0..=MAX_TEXT => Ok(parser),
            len => Err(Error::Argument {
                what: format!("`{}`", shorten(text)).into(),
                expected: format!("at most {MAX_TEXT} bytes").into(),
                found: format!("{len} bytes"),
            }),
        }
    }

    /// True when all was read.
    pub(super) fn at_end(&self) -> bool {
        self.rest().is_empty()
    }

    /// Takes one character if it comes next.
    pub(super) fn take(&mut self, character: char) -> bool {
        let found = self.rest().starts_with(character);
        if found {
            self.bump(character.len_utf8());
        }
        found
    }

    /// The name of a plugin and its version.
    pub(super) fn head(&mut self) -> Result<(String, Option<String>)> {
        let (start, name) = self.run(|character| matches!(character, ':' | '@'));
        if !quote::is_plugin_name(name) {
            let expected = "the name of a plugin (1 to 32 lower-case letters, digits, - and _, no - or _ first)";
            return Err(self.wrong(start, expected, if name.is_empty() { self.rest_from(start) } else { name }));
        }
        if !self.take('@') {
            return Ok((name.to_owned(), None));
        }
        let (start, version) = self.run(|character| character == ':');
        if !quote::is_version(version) {
            let expected = "a version after `@` (letters, digits, ., -, _ and +, such as 0.1.0)";
            return Err(self.wrong(start, expected, if version.is_empty() { self.rest_from(start) } else { version }));
        }
        Ok((name.to_owned(), Some(version.to_owned())))
    }

    /// A target; nothing when the next character is the `:` before the arguments.
    pub(super) fn target(&mut self, name: &str) -> Result<Option<String>> {
        if self.rest().starts_with(':') {
            return Ok(None);
        }
        if self.at_end() {
            return Err(self.wrong(self.at, "a target after `:` (`\"\"` is an empty one), or no `:`", ""));
        }
        let hint = format!("; arguments follow after another `:` (`{name}:TARGET:key=value`, `{name}::key=value`)");
        self.text(Role::Target, &hint).map(Some)
    }

    /// One or more arguments, up to the end. `colon_hint` is said where a `:` of something else may have ended up here.
    pub(super) fn args(&mut self, colon_hint: &str) -> Result<Args> {
        let mut args = Args::new();
        loop {
            let start = self.at;
            let key = self.key(colon_hint)?;
            if args.get(&key).is_some() {
                return Err(self.wrong(start, "each argument once", &key));
            }
            if args.len() >= MAX_ARGS {
                return Err(self.wrong(start, format!("at most {MAX_ARGS} arguments"), self.rest_from(start)));
            }
            let value = if self.take('=') { ArgValue::Text(self.text(Role::Value, "")?) } else { ArgValue::Bare };
            args.set(key, value);
            if !self.take(',') {
                return Ok(args);
            }
        }
    }

    fn key(&mut self, colon_hint: &str) -> Result<String> {
        if self.rest().starts_with(['"', '\'']) {
            return self.quoted(Role::Key);
        }
        let (start, key) = self.run(is_special);
        let ends = self.peek().is_none_or(|next| Role::Key.ends_at(next));
        if ends && quote::is_key(key) {
            return Ok(key.to_owned());
        }
        let form = "an argument, `key` or `key=value` (keys are lower-case letters, digits, - and _, a letter first)";
        if key.is_empty() || !quote::is_key(key) {
            return Err(self.wrong(start, format!("{form}{colon_hint}"), self.rest_from(start)));
        }
        Err(self.wrong(self.at, format!("`=`, `,` or the end after a key{colon_hint}"), self.rest()))
    }

    /// A target or value, in quotes or without.
    fn text(&mut self, role: Role, hint: &str) -> Result<String> {
        if self.rest().starts_with(['"', '\'']) {
            return self.quoted(role);
        }
        let start = self.at;
        if let Some((drive, _)) = quote::split_drive(self.rest()) {
            self.bump(drive.len());
        }
        self.run(is_special);
        let plain = self.text.get(start..self.at).unwrap_or_default();
        let role_name = role.name();
        match self.peek() {
            Some(special) if !role.ends_at(special) => {
                let all = self.rest_from(start).split(|character| role.ends_at(character)).next().unwrap_or_default();
                let quoted = Quoted(all).to_string();
                let expected = format!(
                    "`{}` in a {role_name} only in quotes (`{}`){hint}",
                    shorten(special.encode_utf8(&mut [0; 4])),
                    shorten(&quoted)
                );
                Err(self.wrong(self.at, expected, self.rest()))
            }
            None | Some(_) if plain.is_empty() => {
                Err(self.wrong(start, format!("a {role_name}, or `\"\"` for an empty one"), self.rest()))
            }
            Some(separator) if plain.ends_with('\\') => {
                let quoted = shorten(&Quoted(plain).to_string());
                let expected = format!(
                    "no backslash before `{separator}`, as it could be meant to be part of the {role_name}; \
                     quotes make it clear (`{quoted}`)"
                );
                Err(self.wrong(self.at, expected, self.rest()))
            }
            _ if plain.trim() != plain => {
                let quoted = shorten(&Quoted(plain).to_string());
                let expected = format!("white space at the ends of a {role_name} only in quotes (`{quoted}`)");
                Err(self.wrong(start, expected, plain))
            }
            _ => Ok(plain.to_owned()),
        }
    }

    /// A text in quotes: from one quote to the next of its kind.
    fn quoted(&mut self, role: Role) -> Result<String> {
        let start = self.at;
        let mut text = String::new();
        if self.take('\'') {
            let (_, all) = self.run(|character| character == '\'');
            text.push_str(all);
            if !self.take('\'') {
                return Err(self.wrong(start, "a closing `'`", self.rest_from(start)));
            }
        } else {
            self.take('"');
            loop {
                let (_, part) = self.run(|character| matches!(character, '"' | '\\'));
                text.push_str(part);
                if self.take('"') {
                    break;
                }
                if self.at_end() {
                    return Err(self.wrong(start, "a closing `\"`", self.rest_from(start)));
                }
                text.push(self.escape()?);
            }
        }
        match self.peek() {
            Some(next) if !role.ends_at(next) => {
                Err(self.wrong(self.at, format!("{} or the end after a closing quote", role.separators()), self.rest()))
            }
            _ => Ok(text),
        }
    }

    /// `\"`, `\\` or `\u{HEX}`.
    fn escape(&mut self) -> Result<char> {
        let start = self.at;
        self.take('\\');
        if self.take('"') {
            return Ok('"');
        }
        if self.take('\\') {
            return Ok('\\');
        }
        if self.take('u') && self.take('{') {
            let (_, digits) = self.run(|character| character == '}');
            let is_hex = digits.len() <= 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if let Some(character) = u32::from_str_radix(digits, 16).ok().filter(|_| is_hex).and_then(char::from_u32)
                && self.take('}')
            {
                return Ok(character);
            }
        }
        let expected = "`\\\\`, `\\\"` or `\\u{HEX}` (in single quotes and without quotes a backslash is itself)";
        Err(self.wrong(start, expected, self.rest_from(start)))
    }

    /// What is not read yet.
    pub(super) fn rest(&self) -> &'t str {
        self.rest_from(self.at)
    }

    fn rest_from(&self, start: usize) -> &'t str {
        self.text.get(start..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes).min(self.text.len());
    }

    /// Takes everything before the first character that `ends` it, or the end; where it starts, and the text.
    fn run(&mut self, ends: impl Fn(char) -> bool) -> (usize, &'t str) {
        let (start, rest) = (self.at, self.rest());
        let len = rest.find(ends).unwrap_or(rest.len());
        self.bump(len);
        (start, rest.get(..len).unwrap_or_default())
    }

    /// The error for what was found at `at`.
    pub(super) fn wrong(&self, at: usize, expected: impl Into<Cow<'static, str>>, found: &str) -> Error {
        let character = self.text.char_indices().take_while(|(start, _)| *start < at).count().saturating_add(1);
        let what = format!("`{}`, character {character}", shorten(self.text)).into();
        let found = if found.is_empty() { "end of text".to_owned() } else { shorten(found) };
        Error::Argument { what, expected: expected.into(), found }
    }
}
