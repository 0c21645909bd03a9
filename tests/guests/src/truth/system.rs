//! The kernel's own tables: symbols, modules, log, physical ranges.

use serde::{Deserialize, Serialize};

use crate::error::{Result, unexpected};

/// One line of /proc/kallsyms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// Address; a per-CPU symbol's is an offset.
    pub address: u64,
    /// Kind, the letter of nm(1).
    pub kind: char,
    /// Name.
    pub name: String,
    /// The module it belongs to; none for the kernel itself.
    pub module: Option<String>,
}

/// One line of /proc/modules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Name.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Number of users; none if the kernel cannot unload modules.
    pub references: Option<u32>,
    /// Modules that use it.
    pub used_by: Vec<String>,
    /// `Live`, `Loading` or `Unloading`.
    pub state: String,
    /// Where its code starts.
    pub base: u64,
}

/// One record of the kernel's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Level, 0 (emergency) to 7 (debug).
    pub level: u8,
    /// Facility, 0 for the kernel.
    pub facility: u32,
    /// Sequence number.
    pub sequence: u64,
    /// Microseconds after boot.
    pub micros: u64,
    /// Text; unprintable bytes are escaped as `\xNN`.
    pub text: String,
}

/// One line of /proc/iomem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoRange {
    /// First address.
    pub start: u64,
    /// Last address.
    pub end: u64,
    /// How many ranges it lies in.
    pub depth: u32,
    /// Use.
    pub name: String,
}

fn lines<T>(text: &str, what: &str, expected: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>> {
    text.lines().map(|line| parse(line).ok_or_else(|| unexpected(what, expected, line))).collect()
}

pub(super) fn parse_kallsyms(text: &str) -> Result<Vec<Symbol>> {
    lines(text, "kallsyms", "address kind name", |line| {
        let (address, rest) = line.split_once(' ')?;
        let (kind, rest) = rest.split_once(' ')?;
        let (name, module) = match rest.split_once('\t') {
            Some((name, module)) => (name, Some(module.trim().strip_prefix('[')?.strip_suffix(']')?.to_owned())),
            None => (rest, None),
        };
        Some(Symbol {
            address: u64::from_str_radix(address, 16).ok()?,
            kind: kind.chars().next()?,
            name: name.into(),
            module,
        })
    })
}

pub(super) fn parse_modules(text: &str) -> Result<Vec<Module>> {
    lines(text, "modules", "name size references users state address", |line| {
        let mut words = line.split(' ');
        let name = words.next()?.to_owned();
        let size = words.next()?.parse().ok()?;
        let references = match words.next()? {
            "-" => None,
            number => Some(number.parse().ok()?),
        };
        let used_by =
            words.next()?.split(',').filter(|user| !user.is_empty() && *user != "-").map(str::to_owned).collect();
        let state = words.next()?.to_owned();
        let base = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
        Some(Module { name, size, references, used_by, state, base })
    })
}

pub(super) fn parse_kmsg(text: &str) -> Result<Vec<LogRecord>> {
    // A line that starts with a space holds properties of the record before it.
    let records: String = text.lines().filter(|line| !line.starts_with(' ')).map(|line| format!("{line}\n")).collect();
    lines(&records, "kmsg", "priority,sequence,microseconds,flags;text", |line| {
        let (prefix, text) = line.split_once(';')?;
        let mut numbers = prefix.split(',');
        let priority: u32 = numbers.next()?.parse().ok()?;
        let sequence = numbers.next()?.parse().ok()?;
        let micros = numbers.next()?.parse().ok()?;
        let level = u8::try_from(priority & 7).ok()?;
        Some(LogRecord { level, facility: priority >> 3, sequence, micros, text: text.into() })
    })
}

pub(super) fn parse_iomem(text: &str) -> Result<Vec<IoRange>> {
    lines(text, "iomem", "start-end : name", |line| {
        let indent = line.len() - line.trim_start().len();
        let (range, name) = line.trim_start().split_once(" : ")?;
        let (start, end) = range.split_once('-')?;
        Some(IoRange {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            depth: u32::try_from(indent / 2).ok()?,
            name: name.into(),
        })
    })
}
