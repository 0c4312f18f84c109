//! ClickHouse's errors: a code, a text that starts with it, and the HTTP status that goes with it.

use axum::http::StatusCode;

/// An error as ClickHouse words it: `Code: 60. DB::Exception: ... (UNKNOWN_TABLE)`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Exception {
    pub(crate) code: u32,
    message: String,
}

impl Exception {
    /// An error of the engine, from its text. The engine repeats its own prefix when an error
    /// crosses its layers; it is said once here.
    pub(crate) fn from_engine(text: &str) -> Self {
        let mut message = text.trim();
        while let Some(inner) =
            code_of(message).and_then(|(_, rest)| rest.find("Code: ").map(|at| &rest[at..]))
            && message.len() - inner.len() < PREFIX_LENGTH_MAX
        {
            message = inner;
        }
        let code = code_of(message).map_or(INTERNAL, |(code, _)| code);
        Self { code, message: message.to_owned() }
    }

    /// An error of the store itself, worded like the engine's.
    pub(crate) fn new(code: u32, name: &str, text: &str) -> Self {
        Self { code, message: format!("Code: {code}. DB::Exception: {text}. ({name})") }
    }

    /// What should not happen.
    pub(crate) fn internal(text: &str) -> Self {
        Self::new(INTERNAL, "LOGICAL_ERROR", text)
    }

    /// What this user may not do.
    pub(crate) fn denied(text: &str) -> Self {
        Self::new(497, "ACCESS_DENIED", text)
    }

    /// What ClickHouse can do and this store does not.
    pub(crate) fn unsupported(text: &str) -> Self {
        Self::new(48, "NOT_IMPLEMENTED", text)
    }

    /// A request that cannot be understood.
    pub(crate) fn bad_request(text: &str) -> Self {
        Self::new(36, "BAD_ARGUMENTS", text)
    }

    /// The HTTP status that ClickHouse answers this code with.
    pub(crate) fn status(&self) -> StatusCode {
        match self.code {
            194 => StatusCode::UNAUTHORIZED,
            192 | 193 | 497 | 512 | 516 => StatusCode::FORBIDDEN,
            6 | 8 | 15 | 25 | 26 | 27 | 36 | 37 | 38 | 41 | 44 | 53 | 62 | 72 | 117 | 123 | 167
            | 168 | 223 | 321 | 376 | 427 | 441 | 675 | 676 => StatusCode::BAD_REQUEST,
            46 | 47 | 50 | 56 | 60 | 63 | 73 | 78 | 81 | 115 | 152 | 336 | 511 => {
                StatusCode::NOT_FOUND
            }
            159 => StatusCode::REQUEST_TIMEOUT,
            381 => StatusCode::LENGTH_REQUIRED,
            229 => StatusCode::PAYLOAD_TOO_LARGE,
            779 => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            48 => StatusCode::NOT_IMPLEMENTED,
            76 | 209 | 439 => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

const INTERNAL: u32 = 49;
/// `Code: 164. DB::Exception: ` and a little more: what comes later is the text itself.
const PREFIX_LENGTH_MAX: usize = 32;

fn code_of(message: &str) -> Option<(u32, &str)> {
    let rest = message.strip_prefix("Code: ")?;
    let (digits, rest) = rest.split_once('.')?;
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_prefix_is_said_once() {
        let twice = "Code: 164. DB::Exception: Code: 164. DB::Exception: Cannot modify. (READONLY)";
        let exception = Exception::from_engine(twice);
        assert_eq!(exception.code, 164);
        assert_eq!(exception.to_string(), "Code: 164. DB::Exception: Cannot modify. (READONLY)");
    }

    #[test]
    fn a_code_inside_the_text_is_left_alone() {
        let text = "Code: 60. DB::Exception: Unknown table 'a table with Code: 7. in its name'";
        let exception = Exception::from_engine(text);
        assert_eq!((exception.code, exception.to_string().as_str()), (60, text));
    }

    #[test]
    fn an_unworded_error_is_an_internal_one() {
        let exception = Exception::from_engine("std::bad_alloc");
        assert_eq!((exception.code, exception.status()), (49, StatusCode::INTERNAL_SERVER_ERROR));
    }
}
