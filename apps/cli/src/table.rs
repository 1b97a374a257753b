//! Aligned columns, of which some may wrap to the width of the terminal.

use crate::page::{Line, Role};

/// How a column sets its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// To the left, as wide as its widest cell.
    Left,
    /// To the right, as wide as its widest cell.
    Right,
    /// To the left, wrapped to what the others leave.
    Fill,
    /// To the right, wrapped to so many columns.
    Margin(usize),
}

/// Rows of cells.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    indent: usize,
    rows: Vec<Vec<Line>>,
}

/// Columns between two cells.
const GAP: usize = 2;

/// The least a wrapping column is given, however narrow the terminal is.
const LEAST_FILL: usize = 24;

impl Table {
    /// A table without rows, set in by `indent` columns.
    pub(crate) fn new(indent: usize, columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), indent, rows: vec![] }
    }

    /// Adds a row of quiet headings.
    pub(crate) fn headings(&mut self, names: &[&str]) {
        self.rows.push(names.iter().map(|n| Line::in_role(Role::Quiet, n)).collect());
    }

    /// Adds a row; cells beyond the columns are dropped, missing ones are empty.
    pub(crate) fn row(&mut self, mut cells: Vec<Line>) {
        cells.resize(self.columns.len(), Line::new());
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines of it for a terminal of `width` columns.
    pub(crate) fn lines(&self, width: usize) -> Vec<Line> {
        let widths = self.widths(width);
        self.rows.iter().flat_map(|row| self.set(row, &widths)).collect()
    }

    fn widths(&self, width: usize) -> Vec<usize> {
        let natural: Vec<usize> = (0..self.columns.len())
            .map(|c| {
                let widest = self.rows.iter().map(|r| r[c].width()).max().unwrap_or(0);
                if let Column::Margin(most) = self.columns[c] { widest.min(most) } else { widest }
            })
            .collect();
        let total = |w: &[usize]| -> usize {
            self.indent + w.iter().filter(|w| **w > 0).map(|w| w + GAP).sum::<usize>().saturating_sub(GAP)
        };
        let over = total(&natural).saturating_sub(width);
        let mut widths = natural;
        // Of several wrapping columns the widest gives way first.
        for _ in 0..over {
            let fills = widths.iter_mut().zip(&self.columns).filter(|(_, column)| **column == Column::Fill);
            match fills.map(|(w, _)| w).filter(|w| **w > LEAST_FILL).max() {
                Some(widest) => *widest -= 1,
                None => break,
            }
        }
        widths
    }

    fn set(&self, row: &[Line], widths: &[usize]) -> Vec<Line> {
        let cells: Vec<Vec<Line>> = row
            .iter()
            .zip(widths)
            .zip(&self.columns)
            .map(|((cell, width), column)| match column {
                Column::Fill | Column::Margin(_) => cell.wrap(*width),
                Column::Left | Column::Right => vec![cell.clone()],
            })
            .collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(0);
        (0..height).map(|n| self.align(cells.iter().map(|c| c.get(n)), widths)).collect()
    }

    fn align<'a>(&self, parts: impl Iterator<Item = Option<&'a Line>>, widths: &[usize]) -> Line {
        let mut line = Line::new();
        let mut left = self.indent;
        for ((part, width), column) in parts.zip(widths).zip(&self.columns) {
            if let Some(part) = part.filter(|p| !p.is_empty()) {
                let slack = match column {
                    Column::Right | Column::Margin(_) => width.saturating_sub(part.width()),
                    Column::Left | Column::Fill => 0,
                };
                let pad = (left + slack).saturating_sub(line.width());
                line = line.and(Role::Plain, " ".repeat(pad)).join(part.clone());
            }
            if *width > 0 {
                left += width + GAP;
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Page;

    #[test]
    fn aligns_and_wraps() {
        use Column::{Fill, Left, Margin, Right};
        let mut table = Table::new(2, &[Left, Right, Fill, Margin(10)]);
        table.headings(&["name", "n", "note", "id"]);
        table.row(vec![
            Line::of("a"),
            Line::of("12"),
            Line::of("a text that does not fit in the width it gets"),
            Line::of("T1 T22.333 T4"),
        ]);
        table.row(vec![Line::of("bb"), Line::new(), Line::of("short")]);
        let mut page = Page::new();
        page.extend(table.lines(48));
        let expected = "  name   n  note                              id\n  \
                          a     12  a text that does not fit  T1 T22.333\n            \
                                    in the width it gets              T4\n  \
                          bb        short\n";
        assert_eq!(page.print(false), expected);
    }
}
