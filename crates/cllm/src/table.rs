//! Plain text tables: the first column to the left, figures to the right.

use std::fmt;

/// Rows of equally many cells under a heading.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    left: usize,
}

impl Table {
    /// An empty table. The first `left` columns hold words, the others figures.
    pub(crate) fn new<T: Into<String>>(left: usize, heading: impl IntoIterator<Item = T>) -> Self {
        Self { rows: vec![heading.into_iter().map(Into::into).collect()], left }
    }

    /// Adds a row; missing cells are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<_> = cells.into_iter().collect();
        cells.resize(self.rows[0].len(), String::new());
        self.rows.push(cells);
    }
}

/// How a table is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TableFormat {
    /// Columns of text.
    #[default]
    Table,
    /// Markdown.
    Markdown,
    /// Comma-separated values (RFC 4180).
    Csv,
}

impl Table {
    /// The table in a format.
    pub(crate) fn written(&self, format: TableFormat) -> String {
        match format {
            TableFormat::Table => self.to_string(),
            TableFormat::Markdown => {
                let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
                let rule =
                    (0..self.rows[0].len()).map(|c| if c < self.left { "---" } else { "--:" });
                let rule: Vec<String> = rule.map(String::from).collect();
                let body: String = self.rows[1..].iter().map(|row| line(row)).collect();
                line(&self.rows[0]) + &line(&rule) + &body
            }
            TableFormat::Csv => {
                let quoted = |cell: &String| match cell.contains([',', '"', '\n']) {
                    true => format!("\"{}\"", cell.replace('"', "\"\"")),
                    false => cell.clone(),
                };
                let line =
                    |row: &Vec<String>| row.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n";
                self.rows.iter().map(line).collect()
            }
        }
    }
}

impl fmt::Display for Table {
    /// Every line ends with a newline and has no blanks before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let width = |c: usize| self.rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (c, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let gap = if c == 0 { "" } else { "  " };
                line += &if c < self.left {
                    format!("{gap}{cell:<width$}")
                } else {
                    format!("{gap}{cell:>width$}")
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A size in bytes for people: three digits and a binary unit.
pub(crate) fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// A count for people: digits in groups of three.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(1, ["decoder", "tokens", "note"]);
        table.row(["ar".into(), "7".into(), "é".into()]);
        table.row(["jacobi:16".into(), "1234567".into()]);
        let expected = "\
decoder     tokens  note
ar               7     é
jacobi:16  1234567
";
        assert_eq!(table.to_string(), expected);
        table.row(["jacobi:16,draft=ngram".into()]);
        let markdown = table.written(TableFormat::Markdown);
        assert!(markdown.starts_with("| decoder | tokens | note |\n| --- | --: | --: |\n| ar |"));
        let csv = table.written(TableFormat::Csv);
        assert!(csv.ends_with("jacobi:16,1234567,\n\"jacobi:16,draft=ngram\",,\n"), "{csv}");
    }

    #[test]
    fn sizes_and_counts_read_well() {
        let check = |n, size: &str, digits: &str| {
            assert_eq!(bytes(n), size);
            assert_eq!(count(n), digits);
        };
        check(0, "0 B", "0");
        check(999, "999 B", "999");
        check(1000, "1.0 KiB", "1,000");
        check(98_765_432, "94.2 MiB", "98,765,432");
        check(3 << 40, "3.0 TiB", "3,298,534,883,328");
    }
}
