//! Settings as text: `key=value`, a line of a file or an argument of the command line.
//!
//! Whoever may list processes reads their command lines, so an argument may hold no secret; and no
//! error here repeats what was written, since that may be one.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Settings that cannot be taken: their author's to correct.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the Kafka settings in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A line without an equals sign.
    #[error("{}:{line}: expected key=value", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
    /// An argument without an equals sign.
    #[error("--kafka takes key=value, for example security.protocol=SASL_SSL")]
    Argument,
    /// A secret on the command line.
    #[error(
        "--kafka {key}=... would show a secret to everyone who may list processes: write the line \
         {key}=... into a file and name it with --kafka-settings"
    )]
    Secret {
        /// The setting.
        key: String,
    },
}

/// The settings in a file, one a line; empty lines and those that begin with `#` say nothing.
///
/// # Errors
/// A file that cannot be read, or a line that is no setting.
pub fn read(path: &Path) -> Result<Vec<(String, String)>, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    let said = (1..).zip(text.lines()).map(|(number, line)| (number, line.trim()));
    let said = said.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    said.map(|(line, text)| {
        pair(text).ok_or_else(|| SettingsError::Line { path: path.to_owned(), line })
    })
    .collect()
}

/// The setting in an argument of the command line.
///
/// # Errors
/// One that is no setting, or a secret.
pub fn from_argument(text: &str) -> Result<(String, String), SettingsError> {
    let (key, value) = pair(text).ok_or(SettingsError::Argument)?;
    if is_secret(&key) { Err(SettingsError::Secret { key }) } else { Ok((key, value)) }
}

/// Whether a setting of this name holds a password or a key, or may hold one among other things.
pub(super) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "passphrase", "secret", "key.pem"].iter().any(|word| key.contains(word))
        || key == "sasl.oauthbearer.config"
}

fn pair(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    Some((key.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_from_files_and_not_from_arguments() {
        for key in [
            "sasl.password",
            "SASL.Password",
            "ssl.key.password",
            "ssl.key.pem",
            "ssl.keystore.password",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.client.credentials.client.secret",
            "sasl.oauthbearer.assertion.private.key.pem",
            "sasl.oauthbearer.assertion.private.key.passphrase",
        ] {
            let error = from_argument(&format!("{key}=hunter2")).expect_err("a secret");
            let text = error.to_string();
            assert!(text.contains(key) && text.contains("--kafka-settings"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        for key in ["sasl.username", "ssl.ca.location", "ssl.key.location", "sasl.mechanism"] {
            let (_, value) = from_argument(&format!("{key} = a=b ")).expect("no secret");
            assert_eq!(value, "a=b");
        }
        assert!(matches!(from_argument("hunter2"), Err(SettingsError::Argument)));
    }

    #[test]
    fn a_file_says_where_it_is_wrong_and_not_what_stands_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kafka.settings");
        std::fs::write(&path, "# the user\n\n sasl.password = a=b \n").expect("written");
        let settings = read(&path).expect("good");
        assert_eq!(settings, [("sasl.password".to_owned(), "a=b".to_owned())]);

        std::fs::write(&path, "sasl.username=u\nhunter2\n").expect("written");
        let text = read(&path).expect_err("no setting").to_string();
        assert!(text.ends_with("kafka.settings:2: expected key=value"), "{text}");
    }
}
