//! On which servers the tables are: one, or the replicas of a cluster.
//!
//! A reader may ask any replica and must see an epoch whole or not at all. Replicas take rows from
//! each other whenever they can, so a mark may overtake its rows. Therefore every insert waits until
//! all replicas have it (`insert_quorum`): who has a mark has the rows that were written before it.

use super::sql::identifier;

/// On which servers the tables are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// On the server that the URL names.
    #[default]
    OneServer,
    /// On every server of a cluster.
    Cluster {
        /// The cluster's name in ClickHouse's configuration.
        name: String,
        /// What keeps the servers' tables the same.
        copying: Copying,
    },
}

/// What keeps the same table the same on several servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// Nothing, so that there may be one server only.
    Nothing,
    /// ClickHouse's Replicated engines. Each server's macros `shard` and `replica` say who it is.
    Replicated,
}

/// A cluster on which a read could find less than was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnfitCluster {
    #[error("ClickHouse knows no cluster of this name")]
    Unknown,
    #[error("it has {0} shards, and an engine writes to one: name a cluster of one shard")]
    Shards(u64),
    #[error("it has {0} servers and nothing would copy rows to them: say --clickhouse-replicated")]
    Uncopied(u64),
}

impl Placement {
    /// What follows the name in a statement that makes or changes something; with a space before it.
    #[must_use]
    pub fn on_cluster(&self) -> String {
        match self {
            Self::OneServer => String::new(),
            Self::Cluster { name, .. } => format!(" ON CLUSTER {}", identifier(name)),
        }
    }

    /// The table engine of the `MergeTree` family that `kind` names.
    ///
    /// Its path is the same for a server that joins later, which a path of the table's UUID is not.
    #[must_use]
    pub fn engine(&self, kind: &str) -> String {
        if self.is_replicated() {
            let path = "/clickhouse/tables/{shard}/{database}/{table}";
            format!("Replicated{kind}('{path}', '{{replica}}')")
        } else {
            kind.to_owned()
        }
    }

    /// A statement of `schemas/tables`, which leaves open where it runs and what copies rows.
    #[must_use]
    pub fn fill(&self, template: &str) -> String {
        let engine =
            |sql: String, kind: &str| sql.replace(&format!("{{{kind}}}"), &self.engine(kind));
        // The cluster's name comes last: whatever is in it stays.
        ["MergeTree", "ReplacingMergeTree"]
            .into_iter()
            .fold(template.to_owned(), engine)
            .replace("{on_cluster}", &self.on_cluster())
    }

    /// Whether ClickHouse copies rows from server to server.
    #[must_use]
    pub fn is_replicated(&self) -> bool {
        matches!(self, Self::Cluster { copying: Copying::Replicated, .. })
    }

    /// How many servers must have a row before it is written, on a cluster of so many.
    pub(super) fn quorum(&self, shards: u64, servers: u64) -> Result<u64, UnfitCluster> {
        match (shards, servers) {
            (_, 0) => Err(UnfitCluster::Unknown),
            (2.., _) => Err(UnfitCluster::Shards(shards)),
            (_, 2..) if !self.is_replicated() => Err(UnfitCluster::Uncopied(servers)),
            _ => Ok(servers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(copying: Copying) -> Placement {
        Placement::Cluster { name: "a`b".into(), copying }
    }

    #[test]
    fn a_statement_says_where_it_runs_and_what_copies_rows() {
        let template =
            "CREATE TABLE t{on_cluster} (a UInt8) ENGINE = {ReplacingMergeTree} ORDER BY a";
        for (placement, sql) in [
            (
                Placement::OneServer,
                "CREATE TABLE t (a UInt8) ENGINE = ReplacingMergeTree ORDER BY a",
            ),
            (
                placed(Copying::Nothing),
                "CREATE TABLE t ON CLUSTER `a``b` (a UInt8) ENGINE = ReplacingMergeTree ORDER BY a",
            ),
            (
                placed(Copying::Replicated),
                "CREATE TABLE t ON CLUSTER `a``b` (a UInt8) ENGINE = ReplicatedReplacingMergeTree(\
                 '/clickhouse/tables/{shard}/{database}/{table}', '{replica}') ORDER BY a",
            ),
        ] {
            assert_eq!(placement.fill(template), sql);
        }
    }

    #[test]
    fn all_servers_must_have_a_row() {
        let (bare, replicated) = (placed(Copying::Nothing), placed(Copying::Replicated));
        assert_eq!(replicated.quorum(1, 3), Ok(3));
        assert_eq!(bare.quorum(1, 1), Ok(1));
        assert_eq!(bare.quorum(1, 3), Err(UnfitCluster::Uncopied(3)));
        assert_eq!(replicated.quorum(2, 4), Err(UnfitCluster::Shards(2)));
        assert_eq!(replicated.quorum(0, 0), Err(UnfitCluster::Unknown));
    }
}
