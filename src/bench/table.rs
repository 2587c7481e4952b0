//! Figures in columns, for a terminal.

use std::iter;

/// A table whose first columns are text, to the left, and whose others are figures, to the right. Columns
/// may have a heading in common.
pub(super) struct Table {
    n_text: usize,
    /// Heading of a group of columns, and the heading of each.
    columns: Vec<(String, String)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(text: &[&str]) -> Self {
        let columns = text.iter().map(|name| (String::new(), (*name).to_owned())).collect();
        Self { n_text: text.len(), columns, rows: Vec::new() }
    }

    pub(super) fn figures(mut self, group: &str, names: &[&str]) -> Self {
        self.columns.extend(names.iter().map(|name| (group.to_owned(), (*name).to_owned())));
        self
    }

    /// As many cells as there are columns.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Lines, each ended; columns that have nothing to show are left out.
    pub(super) fn text(&self) -> String {
        let shown: Vec<usize> = (0..self.columns.len())
            .filter(|&column| column < self.n_text || self.rows.iter().any(|row| row[column] != NOTHING))
            .collect();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| chars(&row[column]));
            cells.chain([chars(&self.columns[column].1)]).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = shown.iter().map(|&column| width(column)).collect();
        self.widen_for_groups(&shown, &mut widths);
        let mut text = String::new();
        if self.columns.iter().any(|(group, _)| !group.is_empty()) {
            text += &line(self.groups(&shown, &widths));
        }
        let names = shown.iter().map(|&column| self.columns[column].1.as_str());
        text += &line(self.cells(&shown, &widths, names));
        for row in &self.rows {
            text += &line(self.cells(&shown, &widths, shown.iter().map(|&column| row[column].as_str())));
        }
        text
    }

    fn cells<'a>(&self, shown: &[usize], widths: &[usize], cells: impl Iterator<Item = &'a str>) -> String {
        let mut line = String::new();
        for ((idx, (&column, &width)), cell) in shown.iter().zip(widths).enumerate().zip(cells) {
            let gap = " ".repeat(self.gap(shown, idx));
            let fill = " ".repeat(width.saturating_sub(chars(cell)));
            let (before, after) =
                if column < self.n_text { ("", fill.as_str()) } else { (fill.as_str(), "") };
            line += &[&gap, before, cell, after].concat();
        }
        line
    }

    /// Groups stand further apart than the columns in them.
    fn gap(&self, shown: &[usize], idx: usize) -> usize {
        let Some(before) = idx.checked_sub(1) else { return 0 };
        let (group, last) = (&self.columns[shown[idx]].0, &self.columns[shown[before]].0);
        if group == last { 2 } else { 4 }
    }

    /// Columns that show under one heading: `(first, past the last)`.
    fn spans(&self, shown: &[usize]) -> Vec<(usize, usize)> {
        let mut starts: Vec<usize> = (0..shown.len())
            .filter(|&idx| idx == 0 || self.columns[shown[idx]].0 != self.columns[shown[idx - 1]].0)
            .collect();
        starts.push(shown.len());
        starts.windows(2).map(|pair| (pair[0], pair[1])).collect()
    }

    fn span_width(&self, shown: &[usize], widths: &[usize], (from, to): (usize, usize)) -> usize {
        (from..to).map(|idx| widths[idx] + if idx > from { self.gap(shown, idx) } else { 0 }).sum()
    }

    fn widen_for_groups(&self, shown: &[usize], widths: &mut [usize]) {
        for span in self.spans(shown) {
            let missing =
                chars(&self.columns[shown[span.0]].0).saturating_sub(self.span_width(shown, widths, span));
            widths[span.0] += missing;
        }
    }

    fn groups(&self, shown: &[usize], widths: &[usize]) -> String {
        let mut line = String::new();
        for span in self.spans(shown) {
            let group = &self.columns[shown[span.0]].0;
            let fill = self.span_width(shown, widths, span).saturating_sub(chars(group));
            line += &" ".repeat(self.gap(shown, span.0) + fill);
            line += group;
        }
        line
    }
}

/// A figure that there is none of.
pub(super) const NOTHING: &str = "-";

/// With three digits or so, and no more; [`NOTHING`] of none.
pub(super) fn figure(value: impl Into<Option<f64>>) -> String {
    match value.into() {
        None => NOTHING.to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(value) if value.abs() >= 99.95 => format!("{value:.0}"),
        Some(value) if value.abs() >= 9.995 => format!("{value:.1}"),
        Some(value) if value.abs() >= 0.995 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

fn line(text: String) -> String {
    text.trim_end().chars().chain(iter::once('\n')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["target", "load"])
            .figures("", &["tok/s"])
            .figures("first token, ms", &["p50", "max"]);
        table.row(["mondai", "1 at once", "161", "8.10", "-"].map(str::to_owned).to_vec());
        table.row(["llama", "16 at once", "1203", "77", "-"].map(str::to_owned).to_vec());
        let expected = "\
\u{20}                            first token, ms
target  load        tok/s                p50
mondai  1 at once     161               8.10
llama   16 at once   1203                 77
";
        assert_eq!(table.text(), expected);
    }

    #[test]
    fn figures_have_three_digits() {
        let figures = [0.0, 0.01234, 0.9, 1.234, 12.345, 123.4, 12345.6].map(figure);
        assert_eq!(figures, ["0", "0.012", "0.900", "1.23", "12.3", "123", "12346"]);
        assert_eq!(figure(None), "-");
    }
}
