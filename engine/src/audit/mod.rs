//! Do the books balance, over the whole history in ClickHouse?
//!
//! Each check is a query that yields the epochs at fault, in a file of its own. They judge what was
//! marked when the audit began, so they may run beside an engine at work. `bindings` holds the marks
//! against what was bound, and `archive` looks for holes in the records that are kept.

mod archive;
mod bindings;
mod versions;

use rdkafka::error::KafkaError;
use serde::{Deserialize, Serialize};

use crate::{
    clickhouse::{ClickHouse, ClickHouseError},
    kafka::{binding_log::BindingLogError, reader::ReadFailure},
};

pub use versions::AuditedVersion;
use versions::audited;

/// One thing that must hold.
struct Check {
    name: &'static str,
    holds: &'static str,
    sql: &'static str,
    /// What the query looks for, where several checks share one.
    terms: &'static [(&'static str, &'static str)],
    /// Whether it reads the pipeline's table.
    reads_history: bool,
}

const fn check(name: &'static str, holds: &'static str, sql: &'static str) -> Check {
    Check { name, holds, sql, terms: &[], reads_history: false }
}

const SET_ASIDE: &str = include_str!("set_aside.sql");

/// What must hold for every version of every pipeline.
const CHECKS: [Check; 10] = [
    check("books", "every record became exactly one thing", include_str!("books.sql")),
    check(
        "ranges",
        "the offsets of epochs join without gap or overlap",
        include_str!("ranges.sql"),
    ),
    check("lengths", "no epoch has more records than offsets", include_str!("lengths.sql")),
    Check {
        reads_history: true,
        ..check("rows", "every row that a mark counts is there", include_str!("rows.sql"))
    },
    Check {
        reads_history: true,
        ..check("repeats", "a row sent twice is the same row", include_str!("repeats.sql"))
    },
    Check {
        reads_history: true,
        ..check("strays", "no epoch has rows and no mark", include_str!("strays.sql"))
    },
    Check {
        terms: &[("{place}", "rejects"), ("{entry}", "rejected")],
        ..check("rejects", "every rejected record is in rejects", SET_ASIDE)
    },
    Check {
        terms: &[("{place}", "late"), ("{entry}", "diverted")],
        ..check("late", "every diverted record is in late", SET_ASIDE)
    },
    check("marks", "a mark sent twice is the same mark", include_str!("marks.sql")),
    check("times", "no time goes back", include_str!("times.sql")),
];

/// An epoch that does not balance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The pipeline.
    pub pipeline: String,
    /// Its version.
    pub version: String,
    /// The epoch.
    pub epoch: u64,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The check in one word.
    pub check: &'static str,
    /// What holds if nothing was found.
    pub holds: &'static str,
    /// The first epoch at fault.
    pub first: Option<Finding>,
    /// How often something was found; over all versions.
    pub faults: u64,
}

/// Why an audit could not be made; what it finds is no error.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// ClickHouse cannot be reached or refuses.
    #[error(transparent)]
    ClickHouse(#[from] ClickHouseError),
    /// ClickHouse answered otherwise than it was asked to.
    #[error("cannot read ClickHouse's answer of the check {check}")]
    Answer {
        /// The check.
        check: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The log of bindings cannot be read.
    #[error(transparent)]
    Bindings(#[from] BindingLogError),
    /// Kafka's settings are wrong.
    #[error("cannot use Kafka")]
    Kafka(#[from] KafkaError),
    /// Kafka does not say what it has.
    #[error("cannot ask Kafka for a record")]
    Unanswered(#[from] ReadFailure),
    /// The log belongs to other pipelines.
    #[error(
        "the log of bindings of the deployment {deployment} names none of the pipelines in the \
         database: is it the right deployment?"
    )]
    OtherDeployment {
        /// The deployment.
        deployment: String,
    },
}

/// What is audited, as it stands.
pub struct Audit {
    clickhouse: ClickHouse,
    versions: Vec<AuditedVersion>,
}

impl Audit {
    /// Takes what is marked now.
    ///
    /// # Errors
    /// ClickHouse's.
    pub async fn begin(clickhouse: ClickHouse) -> Result<Self, AuditError> {
        let versions = audited(&clickhouse).await?;
        Ok(Self { clickhouse, versions })
    }

    /// What is audited.
    #[must_use]
    pub fn versions(&self) -> &[AuditedVersion] {
        &self.versions
    }

    /// Makes all checks that ClickHouse alone can answer; `judged` hears of each.
    ///
    /// # Errors
    /// ClickHouse's.
    pub async fn check(&self, mut judged: impl FnMut(Outcome)) -> Result<(), AuditError> {
        for check in &CHECKS {
            judged(self.judge(check).await?);
        }
        Ok(())
    }

    async fn judge(&self, check: &Check) -> Result<Outcome, AuditError> {
        let mut outcome = Outcome::good(check.name, check.holds);
        for version in &self.versions {
            let Some(sql) = check.sql(version) else { continue };
            let sql = format!(
                "SELECT toString(epoch) AS epoch, expected, found, \
                 toString(count() OVER ()) AS faults FROM ({sql}) AS faulty \
                 ORDER BY faulty.epoch, found LIMIT 1"
            );
            let answer = self.clickhouse.query(check.name, &sql, "JSONEachRow").await?;
            if answer.is_empty() {
                continue;
            }
            let row: Row = serde_json::from_slice(&answer)
                .map_err(|source| AuditError::Answer { check: check.name, source })?;
            outcome.add(row.finding(version), row.faults.parse().unwrap_or(1));
        }
        Ok(outcome)
    }
}

impl Check {
    /// The query for one version; none if it reads a table that is not there.
    fn sql(&self, version: &AuditedVersion) -> Option<String> {
        let sql = match &version.key {
            Some(_) => self.sql,
            None if self.name == "rows" => include_str!("no_table.sql"),
            None if self.reads_history => return None,
            None => self.sql,
        };
        let sql = self.terms.iter().fold(sql.to_owned(), |sql, (term, by)| sql.replace(term, by));
        Some(version.fill(&sql))
    }
}

impl Outcome {
    fn good(check: &'static str, holds: &'static str) -> Self {
        Self { check, holds, first: None, faults: 0 }
    }

    fn add(&mut self, finding: Finding, faults: u64) {
        self.faults += faults;
        if self.first.as_ref().is_none_or(|first| finding.epoch < first.epoch) {
            self.first = Some(finding);
        }
    }
}

/// A query's answer. Numbers are text, since ClickHouse writes large ones so or not by its version.
#[derive(Deserialize)]
struct Row {
    epoch: String,
    expected: String,
    found: String,
    faults: String,
}

impl Row {
    fn finding(&self, version: &AuditedVersion) -> Finding {
        Finding {
            pipeline: version.pipeline.clone(),
            version: version.version.clone(),
            epoch: self.epoch.parse().unwrap_or_default(),
            expected: self.expected.clone(),
            found: self.found.clone(),
        }
    }
}
