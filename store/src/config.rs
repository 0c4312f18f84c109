//! What a store needs to know to start.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

/// Where a store listens, where its data lies and who may use it.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The address to serve ClickHouse's HTTP interface on; port 0 takes a free one. If it is no
    /// loopback address, both users must have passwords.
    pub listen: SocketAddr,
    /// The folder of the data; created if missing. One process at a time may use it.
    pub data: PathBuf,
    /// The user who may create, write and read.
    pub writer: User,
    /// The user who may only read.
    pub reader: User,
}

/// A name and the password that proves it.
#[derive(Clone, Debug)]
pub struct User {
    /// The name, as sent in `X-ClickHouse-User`, Basic authentication or `?user=`.
    pub name: String,
    /// The password; empty means that none is asked for.
    pub password: Password,
}

impl User {
    /// Whether everyone may be this user.
    pub(crate) fn is_open(&self) -> bool {
        self.password.matches("")
    }
}

/// A password, kept as its SHA-256 only, so that it cannot be printed or logged.
#[derive(Clone)]
pub struct Password([u8; 32]);

impl Password {
    /// The password that `text` is.
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Whether `text` is this password, in a time that does not depend on where they differ.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let other = Self::new(text);
        let differing = self.0.iter().zip(other.0).fold(0, |all, (a, b)| all | (a ^ b));
        differing == 0
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_itself_only_and_is_never_printed() {
        let password = Password::new("open sesame");
        assert!(password.matches("open sesame"));
        assert!(!password.matches("open sesam"));
        assert!(!password.matches(""));
        let user = |password: &str| User { name: "writer".into(), password: password.into() };
        assert!(user("").is_open() && !user("open sesame").is_open());
        assert_eq!(format!("{password:?}"), "Password(hidden)");
    }
}
