//! Standard output: tables for people, JSON for programs, errors of the pipe handed on instead of panics.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::args::Format;

/// Where results go and in which form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    format: Format,
}

impl Output {
    pub(super) fn new(format: Format) -> Output {
        Output { format }
    }

    /// The same, or JSON if a command's own `--json` says so.
    pub(super) fn or_json(self, json: bool) -> Output {
        if json { Output { format: Format::Json } } else { self }
    }

    /// Whether programs read this.
    pub(super) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints a document whose shape is named and versioned, such as `topic.list/1`.
    pub(super) fn document(self, schema: &'static str, body: &impl Serialize) -> io::Result<()> {
        #[derive(Serialize)]
        struct Document<'a, T> {
            schema: &'static str,
            #[serde(flatten)]
            body: &'a T,
        }
        self.json_line(&Document { schema, body })
    }

    /// Prints one line of JSON.
    pub(super) fn json_line(self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.bytes(&line)
    }

    /// Prints one line of text.
    pub(super) fn line(self, text: &str) -> io::Result<()> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Prints bytes as they are, at once.
    pub(super) fn bytes(self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    /// Prints rows under headings; columns named in `numbers` are aligned to the right.
    pub(super) fn table(self, headings: &[&str], numbers: &[usize], rows: Vec<Vec<String>>) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(headings.iter().map(|heading| heading.to_uppercase()));
        table.add_rows(rows);
        for column in numbers {
            if let Some(column) = table.column_mut(*column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for line in table.lines() {
            self.line(line.trim_end().strip_prefix(' ').unwrap_or(line.trim_end()))?;
        }
        Ok(())
    }
}

/// Numbers separated by commas.
pub(super) fn join(numbers: &[i32]) -> String {
    numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}
