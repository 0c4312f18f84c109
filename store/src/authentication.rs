//! Who asks: Basic authentication, ClickHouse's headers, or URL parameters.

use axum::http::{HeaderMap, header};

use crate::config::{StoreConfig, User};
use crate::exception::Exception;
use crate::parameters::UrlParameters;

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Creates, writes and reads.
    Writer,
    /// The writer by GET, which is a promise to change nothing.
    WriterReading,
    /// Reads.
    Reader,
}

struct Credentials {
    user: String,
    password: String,
}

/// The role of whoever sent this request. Where credentials come in several ways, one must win:
/// the Authorization header, then ClickHouse's headers, then the URL.
pub(crate) fn role(
    config: &StoreConfig,
    headers: &HeaderMap,
    url: &UrlParameters,
) -> Result<Role, Exception> {
    let sent = match basic(headers)? {
        Some(credentials) => Some(credentials),
        None => from_headers(headers).or_else(|| from_url(url)),
    };
    let named = sent.is_some();
    // As ClickHouse takes it: who names nobody is `default`, without a password.
    let sent = sent.unwrap_or_else(|| Credentials { user: "default".into(), password: "".into() });
    let is = |user: &User| user.name == sent.user && user.password.matches(&sent.password);
    if is(&config.writer) {
        Ok(Role::Writer)
    } else if is(&config.reader) {
        Ok(Role::Reader)
    } else if named {
        let text = format!(
            "{}: Authentication failed: password is incorrect, or there is no user with such name",
            sent.user
        );
        Err(Exception::new(516, "AUTHENTICATION_FAILED", &text))
    } else {
        let text = "No user was named: send X-ClickHouse-User and X-ClickHouse-Key, \
            Basic authentication, or ?user= and ?password=";
        Err(Exception::new(194, "REQUIRED_PASSWORD", text))
    }
}

fn basic(headers: &HeaderMap) -> Result<Option<Credentials>, Exception> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let refused =
        || Exception::new(516, "AUTHENTICATION_FAILED", "Only Basic authentication is understood");
    let text = value.to_str().map_err(|_| refused())?;
    let (scheme, encoded) = text.split_once(' ').ok_or_else(refused)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(refused());
    }
    let decoded = base64_decoded(encoded.trim()).ok_or_else(refused)?;
    let decoded = String::from_utf8(decoded).map_err(|_| refused())?;
    let (user, password) = decoded.split_once(':').ok_or_else(refused)?;
    Ok(Some(Credentials { user: user.to_owned(), password: password.to_owned() }))
}

fn from_headers(headers: &HeaderMap) -> Option<Credentials> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let user = text("x-clickhouse-user")?.to_owned();
    let password = text("x-clickhouse-key").unwrap_or_default().to_owned();
    Some(Credentials { user, password })
}

fn from_url(url: &UrlParameters) -> Option<Credentials> {
    let user = url.get("user")?.to_owned();
    Some(Credentials { user, password: url.get("password").unwrap_or_default().to_owned() })
}

fn base64_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for character in text.trim_end_matches('=').bytes() {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded_with_and_without_padding() {
        assert_eq!(base64_decoded("d3JpdGVyOnNlY3JldA==").as_deref(), Some(&b"writer:secret"[..]));
        assert_eq!(base64_decoded("d3JpdGVyOnNlY3JldA").as_deref(), Some(&b"writer:secret"[..]));
        assert_eq!(base64_decoded("YTo"), Some(b"a:".to_vec()));
        assert_eq!(base64_decoded("a*"), None);
    }
}
