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

/// Functions that no grant covers: they read the host's files, start programs or hide a query.
const FUNCTIONS_REFUSED: [&str; 5] =
    ["file", "filesystem", "executable", "catboostevaluate", "arrowstream"];

/// Clauses by which the engine's client part reads and writes the host's files.
const CLAUSES_REFUSED: [&str; 2] = ["outfile", "infile"];

/// Settings that name files on the host.
const SETTINGS_REFUSED: [&str; 2] = ["format_schema", "format_template"];

/// Settings that a reader may send as they like: how a result looks.
const READER_SETTINGS: [&str; 5] = [
    "output_format_",
    "date_time_output_format",
    "enable_http_compression",
    "send_progress_in_http_headers",
    "http_",
];

/// What a reader's statement may cost; a reader may ask for less, not for more.
const READER_LIMITS: [(&str, u64); 5] = [
    ("max_execution_time", 60),
    ("max_memory_usage", 4_000_000_000),
    ("max_result_bytes", 4_000_000_000),
    ("max_result_rows", 100_000_000),
    ("max_threads", 2),
];

/// Prepares a fresh connection for one statement of `role`: its database, settings and limits, and
/// the tag by which it can be killed.
pub(crate) fn prepare(
    connection: &mut Connection,
    role: Role,
    parameters: &Parameters,
    tag: &str,
) -> Result<(), Exception> {
    let none = QueryParameters::default();
    if let Some(database) = &parameters.database {
        connection.query(&format!("USE {}", quoted(database, '`')), "Null", &none)?;
    }
    let mut changes = Vec::new();
    if role == Role::Reader {
        changes.extend(READER_LIMITS.map(|(name, limit)| format!("{name} = {limit}")));
    }
    for (name, value) in &parameters.settings {
        check_setting(role, name, value)?;
        changes.push(format!("{name} = {}", quoted(value, '\'')));
    }
    changes.push(format!("log_comment = {}", quoted(tag, '\'')));
    match role {
        Role::Writer => {}
        Role::WriterReading => changes.push("readonly = 2".to_owned()),
        Role::Reader => changes.push("readonly = 1".to_owned()),
    }
    connection.query(&format!("SET {}", changes.join(", ")), "Null", &none)?;
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
        return Err(Exception::new(62, "SYNTAX_ERROR", "Multi-statements are not allowed"));
    }
    match (role, class) {
        // What does not parse is given to the engine for its error message; it runs nothing.
        (Role::Writer, _) | (_, QueryClass::ReadOnly | QueryClass::Unknown) => Ok(class),
        _ => Err(Exception::new(164, "READONLY", "Cannot execute query in readonly mode")),
    }
}

fn check_setting(role: Role, name: &str, value: &str) -> Result<(), Exception> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if name.is_empty() || !plain {
        let text = format!("Unknown setting '{name}'");
        return Err(Exception::new(115, "UNKNOWN_SETTING", &text));
    }
    if SETTINGS_REFUSED.iter().any(|refused| name.starts_with(refused)) {
        return Err(Exception::denied(&format!("Setting '{name}' reaches the host's files")));
    }
    if role == Role::Reader && !reader_may_set(name, value) {
        let text = format!("Cannot modify '{name}' setting in readonly mode");
        return Err(Exception::new(164, "READONLY", &text));
    }
    Ok(())
}

fn reader_may_set(name: &str, value: &str) -> bool {
    let limited = READER_LIMITS.iter().find(|(limited, _)| *limited == name);
    match limited {
        // Zero lifts a limit.
        Some((_, limit)) => value.parse::<u64>().is_ok_and(|value| (1..=*limit).contains(&value)),
        None => READER_SETTINGS.iter().any(|allowed| name.starts_with(allowed)),
    }
}

fn refuse_words(sql: &str) -> Result<(), Exception> {
    let lower = sql.to_ascii_lowercase();
    for name in FUNCTIONS_REFUSED {
        if words(&lower, name).any(|end| is_called(&lower[end..])) {
            return Err(Exception::denied(&format!("Function '{name}' reaches outside the store")));
        }
    }
    if quoted_name_with_escapes_is_called(sql) {
        return Err(Exception::denied("A function's name may not be written with escapes"));
    }
    let named = CLAUSES_REFUSED.into_iter().find(|name| words(&lower, name).next().is_some());
    let named = named.or_else(|| SETTINGS_REFUSED.into_iter().find(|name| lower.contains(name)));
    match named {
        Some(name) => Err(Exception::denied(&format!("'{name}' reaches the host's files"))),
        None => Ok(()),
    }
}

/// Whether something quoted like a name, with a backslash in it, is followed by a parenthesis. Quotes
/// are taken as they come: between any two of one kind may stand a name.
fn quoted_name_with_escapes_is_called(sql: &str) -> bool {
    ['`', '"'].into_iter().any(|quote| {
        let pieces: Vec<&str> = sql.split(quote).collect();
        pieces.windows(2).any(|pair| pair[0].contains('\\') && is_called(pair[1]))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_reaches_outside_is_refused_however_it_is_written() {
        for sql in [
            "SELECT file('/etc/passwd')",
            "SELECT FILE ('/etc/passwd')",
            "SELECT `file`('/etc/passwd')",
            "SELECT file/* ( */('/etc/passwd')",
            "SELECT file -- a comment\n # another\n ('/etc/passwd')",
            "SELECT 1 IN (SELECT * FROM executable('x', TSV, 'a String'))",
            "SELECT 1 INTO OUTFILE 'x'",
            "INSERT INTO t FROM INFILE 'x'",
            "SELECT 1 FORMAT Template SETTINGS format_template_row = '/etc/passwd'",
            "SELECT 'a quote that ends early \\' , file('/etc/passwd')",
            "SELECT `f\\x69le`('/etc/passwd')",
        ] {
            assert_eq!(refuse_words(sql).unwrap_err().code, 497, "{sql}");
        }
    }

    #[test]
    fn names_that_only_look_alike_are_allowed() {
        for sql in [
            "SELECT profile(1), file FROM files WHERE file IN ('a')",
            "SELECT evaluate(1), file_count (2)",
            "SELECT 'back\\slash', \"quoted\" FROM t WHERE a IN (1)",
        ] {
            assert!(refuse_words(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn a_reader_may_lower_a_limit_and_not_lift_it() {
        let may = |name, value| check_setting(Role::Reader, name, value).is_ok();
        assert!(may("max_execution_time", "5"));
        assert!(!may("max_execution_time", "0"));
        assert!(!may("max_execution_time", "61"));
        assert!(!may("max_execution_time", "-1"));
        assert!(may("output_format_json_quote_64bit_integers", "1"));
        assert!(!may("readonly", "0"));
        assert!(!may("max_threads = 64, readonly", "0"));
        assert!(check_setting(Role::Writer, "max_execution_time", "0").is_ok());
        assert!(check_setting(Role::Writer, "format_schema", "/etc/passwd").is_err());
    }
}
