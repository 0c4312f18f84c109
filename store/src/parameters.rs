//! What a request asks for besides its statement: the URL's parameters, sorted by meaning.

use axum::http::HeaderMap;

use crate::connection::QueryParameters;
use crate::exception::Exception;

/// The parameters of a URL, decoded, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct UrlParameters(pub(crate) Vec<(String, String)>);

impl UrlParameters {
    /// The last value under `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The parameters of a request by their meaning.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters {
    pub(crate) query: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) default_format: Option<String>,
    pub(crate) query_id: Option<String>,
    pub(crate) values: QueryParameters,
    pub(crate) settings: Vec<(String, String)>,
}

impl Parameters {
    /// Takes what ClickHouse also accepts as headers; the URL goes before them.
    pub(crate) fn read_headers(&mut self, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
        self.database = self.database.take().or_else(|| text("x-clickhouse-database"));
        self.default_format = self.default_format.take().or_else(|| text("x-clickhouse-format"));
    }
}

/// Sorts the parameters; what asks for something that this store does not do is refused.
pub(crate) fn sorted(url: UrlParameters) -> Result<Parameters, Exception> {
    let mut sorted = Parameters::default();
    for (name, value) in url.0 {
        match name.as_str() {
            "query" => sorted.query = Some(value),
            "database" => sorted.database = Some(value).filter(|name| !name.is_empty()),
            "default_format" => sorted.default_format = Some(value),
            "query_id" => sorted.query_id = Some(value),
            "user" | "password" | "quota_key" => {}
            "buffer_size" | "wait_end_of_query" | "client_protocol_version" => {}
            "compress" | "decompress" if is_off(&value) => {}
            "compress" | "decompress" => return Err(Exception::unsupported(COMPRESSION)),
            "session_id" | "session_timeout" | "session_check" => {
                return Err(Exception::unsupported(
                    "HTTP sessions are not supported by this store",
                ));
            }
            "role" => {
                return Err(Exception::unsupported("Roles are not supported by this store"));
            }
            _ => match name.strip_prefix("param_") {
                Some(name) => sorted.values.0.push((name.to_owned(), value)),
                None => sorted.settings.push((name, value)),
            },
        }
    }
    Ok(sorted)
}

const COMPRESSION: &str = "Compressed requests and responses are not supported by this store: \
    turn compression off in the client (compress=0, decompress=0)";

fn is_off(value: &str) -> bool {
    matches!(value, "" | "0" | "false")
}

/// Decodes `application/x-www-form-urlencoded` text. Bytes that are no UTF-8 are refused.
pub(crate) fn decoded(text: &str) -> Result<UrlParameters, Exception> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((percent_decoded(name)?, percent_decoded(value)?))
    };
    let all: Option<Vec<_>> = pairs.map(pair).collect();
    all.map(UrlParameters)
        .ok_or_else(|| Exception::bad_request("The URL's parameters are not valid UTF-8"))
}

fn percent_decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (bytes[at], escaped) {
            (_, Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_sorted() {
        let url =
            decoded("query=SELECT+%7Ba%3AUInt8%7D&param_a=1&max_threads=2&database=&x").unwrap();
        let sorted = sorted(url).unwrap();
        assert_eq!(sorted.query.as_deref(), Some("SELECT {a:UInt8}"));
        assert_eq!(sorted.database, None);
        assert_eq!(sorted.values.0, [("a".to_owned(), "1".to_owned())]);
        let settings =
            [("max_threads".to_owned(), "2".to_owned()), ("x".to_owned(), String::new())];
        assert_eq!(sorted.settings, settings);
    }

    #[test]
    fn a_percent_that_escapes_nothing_stays() {
        assert_eq!(percent_decoded("100%").as_deref(), Some("100%"));
        assert_eq!(percent_decoded("%zz%2").as_deref(), Some("%zz%2"));
        assert_eq!(percent_decoded("%ff"), None);
    }
}
