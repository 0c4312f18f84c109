//! Passwords and tokens: read from a file or the environment, never from the command line, and
//! never shown.
//!
//! Whoever may list processes reads their command lines. A file is read by those whom its mode lets,
//! and the environment by the same user.

use std::{
    env::{self, VarError},
    fmt, io,
    path::{Path, PathBuf},
};

/// A password or a token. It has no `Display`, and its `Debug` says nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

/// A secret that cannot be read: its operators' to correct.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file says nothing.
    #[error("{} holds no secret: it is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The variable is no text.
    #[error("the environment variable {0} is not valid UTF-8")]
    NotText(&'static str),
}

impl Secret {
    /// A secret that is known already.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The first line of `file`, or what the environment variable says where no file is named. An
    /// empty variable is none.
    ///
    /// # Errors
    /// A file that cannot be read or is empty, a variable that is no text.
    pub fn read(file: Option<&Path>, variable: &'static str) -> Result<Option<Self>, SecretError> {
        match file {
            Some(path) => Self::of_file(path).map(Some),
            None => match env::var(variable) {
                Ok(text) => Ok((!text.is_empty()).then_some(Self(text))),
                Err(VarError::NotPresent) => Ok(None),
                Err(VarError::NotUnicode(_)) => Err(SecretError::NotText(variable)),
            },
        }
    }

    /// The secret itself, for whoever must be told it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn of_file(path: &Path) -> Result<Self, SecretError> {
        let path = path.to_owned();
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|source| SecretError::Read { path: path.clone(), source })?;
        match text.lines().next() {
            Some(line) if !line.is_empty() => Ok(Self(line.to_owned())),
            _ => Err(SecretError::Empty { path }),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(hidden)")
    }
}

/// A URL as errors and logs may show it: what stands before the host and after the path is left
/// out. It errs towards leaving out, so that no odd character in a password shows the rest of it.
#[must_use]
pub fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.rsplit('@').next().unwrap_or_default();
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") }
}

/// Whether a URL may hold credentials: a user before its host, or parameters.
#[must_use]
pub fn has_credentials(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    authority.contains('@') || rest.contains(['?', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_line_and_is_not_empty() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        std::fs::write(&path, "open sesame\r\n").expect("written");
        let secret = Secret::read(Some(&path), "CITYCELL_UNSET").expect("good");
        assert_eq!(secret, Some(Secret::new("open sesame")));
        assert_eq!(format!("{secret:?}"), "Some(Secret(hidden))");

        std::fs::write(&path, "\nopen sesame").expect("written");
        let empty = Secret::read(Some(&path), "CITYCELL_UNSET");
        assert!(matches!(empty, Err(SecretError::Empty { .. })));
        let missing = Secret::read(Some(&folder.path().join("no")), "CITYCELL_UNSET");
        assert!(matches!(missing, Err(SecretError::Read { .. })));
        assert_eq!(Secret::read(None, "CITYCELL_UNSET").expect("none"), None);
    }

    #[test]
    fn a_url_is_shown_without_credentials() {
        for (url, shown) in [
            ("http://clickhouse:8123", "http://clickhouse:8123"),
            ("http://user:pass@clickhouse:8123/x", "http://clickhouse:8123/x"),
            ("http://clickhouse/?user=u&password=pass", "http://clickhouse/"),
            ("s3://KEY:pa/s+s@bucket/folder", "s3://bucket/folder"),
            ("http://user:p?a@s#s@host/", "http://host/"),
            ("user:pass@host", "host"),
        ] {
            assert_eq!(without_credentials(url), shown);
            assert!(!url.contains("pass") || has_credentials(url), "{url}");
        }
        for url in ["http://clickhouse:8123/x", "s3://bucket/mail@home", "file:///tmp/a"] {
            assert!(!has_credentials(url), "{url}");
        }
    }
}
