//! Answers as ClickHouse gives them: headers, status and errors.

use std::hash::{BuildHasher, Hasher, RandomState};

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, header};
use bytes::Bytes;

use crate::exception::Exception;
use crate::results::Progress;

const QUERY_ID: HeaderName = HeaderName::from_static("x-clickhouse-query-id");
const FORMAT: HeaderName = HeaderName::from_static("x-clickhouse-format");
const SUMMARY: HeaderName = HeaderName::from_static("x-clickhouse-summary");
const EXCEPTION_TAG: HeaderName = HeaderName::from_static("x-clickhouse-exception-tag");
const EXCEPTION_CODE: HeaderName = HeaderName::from_static("x-clickhouse-exception-code");

/// What an answer's headers say besides its status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heading {
    pub(crate) query_id: String,
    pub(crate) format: String,
    pub(crate) progress: Progress,
}

/// A statement's result.
pub(crate) fn result(heading: &Heading, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(&heading.format)));
    for (name, text) in [(QUERY_ID, &heading.query_id), (FORMAT, &heading.format)] {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    }
    headers.insert(SUMMARY, summary(heading.progress));
    response
}

/// A result in pieces, among which an error may come, marked by `tag`.
pub(crate) fn streamed(heading: &Heading, tag: &str, body: Body) -> Response<Body> {
    let mut response = result(heading, body);
    if let Ok(value) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(EXCEPTION_TAG, value);
    }
    response
}

/// A text that no result can hold by intent: data cannot know it.
pub(crate) fn exception_tag() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// An error in the middle of a result, in the form that ClickHouse has since version 25.11.
pub(crate) fn exception_in_body(tag: &str, exception: &Exception) -> Bytes {
    let message = format!("{exception}\n");
    let length = message.len();
    let text =
        format!("\r\n__exception__\r\n{tag}\r\n{message}{length} {tag}\r\n__exception__\r\n");
    Bytes::from(text)
}

/// An error.
pub(crate) fn error(query_id: &str, exception: &Exception) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{exception}\n")));
    *response.status_mut() = exception.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    headers.insert(EXCEPTION_CODE, HeaderValue::from(exception.code));
    if let Ok(value) = HeaderValue::from_str(query_id) {
        headers.insert(QUERY_ID, value);
    }
    if exception.code == 194 {
        let challenge = HeaderValue::from_static("Basic realm=\"ClickHouse server HTTP API\"");
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

fn summary(progress: Progress) -> HeaderValue {
    let Progress { read_rows, read_bytes, written_rows, written_bytes } = progress;
    let text = format!(
        "{{\"read_rows\":\"{read_rows}\",\"read_bytes\":\"{read_bytes}\",\
         \"written_rows\":\"{written_rows}\",\"written_bytes\":\"{written_bytes}\"}}"
    );
    HeaderValue::from_str(&text).expect("digits and letters")
}

fn content_type(format: &str) -> &'static str {
    match format {
        "JSON" | "JSONCompact" | "JSONStrings" | "JSONColumns" => "application/json; charset=UTF-8",
        "JSONEachRow" | "JSONCompactEachRow" => "application/x-ndjson; charset=UTF-8",
        "CSV" | "CSVWithNames" | "CSVWithNamesAndTypes" => "text/csv; charset=UTF-8; header=absent",
        "TabSeparated" | "TSV" | "TabSeparatedWithNames" | "TSVWithNames" => {
            "text/tab-separated-values; charset=UTF-8"
        }
        "RowBinary"
        | "RowBinaryWithNames"
        | "RowBinaryWithNamesAndTypes"
        | "Native"
        | "Parquet"
        | "Arrow"
        | "ArrowStream"
        | "ORC"
        | "Avro" => "application/octet-stream",
        _ => "text/plain; charset=UTF-8",
    }
}
