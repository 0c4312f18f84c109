//! What the engine's own user may do: the outer wall around both users of a store.

/// The engine's grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants(Vec<String>);

/// Text that holds no grants: its author's to correct.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no GRANT statement")]
pub struct NoGrants;

/// All that works inside the data folder.
const INSIDE: &str = "GRANT SHOW, SELECT, INSERT, ALTER, CREATE DATABASE, CREATE TABLE, CREATE VIEW, \
    CREATE DICTIONARY, CREATE TEMPORARY TABLE, DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE, CHECK, \
    KILL QUERY, dictGet, SYSTEM MERGES, SYSTEM RELOAD DICTIONARY, SYSTEM FLUSH ON *.*";

const TABLE_ENGINES: [&str; 12] = [
    "MergeTree",
    "ReplacingMergeTree",
    "SummingMergeTree",
    "AggregatingMergeTree",
    "CollapsingMergeTree",
    "VersionedCollapsingMergeTree",
    "Memory",
    "Null",
    "Log",
    "TinyLog",
    "Merge",
    "Dictionary",
];

/// By which a statement ends whose client has gone away.
const KILL: &str = "GRANT KILL QUERY ON *.*";

impl Default for Grants {
    /// Everything that touches nothing outside the data folder.
    fn default() -> Self {
        let engines = TABLE_ENGINES.iter().map(|engine| format!("GRANT TABLE ENGINE ON {engine}"));
        Self([INSIDE.to_owned()].into_iter().chain(engines).collect())
    }
}

impl Grants {
    /// The grants among the statements of an SQL file, each ended by a semicolon, whomever they are
    /// for; what else the file does is left to whom it is for.
    ///
    /// # Errors
    /// When there is no grant.
    pub fn parse(sql: &str) -> Result<Self, NoGrants> {
        let lines = sql.lines().filter(|line| !line.trim_start().starts_with("--"));
        let sql = lines.collect::<Vec<_>>().join("\n");
        let statements = sql.split(';').map(str::trim);
        let grants = statements.filter(|statement| statement.starts_with("GRANT "));
        // A users file names the user elsewhere.
        let grants = grants.map(|grant| grant.split(" TO ").next().unwrap_or(grant).to_owned());
        let mut grants: Vec<String> = grants.collect();
        if grants.is_empty() {
            return Err(NoGrants);
        }
        grants.push(KILL.to_owned());
        Ok(Self(grants))
    }

    /// The statements as a users file has them, without a user.
    pub(crate) fn statements(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_an_administrator_is_read() {
        let sql = "-- GRANT ALL ON *.*;\nCREATE ROLE r;\nGRANT SELECT ON city.* TO r;\n\
                   GRANT TABLE ENGINE ON MergeTree TO r;\n";
        let expected = ["GRANT SELECT ON city.*", "GRANT TABLE ENGINE ON MergeTree", KILL];
        assert_eq!(Grants::parse(sql).expect("grants").statements(), expected);
        assert_eq!(Grants::parse("SELECT 1;"), Err(NoGrants));
    }
}
