//! What a user may ask: the limits and refusals that the engine's grants do not cover.
//!
//! The engine's own parser says what a statement does (read, change, control, write outside). What
//! reaches the host's files or programs under no grant at all is refused by name (`refused`).

use crate::authentication::Role;
use crate::connection::{Connection, QueryClass, QueryParameters};
use crate::exception::Exception;
use crate::parameters::Parameters;
use crate::refused;

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

/// Refuses what `role` may not run. `sql` is the statement without an insert's data, `values` are
/// its parameters.
pub(crate) fn check(
    connection: &mut Connection,
    role: Role,
    sql: &str,
    values: &QueryParameters,
) -> Result<QueryClass, Exception> {
    refused::check_statement(sql, values)?;
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

pub(crate) fn check_setting(role: Role, name: &str, value: &str) -> Result<(), Exception> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if name.is_empty() || !plain {
        let text = format!("Unknown setting '{name}'");
        return Err(Exception::new(115, "UNKNOWN_SETTING", &text));
    }
    refused::check_setting(name)?;
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
        assert!(!may("output_format_schema", "/tmp/written"));
    }
}
