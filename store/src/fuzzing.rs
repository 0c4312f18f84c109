//! What holds for HTTP requests of any bytes before the engine sees them; `make fuzz` looks for some
//! that break it.
//!
//! An input is a byte that says GET or POST and how the body comes in pieces, then the URL's query,
//! headers of one line each, and the body, separated by byte 0x1e.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};

use crate::asked::{self, Asked};
use crate::authentication::Role;
use crate::config::{StoreConfig, User};
use crate::connection::QueryParameters;
use crate::exception::Exception;
use crate::guard;
use crate::parameters::Parameters;
use crate::refused;
use crate::response::{self, Heading};
use crate::statement::{self, Statement};

/// Reads `data` as a request, and what it asks as the guard would.
///
/// # Panics
/// If reading it does not end, is answered otherwise than by ClickHouse's words, or lets a reader set
/// or call what reaches outside.
pub fn hold(data: &[u8]) {
    let mut parts = data.splitn(4, |byte| *byte == 0x1e);
    let mut part = || parts.next().unwrap_or_default();
    let (mode, query, headers, body) = (part(), part(), part(), part());
    let mode = mode.first().copied().unwrap_or_default();
    let Some(request) = request(mode, query, headers, body) else { return };
    let mut query_id = String::new();
    let read = asked::read(&config(), request, &mut query_id).now_or_never();
    match read.expect("a body that is there is read at once") {
        Err(exception) => is_said(&query_id, &exception),
        Ok(Asked::Insert(insert, data)) => {
            let collected = data.collect::<Vec<_>>().now_or_never();
            let pieces = collected.expect("data that are there come at once");
            let bytes: usize = pieces.iter().flatten().map(Bytes::len).sum();
            assert!(bytes <= query.len() + body.len(), "data were made up");
            judge(insert.role, &insert.head, &insert.parameters, &query_id);
        }
        Ok(Asked::Select(select)) => {
            // A format is taken from the statement's own text.
            let format = statement::format_of(&select.sql);
            assert!(format.is_none_or(|format| select.sql.contains(&format)));
            statement::is_select(&select.sql);
            judge(select.role, &select.sql, &select.parameters, &query_id);
        }
    }
    takes_apart(body);
    no_name_is_hidden(body);
}

fn config() -> StoreConfig {
    let user = |name: &str| User { name: name.into(), password: "".into() };
    let listen = ([127, 0, 0, 1], 0).into();
    // Who names nobody is `default`.
    StoreConfig { listen, data: "unused".into(), writer: user("writer"), reader: user("default") }
}

fn request(mode: u8, query: &[u8], headers: &[u8], body: &[u8]) -> Option<Request> {
    let method = if mode & 1 == 0 { Method::POST } else { Method::GET };
    let uri = [b"/?", query].concat();
    let mut request = Request::builder().method(method).uri(uri);
    for line in headers.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        request = request.header(&line[..colon], &line[colon + 1..]);
    }
    let pieces = body.chunks(usize::from(mode >> 1) + 1).map(Bytes::copy_from_slice);
    let pieces: Vec<Result<Bytes, std::io::Error>> = pieces.map(Ok).collect();
    request.body(Body::from_stream(stream::iter(pieces))).ok()
}

/// An error's text begins as ClickHouse's do, and its status says whose fault it is: the client's.
fn is_said(query_id: &str, exception: &Exception) {
    let text = exception.to_string();
    assert!(text.starts_with(&format!("Code: {}. DB::Exception: ", exception.code)), "{text}");
    let answer = response::error(query_id, exception);
    let status = answer.status();
    assert!(status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED, "{text}");
}

/// What the guard says of it that needs no engine.
fn judge(role: Role, sql: &str, parameters: &Parameters, query_id: &str) {
    for (name, value) in &parameters.settings {
        if guard::check_setting(role, name, value).is_err() {
            continue;
        }
        assert!(name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()));
        assert!(!name.to_ascii_lowercase().contains("format_schema"), "{name} may be set");
        if role == Role::Reader {
            let is_limit = name.starts_with("max_") && value.parse::<u64>().is_ok_and(|n| n > 0);
            let is_look = ["output_format_", "http_", "date_time_output_format"]
                .iter()
                .chain(&["enable_http_compression", "send_progress_in_http_headers"])
                .any(|start| name.starts_with(start));
            assert!(is_limit || is_look, "a reader may set {name}");
        }
    }
    let _ = refused::check_statement(sql, &parameters.values);
    let format = parameters.default_format.clone().unwrap_or_default();
    let heading = Heading { query_id: query_id.to_owned(), format, ..Heading::default() };
    assert_eq!(response::result(&heading, Body::empty()).status(), StatusCode::OK);
}

/// An insert's head is the beginning of its text, and its data the end.
fn takes_apart(text: &[u8]) {
    let Statement::Insert(insert) = statement::split(text) else { return };
    assert!(insert.data_at <= text.len());
    let before = String::from_utf8_lossy(&text[..insert.data_at]).into_owned();
    assert!(before.starts_with(&insert.head), "{} is not how it begins", insert.head);
    assert!(insert.format == "Values" || before.contains(&insert.format));
}

/// How ClickHouse may be told a function's name between other words.
const DISGUISES: [(&str, &str); 12] = [
    ("`", "`"),
    ("\"", "\""),
    ("\u{201c}", "\u{201d}"),
    ("/*", "*/ file /*"),
    ("*/", "/*"),
    ("\n", "\u{200b}"),
    ("\u{feff}", "\u{2060}"),
    ("(", ")"),
    ("--\n", "--"),
    ("\t", "//"),
    ("'", " "),
    (".", "("),
];

/// Whatever stands around it, a name that is refused stays refused.
fn no_name_is_hidden(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let middle = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at));
    let (before, after) = text.split_at(middle.unwrap_or_default());
    for (open, close) in DISGUISES {
        for name in ["file", "FILE", "f\\x69le", "\\x66\\x49\\x6ce"] {
            let sql = format!("{before}{open}{name}{close}{after}");
            let refused = refused::check_statement(&sql, &QueryParameters::default());
            assert!(refused.is_err(), "let through: {sql}");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn inputs_that_once_broke_it_do_no_more() {
        for input in std::fs::read_dir("../fuzz/inputs/requests").expect("kept inputs") {
            let input = input.expect("a file").path();
            super::hold(&std::fs::read(&input).expect("its bytes"));
        }
    }
}
