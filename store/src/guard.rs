//! What a user may ask: the limits and refusals that the engine's grants do not cover.
//!
//! The engine's own parser says what a statement does (read, change, control, write outside). The
//! names below reach the host's files or programs under no grant at all, so they are refused by
//! name. The search for them errs towards refusing: it does not care whether a name stands in a
//! string or a comment, so no confusion about quotes can hide one.

use crate::authentication::Role;
use crate::connection::{Connection, QueryClass, QueryParameters};
use crate::exception::Exception;
use crate::parameters::Parameters;

/// Functions that no grant covers: they read the host's files or start programs.
const FUNCTIONS_REFUSED: [&str; 5] = [
    "file",
    "filesystem",
    "executable",
    "catboostevaluate",
    "arrowstream",
];

/// Clauses by which the engine's client part reads and writes the host's files.
const CLAUSES_REFUSED: [&str; 2] = ["outfile", "infile"];

/// Settings that name files on the host.
const SETTINGS_REFUSED: [&str; 2] = ["format_schema", "format_template"];

/// Settings that a reader may send: how a result looks.
const READER_SETTINGS: [&str; 5] = [
    "output_format_",
    "date_time_output_format",
    "enable_http_compression",
    "send_progress_in_http_headers",
    "http_",
];

/// What a reader's statement may cost.
const READER_LIMITS: &str = "max_execution_time = 60, max_memory_usage = 4000000000, \
    max_threads = 2, max_result_bytes = 4000000000, readonly = 1";

/// Prepares a fresh connection for one statement of `role`: its database, settings and limits.
pub(crate) fn prepare(
    connection: &mut Connection,
    role: Role,
    parameters: &Parameters,
) -> Result<(), Exception> {
    let none = QueryParameters::default();
    if let Some(database) = &parameters.database {
        connection.query(&format!("USE {}", quoted(database, '`')), "Null", &none)?;
    }
    let mut changes = Vec::new();
    for (name, value) in &parameters.settings {
        check_setting(role, name)?;
        changes.push(format!("{name} = {}", quoted(value, '\'')));
    }
    if role == Role::Reader {
        changes.push(READER_LIMITS.to_owned());
    }
    if !changes.is_empty() {
        connection.query(&format!("SET {}", changes.join(", ")), "Null", &none)?;
    }
    Ok(())
}

/// Refuses what `role` may not run. `sql` is the statement without an insert's data.
pub(crate) fn check(
    connection: &mut Connection,
    role: Role,
    sql: &str,
) -> Result<QueryClass, Exception> {
    refuse_words(sql)?;
    let (class, count) = connection.classify(sql);
    if count > 1 {
        return Err(Exception::new(
            62,
            "SYNTAX_ERROR",
            "Multi-statements are not allowed",
        ));
    }
    match (role, class) {
        // What does not parse is given to the engine for its error message; it runs nothing.
        (_, QueryClass::ReadOnly | QueryClass::Unknown) | (Role::Writer, QueryClass::Mutating) => {
            Ok(class)
        }
        (Role::Writer, QueryClass::MutatingGlobal | QueryClass::Control) => Ok(class),
        (Role::Reader, _) => Err(Exception::new(
            164,
            "READONLY",
            "Cannot execute query in readonly mode",
        )),
    }
}

fn check_setting(role: Role, name: &str) -> Result<(), Exception> {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if name.is_empty() || !plain {
        let text = format!("Unknown setting '{name}'");
        return Err(Exception::new(115, "UNKNOWN_SETTING", &text));
    }
    if SETTINGS_REFUSED
        .iter()
        .any(|refused| name.starts_with(refused))
    {
        return Err(Exception::denied(&format!(
            "Setting '{name}' reaches the host's files"
        )));
    }
    if role == Role::Reader
        && !READER_SETTINGS
            .iter()
            .any(|allowed| name.starts_with(allowed))
    {
        let text = format!("Cannot modify '{name}' setting in readonly mode");
        return Err(Exception::new(164, "READONLY", &text));
    }
    Ok(())
}

fn refuse_words(sql: &str) -> Result<(), Exception> {
    let lower = sql.to_ascii_lowercase();
    for name in FUNCTIONS_REFUSED {
        if words(&lower, name).any(|end| is_called(&lower[end..])) {
            return Err(Exception::denied(&format!(
                "Function '{name}' reaches outside the store"
            )));
        }
    }
    let named = CLAUSES_REFUSED
        .into_iter()
        .find(|name| words(&lower, name).next().is_some());
    let named = named.or_else(|| {
        SETTINGS_REFUSED
            .into_iter()
            .find(|name| lower.contains(name))
    });
    match named {
        Some(name) => Err(Exception::denied(&format!(
            "'{name}' reaches the host's files"
        ))),
        None => Ok(()),
    }
}

/// Where `word` ends, wherever it stands alone in `text`.
fn words<'text>(text: &'text str, word: &'text str) -> impl Iterator<Item = usize> + 'text {
    let inside =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    text.match_indices(word).filter_map(move |(start, _)| {
        let end = start + word.len();
        let before = start.checked_sub(1).and_then(|at| text.as_bytes().get(at));
        (!inside(before) && !inside(text.as_bytes().get(end))).then_some(end)
    })
}

/// Whether a parenthesis follows, after a closing quote, spaces and comments.
fn is_called(mut rest: &str) -> bool {
    rest = rest.strip_prefix(['`', '"']).unwrap_or(rest);
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, after)| after);
        } else if rest.starts_with("--") || rest.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
        } else {
            return rest.starts_with('(');
        }
    }
}

fn quoted(text: &str, quote: char) -> String {
    let mut out = String::from(quote);
    for character in text.chars() {
        if character == quote || character == '\\' {
            out.push('\\');
        }
        out.push(character);
    }
    out.push(quote);
    out
}
