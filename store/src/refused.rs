//! What nobody may name: functions and settings that reach the host under no grant at all.
//!
//! ClickHouse's lexer knows more white space, quotes and comments than one would think (zero-width
//! spaces, “quotes”, `//`, comments in comments), and a function is also called without a
//! parenthesis (`APPLY file`, `arrayMap(file, ...)`). So nothing here tries to tell a call from a
//! column: a name is refused wherever it stands alone, in a string or a comment too, which no
//! confusion about quotes can hide. Only a string that is nothing but the name is let through, and
//! the format that is called like a function.

use crate::connection::QueryParameters;
use crate::exception::Exception;

/// They read the host's files, start programs or hide a query.
const FUNCTIONS: [&str; 6] =
    ["file", "filesystem", "executable", "catboostevaluate", "arrowstream", "eval"];

/// Clauses by which the engine's client part reads and writes the host's files.
const CLAUSES: [&str; 2] = ["outfile", "infile"];

/// Parts of the names of settings by which formats read and write the host's files, or ask another
/// host.
const SETTINGS: [&str; 4] =
    ["format_schema", "format_template", "errors_file_path", "schema_registry"];

/// Refuses a statement that names what reaches outside, or has it named by a parameter.
pub(crate) fn check_statement(sql: &str, values: &QueryParameters) -> Result<(), Exception> {
    for text in [sql.to_ascii_lowercase(), unescaped(sql)] {
        if let Some(name) = FUNCTIONS.into_iter().find(|name| stands_alone(&text, name)) {
            return Err(Exception::denied(&format!("Function '{name}' reaches outside the store")));
        }
        let clause = CLAUSES.into_iter().find(|name| stands_alone(&text, name));
        if let Some(name) = clause.or_else(|| SETTINGS.into_iter().find(|name| text.contains(name)))
        {
            return Err(Exception::denied(&format!("'{name}' reaches the host's files")));
        }
    }
    if !sql.contains("Identifier") {
        return Ok(());
    }
    let mut values = values.0.iter().map(|(_, value)| unescaped(value));
    match values.find(|value| FUNCTIONS.iter().any(|name| stands_alone(value, name))) {
        Some(value) => Err(Exception::denied(&format!("'{value}' reaches outside the store"))),
        None => Ok(()),
    }
}

/// Refuses a setting by its name.
pub(crate) fn check_setting(name: &str) -> Result<(), Exception> {
    let name = name.to_ascii_lowercase();
    if SETTINGS.iter().any(|refused| name.contains(refused)) {
        return Err(Exception::denied(&format!("Setting '{name}' reaches outside the store")));
    }
    Ok(())
}

/// Whether `word` is somewhere in `text` without a letter, digit or underscore beside it, and is
/// neither the whole of a string in single quotes nor the name of a format.
fn stands_alone(text: &str, word: &str) -> bool {
    let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.match_indices(word).any(|(start, _)| {
        let (bytes, before) = (text.as_bytes(), &text[..start]);
        let last = before.bytes().last().unwrap_or(b' ');
        let next = bytes.get(start + word.len()).copied().unwrap_or(b' ');
        // Spaces alone: after the end of a line the word before may be one of a comment.
        let is_format = last == b' ' && before.trim_end_matches(' ').ends_with("format");
        !is_inside(last) && !is_inside(next) && (last, next) != (b'\'', b'\'') && !is_format
    })
}

/// `text` in lower case with `\x69` as the letter it stands for: the only escape that makes one.
fn unescaped(text: &str) -> String {
    let mut pieces = text.split("\\x");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let digits = piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match digits {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&piece[2..]);
            }
            None => out.push_str(piece),
        }
    }
    out.make_ascii_lowercase();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str) -> Result<(), Exception> {
        check_statement(sql, &QueryParameters::default())
    }

    #[test]
    fn a_function_that_reaches_outside_is_refused_however_it_is_written() {
        for sql in [
            "SELECT file('/etc/passwd')",
            "SELECT FILE ('/etc/passwd')",
            "SELECT `file`('/etc/passwd')",
            "SELECT “file”('/etc/passwd')",
            "SELECT file\u{200b}('/etc/passwd')",
            "SELECT file/* ( */('/etc/passwd')",
            "SELECT file /* /* */ */ ('/etc/passwd')",
            "SELECT file -- a comment\n # another\n // a third\n ('/etc/passwd')",
            "SELECT * APPLY file FROM (SELECT '/etc/passwd')",
            "SELECT * APPLY(`f\\x69le`) FROM (SELECT '/etc/passwd')",
            "SELECT arrayMap(\"f\\x49\\x4ce\", ['/etc/passwd'])",
            "SELECT 1 IN (SELECT * FROM executable('x', TSV, 'a String'))",
            "SELECT 1 INTO OUTFILE 'x'",
            "INSERT INTO t FROM INFILE 'x'",
            "SELECT 1 FORMAT Template SETTINGS format_template_row = '/etc/passwd'",
            "SELECT 1 FORMAT Protobuf SETTINGS output_format_schema = '/tmp/x'",
            "SELECT 'a quote that ends early \\' , file('/etc/passwd')",
            "SELECT `f\\x69le`('/etc/passwd')",
            "SELECT * FROM--format\narrowstream('x')",
        ] {
            assert_eq!(check(sql).map_err(|error| error.code), Err(497), "{sql}");
        }
    }

    #[test]
    fn a_function_named_by_a_parameter_is_refused() {
        let named = |value: &str| QueryParameters(vec![("f".to_owned(), value.to_owned())]);
        let sql = "SELECT arrayMap({f:Identifier}, ['/etc/passwd'])";
        for value in ["file", "FILE", "f\\x69le", "`file`"] {
            assert!(check_statement(sql, &named(value)).is_err(), "{value}");
        }
        assert!(check_statement(sql, &named("lower")).is_ok());
        assert!(check_statement("SELECT {f:String}", &named("file")).is_ok());
    }

    #[test]
    fn names_that_only_look_alike_are_allowed() {
        for sql in [
            "SELECT profile(1), files FROM file_list WHERE kind IN ('file', 'folder')",
            "SELECT evaluate(1), file_count (2) FORMAT ArrowStream",
            "SELECT 'back\\slash', \"quoted\", '\\xff' FROM t WHERE a IN (1)",
        ] {
            assert!(check(sql).is_ok(), "{sql}");
        }
    }
}
