//! `multipart/form-data` bodies, which the `clickhouse` crate sends when a query has parameters:
//! one part named `query`, one `param_<name>` per parameter.

use axum::http::{HeaderMap, header};

use crate::exception::Exception;

/// The boundary between the parts, if the body is a form.
pub(crate) fn boundary(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let (kind, rest) = text.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let mut attributes = rest.split(';').filter_map(|attribute| attribute.trim().split_once('='));
    let (_, boundary) = attributes.find(|(name, _)| name.eq_ignore_ascii_case("boundary"))?;
    Some(boundary.trim_matches('"').to_owned())
}

/// The fields of a form, in their order.
pub(crate) fn fields(body: &[u8], boundary: &str) -> Result<Vec<(String, String)>, Exception> {
    let malformed = || Exception::bad_request("The multipart form is malformed or not valid UTF-8");
    let text = std::str::from_utf8(body).map_err(|_| malformed())?;
    let delimiter = format!("--{boundary}");
    // The first delimiter may stand at the very start, the others follow a line's end.
    let text = text.strip_prefix(&delimiter).ok_or_else(malformed)?;
    let mut fields = Vec::new();
    for part in text.split(&format!("\r\n{delimiter}")) {
        if part.starts_with("--") {
            return Ok(fields);
        }
        let part = part.strip_prefix("\r\n").ok_or_else(malformed)?;
        let (headers, value) = part.split_once("\r\n\r\n").ok_or_else(malformed)?;
        fields.push((field_name(headers).ok_or_else(malformed)?, value.to_owned()));
    }
    Err(malformed())
}

fn field_name(headers: &str) -> Option<String> {
    let disposition = headers.lines().find(|line| {
        line.split_once(':')
            .is_some_and(|(name, _)| name.eq_ignore_ascii_case("content-disposition"))
    })?;
    let (_, name) = disposition.split_once("name=\"")?;
    let (name, _) = name.split_once('"')?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT {a:String}\r\n\
        --b\r\nContent-Disposition: form-data; name=\"param_a\"\r\nContent-Type: text/plain\r\n\r\n\
        two\r\nlines\r\n--b--\r\n";

    #[test]
    fn a_form_is_taken_apart() {
        let expected = [("query", "SELECT {a:String}"), ("param_a", "two\r\nlines")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(fields(FORM.as_bytes(), "b").unwrap(), expected);
    }

    #[test]
    fn a_form_cut_off_anywhere_is_refused() {
        let last = FORM.len() - "--\r\n".len();
        for end in 0..last {
            assert!(fields(&FORM.as_bytes()[..end], "b").is_err(), "cut at {end}");
        }
    }

    #[test]
    fn the_boundary_is_read_from_the_content_type() {
        let mut headers = HeaderMap::new();
        assert_eq!(boundary(&headers), None);
        headers
            .insert(header::CONTENT_TYPE, "multipart/form-data; boundary=\"x y\"".parse().unwrap());
        assert_eq!(boundary(&headers).as_deref(), Some("x y"));
        headers.insert(header::CONTENT_TYPE, "text/plain; boundary=x".parse().unwrap());
        assert_eq!(boundary(&headers), None);
    }
}
