//! Why a store did not start.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::library::LIBRARY_VARIABLE;

/// Why a store did not start. None of these goes away by trying again unchanged.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine's library is not installed.
    #[error(
        "libchdb.so was not found: run `npm ci` in the folder store/, \
         or name the library in {LIBRARY_VARIABLE} (looked at: {})",
        list(looked_at)
    )]
    LibraryMissing {
        /// The places that were looked at.
        looked_at: Vec<PathBuf>,
    },
    /// The library exists but cannot be used.
    #[error("{} cannot be loaded as libchdb", path.display())]
    LibraryUnusable {
        /// The library.
        path: PathBuf,
        /// What the loader said.
        #[source]
        source: libloading::Error,
    },
    /// The data folder cannot be prepared.
    #[error("the data folder {} cannot be prepared", path.display())]
    DataFolder {
        /// The file or folder in question.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another store runs in this process.
    #[error("this process already runs a store; the library opens one data folder at a time")]
    AlreadyRunning,
    /// The engine did not start; it wrote the reason to standard error.
    #[error(
        "ClickHouse did not start on {}: the folder is used by another process, \
         or not a ClickHouse data folder (standard error says more)",
        path.display()
    )]
    EngineDidNotStart {
        /// The engine's folder.
        path: PathBuf,
    },
    /// The reader and the writer have one name, so nobody could be told to be which.
    #[error("the writer and the reader are both named {name:?}")]
    SameUser {
        /// The shared name.
        name: String,
    },
    /// Others may reach the address, and a user has no password.
    #[error(
        "others may reach {listen}, and the user {user:?} has no password: give it one, or listen \
         on 127.0.0.1"
    )]
    NoPassword {
        /// The address.
        listen: SocketAddr,
        /// The user.
        user: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_says_what_to_do() {
        let looked_at = vec![PathBuf::from("a/libchdb.so"), PathBuf::from("b/libchdb.so")];
        let text = StoreError::LibraryMissing { looked_at }.to_string();
        assert!(text.contains("`npm ci` in the folder store/"), "{text}");
        assert!(text.contains("CITYCELL_CHDB"), "{text}");
        assert!(text.contains("a/libchdb.so, b/libchdb.so"), "{text}");
    }
}
