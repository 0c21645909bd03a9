//! Offsets of one build: a name and a number, from the table in `os/win32/data`, and for 32-bit kernels from here.
//!
//! Owns: parsing of the table, families of builds with equal layouts. Must not know: what any field means.
//! Keeps: a field that a build does not have is absent, never zero.

use std::collections::{BTreeMap, HashSet};

use crate::Error;

/// The table in the repository: 64-bit kernels.
const TABLE: &str = include_str!("../../../os/win32/data/kernel-offsets.csv");

/// Version of a kernel: 10.0.17763.379.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub struct Version {
    /// 6 or 10.
    pub major: u16,
    /// 1 of Windows 7, 3 of Windows 8.1, else 0.
    pub minor: u16,
    /// Build number: 17763.
    pub build: u16,
    /// Number of the update.
    pub revision: u16,
}

/// Offsets of one build.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offsets {
    /// Version of the kernel.
    pub version: Version,
    /// GUID of its symbol file: 32 upper-case hex digits in the order in which they are written.
    pub guid: String,
    /// Age of its symbol file.
    pub age: u32,
    /// Pointers have 8 bytes, not 4.
    pub wide: bool,
    values: BTreeMap<String, u64>,
}

impl Offsets {
    /// What the table says of a name: a field, `sizeof(...)`, `rva:...`, `...@bit` or `...@bits`.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.values.get(name).copied()
    }

    /// The same offsets with one of them said anew, or taken away.
    pub fn with(mut self, name: &str, value: Option<u64>) -> Self {
        match value {
            Some(value) => self.values.insert(name.to_owned(), value),
            None => self.values.remove(name),
        };
        self
    }

    /// All names and values, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.values.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Offsets of a 32-bit kernel from names and values.
    pub(crate) fn narrow(version: Version, guid: &str, values: &[(&str, u64)]) -> Self {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Self { version, guid: guid.to_owned(), age: 1, wide: false, values }
    }

    /// A name that has to be there.
    pub(crate) fn need(&self, name: &'static str) -> Result<u64, Error> {
        self.get(name).ok_or(Error::NoOffset { name, build: self.version.build })
    }

    /// The first of several names that is there: fields were renamed between builds.
    pub(crate) fn first(&self, names: &[&str]) -> Option<u64> {
        names.iter().find_map(|name| self.get(name))
    }

    /// Windows 10 and later.
    pub(crate) fn ten(&self) -> bool {
        self.version.major >= 10
    }

    /// Windows 7: VADs in a table of their own kind, symbol files before 8.
    pub(crate) fn seven(&self) -> bool {
        (self.version.major, self.version.minor) <= (6, 1)
    }
}

/// A table of builds.
#[derive(Clone, Debug)]
pub struct OffsetTable {
    rows: Vec<Offsets>,
}

impl OffsetTable {
    /// The table of the repository, 64-bit kernels.
    pub fn embedded() -> Result<Self, Error> {
        Self::parse(TABLE)
    }

    /// A table in comma-separated text: the first row names the columns.
    ///
    /// # Errors
    /// A row with more or fewer cells than names, or a cell that is no number.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
        let rows = lines.enumerate().map(|(at, line)| row(&names, line).ok_or(Error::Row { line: at + 2 }));
        Ok(Self { rows: rows.collect::<Result<_, _>>()? })
    }

    /// All builds, in the order of the table.
    pub fn rows(&self) -> &[Offsets] {
        &self.rows
    }

    /// The first build of each layout: all rows that differ in more than addresses of symbols.
    pub fn families(&self) -> Vec<&Offsets> {
        let mut seen = HashSet::new();
        self.rows.iter().filter(|row| seen.insert(fields(row))).collect()
    }

    /// The first row whose version begins with `version`: `10.0.17763` or `6.1.7601.24540`.
    pub fn build(&self, version: &str) -> Option<&Offsets> {
        self.rows.iter().find(|row| row.version.to_string().starts_with(version))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}.{}", self.major, self.minor, self.build, self.revision)
    }
}

fn fields(row: &Offsets) -> Vec<(&str, u64)> {
    row.iter().filter(|(name, _)| !name.starts_with("rva:")).collect()
}

fn row(names: &[&str], line: &str) -> Option<Offsets> {
    let cells: Vec<&str> = line.split(',').collect();
    if cells.len() != names.len() || names.first() != Some(&"version") {
        return None;
    }
    let parts: Vec<u16> = cells[0].split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let &[major, minor, build, revision] = parts.as_slice() else { return None };
    let mut values = BTreeMap::new();
    for (name, cell) in names.iter().zip(&cells).skip(3).filter(|(_, cell)| !cell.is_empty()) {
        let radix = if name.contains('@') { 10 } else { 16 };
        values.insert((*name).to_owned(), u64::from_str_radix(cell, radix).ok()?);
    }
    let version = Version { major, minor, build, revision };
    Some(Offsets { version, guid: cells[1].to_owned(), age: cells[2].parse().ok()?, wide: true, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_the_repository_has_all_families() {
        let table = OffsetTable::embedded().unwrap();
        let builds: Vec<u16> = table.families().iter().map(|row| row.version.build).collect();
        assert_eq!(builds, [7601, 9600, 9600, 14393, 14393, 17763, 17763, 18326, 19041, 22000]);
        let row = table.build("10.0.17763.379").unwrap();
        assert_eq!(row.get("_EPROCESS.ActiveProcessLinks"), Some(0x2e8));
        assert_eq!(row.get("_MMVAD_FLAGS.PrivateMemory@bit"), Some(14), "bits are decimal");
        assert_eq!(row.get("_EPROCESS.Wow64Process"), None, "an empty cell is no zero");
    }

    #[test]
    fn row_with_a_cell_too_few_is_refused() {
        let error = OffsetTable::parse("version,guid,age,a\n1.2.3.4,X,1\n").unwrap_err();
        assert_eq!(error.to_string(), "line 2 of the table is no row with a version, a GUID, an age and numbers");
    }
}
