//! The table of known builds: `data/kernel-offsets.csv`, a row for each identification of a kernel's symbols.
//!
//! Owns: how the table is read. Must not know: the kernel at hand.
//! Keeps: the text is searched when it is asked for; nothing of it is unpacked before. A cell without a number is unknown.
//! Source: computed from JPCERTCC/Windows-Symbol-Tables (BSD-3-Clause).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::num::IntErrorKind;

use super::Layout;

static TABLE: &str = include_str!("../../data/kernel-offsets.csv");
/// Columns before the numbers: version, identification, age.
const KEYS: usize = 3;

/// A build of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    line: &'static str,
}

/// The row of a kernel's symbols.
pub(crate) fn exact(guid: &str, age: u32) -> Option<Row> {
    rows().find(|row| row.cell(1) == Some(guid) && row.cell(2).and_then(|cell| cell.parse().ok()) == Some(age))
}

/// Every build.
pub(super) fn rows() -> impl Iterator<Item = Row> {
    TABLE.lines().skip(1).filter(|line| !line.is_empty()).map(|line| Row { line })
}

/// The names of all numbers that rows have.
pub(crate) fn columns() -> impl Iterator<Item = &'static str> {
    TABLE.lines().next().unwrap_or_default().split(',').skip(KEYS)
}

impl Row {
    fn cell(self, number: usize) -> Option<&'static str> {
        self.line.split(',').nth(number)
    }

    /// The version of the kernel's file, such as 10.0.17763.379.
    pub(crate) fn version(self) -> &'static str {
        self.cell(0).unwrap_or_default()
    }

    /// The build number.
    pub(crate) fn build(self) -> Option<u32> {
        self.version().split('.').nth(2)?.parse().ok()
    }

    /// The numbers of the row, by the names of the columns.
    pub(crate) fn numbers(self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = TABLE.lines().next().unwrap_or_default().split(',');
        names.zip(self.line.split(',')).skip(KEYS).filter_map(|(name, cell)| Some((name, number(name, cell)?)))
    }

    /// Adds all numbers to a layout.
    pub(crate) fn add_to(self, layout: &mut Layout) {
        for (name, value) in self.numbers() {
            layout.add(name, value, format!("table of builds, {}", self.version()));
        }
    }
}

/// A cell: bits are decimal, all else is hexadecimal.
fn number(name: &str, cell: &str) -> Option<u64> {
    let radix = if name.contains('@') { 10 } else { 16 };
    match u64::from_str_radix(cell, radix) {
        Ok(value) => Some(value),
        Err(error) => {
            debug_assert!(matches!(error.kind(), IntErrorKind::Empty), "{name}: {cell}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    #[test]
    fn every_row_has_a_version_an_identification_and_numbers() {
        let mut count = 0;
        for row in rows() {
            assert!(row.build().is_some(), "{}", row.line);
            assert_eq!(row.cell(1).map(str::len), Some(32));
            assert!(row.numbers().count() > 60);
            assert_eq!(exact(row.cell(1).unwrap(), row.cell(2).unwrap().parse().unwrap()), Some(row));
            count += 1;
        }
        assert!(count > 100);
    }

    #[test]
    fn numbers_are_those_of_the_build() {
        let row = exact("8B11040A5928757B11390AC78F6B6925", 1).unwrap();
        assert_eq!(row.version(), "10.0.17763.379");
        let mut layout = Layout::default();
        row.add_to(&mut layout);
        assert_eq!(layout.find("_EPROCESS.ImageFileName"), Some(0x450));
        assert_eq!(layout.find("_MMVAD_FLAGS.PrivateMemory@bit"), Some(14));
        assert_eq!(layout.find("_EPROCESS.WoW64Process"), Some(0x428));
        assert_eq!(exact("8B11040A5928757B11390AC78F6B6925", 2), None);
        assert_eq!(exact("", 1), None);
    }
}
