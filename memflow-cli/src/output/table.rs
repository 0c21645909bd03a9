//! Aligned columns.
//!
//! Owns: the look of every table: no borders, two spaces between columns, no trailing blanks.
//! Must not know: what is in the cells; who fills them escapes them.

use comfy_table::{CellAlignment, ContentArrangement, presets::NOTHING};

/// On which side a column is aligned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table with a header.
#[derive(Debug)]
pub(crate) struct Table {
    inner: comfy_table::Table,
    columns: Vec<Align>,
}

impl Table {
    /// An empty table with these columns.
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        let mut table = Self::without_header(columns.iter().map(|(_, align)| *align));
        table.inner.set_header(columns.iter().map(|(name, _)| *name));
        table
    }

    /// An empty table whose columns speak for themselves.
    pub(crate) fn without_header(columns: impl IntoIterator<Item = Align>) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        Self { inner, columns: columns.into_iter().collect() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.inner.add_row(cells);
        // Columns come into being with the first row.
        let last = self.columns.len().saturating_sub(1);
        for (index, (align, column)) in self.columns.iter().zip(self.inner.column_iter_mut()).enumerate() {
            column.set_padding((0, if index == last { 0 } else { 2 }));
            column.set_cell_alignment(match align {
                Align::Left => CellAlignment::Left,
                Align::Right => CellAlignment::Right,
            });
        }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.lines().try_for_each(|line| writeln!(f, "{}", line.trim_end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_right_words_left_no_blanks_at_the_end() {
        let mut table = Table::new(&[("PID", Align::Right), ("NAME", Align::Left), ("ST", Align::Left)]);
        table.row(["1", "systemd", "S"].map(String::from));
        table.row(["1024", "sh", ""].map(String::from));
        assert_eq!(table.to_string(), " PID  NAME     ST\n   1  systemd  S\n1024  sh\n");
    }

    #[test]
    fn wide_characters_keep_the_columns() {
        let mut table = Table::new(&[("NAME", Align::Left), ("N", Align::Right)]);
        table.row(["日本", "1"].map(String::from));
        table.row(["abcd", "2"].map(String::from));
        assert_eq!(table.to_string(), "NAME  N\n日本  1\nabcd  2\n");
    }
}
