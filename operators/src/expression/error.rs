//! What is wrong with an expression, in words of the person who wrote it.

use datafusion_common::DataFusionError;
use datafusion_common::utils::datafusion_strsim::levenshtein;
use datafusion_sql::sqlparser::parser::ParserError;

/// An expression that cannot be used, and where the fault is: the writer's to correct.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// What is wrong.
    pub message: String,
    /// The line within the expression's text, from 1.
    pub line: u64,
    /// The column within that line, from 1.
    pub column: u64,
    /// What to do about it, where we know.
    pub hint: Option<String>,
}

/// DataFusion's message without its prefixes and backtraces.
pub(crate) fn plain_message(error: &DataFusionError) -> String {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => {
            plain_message(inner)
        }
        DataFusionError::Shared(inner) => plain_message(inner),
        DataFusionError::Collection(all) if !all.is_empty() => plain_message(&all[0]),
        DataFusionError::Plan(text)
        | DataFusionError::Execution(text)
        | DataFusionError::NotImplemented(text) => first_line(text),
        DataFusionError::ArrowError(inner, _) => first_line(&inner.to_string()),
        other => first_line(&other.strip_backtrace()),
    }
}

fn first_line(text: &str) -> String {
    let text = text.split("\n\nbacktrace").next().unwrap_or(text);
    text.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}

/// A syntax error; the parser says where at the end of its sentence.
pub(super) fn of_syntax(error: &DataFusionError) -> ExpressionError {
    let DataFusionError::SQL(parser_error, _) = error.find_root() else {
        return ExpressionError { message: plain_message(error), line: 1, column: 1, hint: None };
    };
    let text = match parser_error.as_ref() {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.clone(),
        ParserError::RecursionLimitExceeded => "the expression is nested too deeply".to_owned(),
    };
    let (message, position) = match text.split_once(" at Line: ") {
        Some((message, position)) => (message.to_owned(), position.to_owned()),
        None => (text, String::new()),
    };
    let mut numbers = position
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok());
    let (line, column) = (numbers.next().unwrap_or(1), numbers.next().unwrap_or(1));
    ExpressionError {
        message: message.replace(", found: EOF", ", found the end"),
        line,
        column,
        hint: None,
    }
}

/// The name among `known` that `written` was probably meant to be.
#[must_use]
pub fn closest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    let limit = (written.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (levenshtein(&name.to_lowercase(), &written), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}
