//! What is wrong with a pipeline file, shown as compilers show it.

use std::fmt;

use citycell_operators::expression::ExpressionError;
use serde::Serialize;
use serde_saphyr::Location;

/// One fault of a pipeline file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// The file as it was named.
    pub file: String,
    /// The line, from 1; 0 where the file as a whole is at fault.
    pub line: u64,
    /// The column in characters, from 1.
    pub column: u64,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where we know.
    pub hint: Option<String>,
    /// The text of that line.
    pub source_line: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "error: {}", self.message)?;
        if self.line == 0 {
            write!(out, "  --> {}", self.file)?;
        } else {
            let margin = " ".repeat(self.line.to_string().len());
            let indent = " ".repeat(usize::try_from(self.column.saturating_sub(1)).unwrap_or(0));
            writeln!(out, "{margin}--> {}:{}:{}", self.file, self.line, self.column)?;
            writeln!(out, "{margin} |")?;
            writeln!(out, "{} | {}", self.line, self.source_line)?;
            write!(out, "{margin} | {indent}^")?;
        }
        match &self.hint {
            Some(hint) => write!(out, "\n  = help: {hint}"),
            None => Ok(()),
        }
    }
}

/// All faults that were found in one file: its author's to correct.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"))]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// A fault of a file as a whole.
    pub(crate) fn of_file(file: String, message: String) -> Self {
        let (hint, source_line) = (None, String::new());
        Self(vec![ConfigError { file, line: 0, column: 0, message, hint, source_line }])
    }
}

/// Collects the faults of one file.
pub(super) struct Faults<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<ConfigError>,
}

impl<'a> Faults<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, found: Vec::new() }
    }

    pub(super) fn into_result<T>(self, value: Option<T>) -> Result<T, ConfigErrors> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => Err(ConfigErrors(self.found)),
        }
    }

    /// A fault at a place of the file.
    pub(super) fn at(
        &mut self,
        location: Location,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.push(location.line(), location.column(), message.into(), hint);
    }

    /// A fault within the expression that is written at `location`.
    pub(super) fn expression(&mut self, location: Location, error: ExpressionError) {
        let (line, column) = self.place_within(location, error.line, error.column);
        self.push(line, column, error.message, error.hint);
    }

    fn push(&mut self, line: u64, column: u64, message: String, hint: Option<String>) {
        let (line, column) = self.within_file(line, column);
        let source_line = self.line_text(line).to_owned();
        let file = self.file.to_owned();
        self.found.push(ConfigError { file, line, column, message, hint, source_line });
    }

    /// The YAML reader counts the end of a text as a line of its own, and sometimes as a column far
    /// behind the last: what it finds wrong there is shown at the end of what is written.
    fn within_file(&self, line: u64, column: u64) -> (u64, u64) {
        let lines = lines(self.text).count().max(1) as u64;
        let end = |line| self.line_text(line).chars().count() as u64 + 1;
        if line > lines { (lines, end(lines)) } else { (line, column.min(end(line))) }
    }

    fn line_text(&self, line: u64) -> &'a str {
        let index = usize::try_from(line).unwrap_or(0).checked_sub(1);
        index.and_then(|index| lines(self.text).nth(index)).unwrap_or_default()
    }

    /// Where line and column of a scalar's text stand in the file. Only the text of a literal
    /// block has lines of its own, all indented like the first.
    fn place_within(&self, scalar: Location, line: u64, column: u64) -> (u64, u64) {
        let (first_line, mut first_column) = (scalar.line(), scalar.column());
        let text = self.line_text(first_line);
        let before = usize::try_from(first_column).unwrap_or(0).saturating_sub(1);
        if text.chars().nth(before).is_some_and(|quote| matches!(quote, '\'' | '"')) {
            first_column += 1;
        }
        let found = (first_line + line - 1, first_column + column - 1);
        // The lines of a folded text are joined: where the place is beyond the line, point at the
        // start.
        let length = self.line_text(found.0).chars().count() as u64;
        if found.1 <= length + 1 { found } else { (first_line, scalar.column()) }
    }
}

/// The lines of a text as YAML counts them: a carriage return alone ends one too.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('\r'))
}
