//! Has the archive a hole?
//!
//! Its marks say how many records each epoch had and at which offsets they stood. As many are there,
//! or the first missing one is named. Offsets without a record are no hole: Kafka is asked for them
//! if it can be, and otherwise the count decides.

use crate::{
    clickhouse::{
        ClickHouse,
        archive::{ARCHIVE, kept_for},
        marks::last_marked,
        sql::literal,
    },
    clock::now_ms,
    kafka::{KafkaSettings, probe::RecordProbe},
};

use super::{Audit, AuditError, AuditedVersion, Check, Finding, Outcome, check};

/// What is about to expire is not judged.
const EXPIRING_MS: i64 = 60_000;
/// Holes that are read at once.
const HOLES_MAX: usize = 10_000;

const CHECKS: [Check; 3] = [
    check(
        "ranges",
        "the offsets of epochs join without gap or overlap",
        include_str!("ranges.sql"),
    ),
    check("records", "every record that a mark counts is there", include_str!("rows.sql")),
    check("repeats", "a record sent twice is the same record", include_str!("same_records.sql")),
];

/// A partition of a deployment's archive.
struct Archived<'a> {
    version: &'a AuditedVersion,
    topic: String,
    partition: i32,
}

/// Offsets that marks name and the archive does not have.
#[derive(Clone, Copy)]
struct Hole {
    from_offset: i64,
    next_offset: i64,
}

impl Audit {
    /// Takes what is archived now: one version per deployment, as far back as records are kept.
    ///
    /// # Errors
    /// ClickHouse's, also when there is no archive.
    pub async fn begin_archive(clickhouse: ClickHouse) -> Result<Self, AuditError> {
        let kept_ms = kept_for(&clickhouse).await?.map_or(i64::MAX, |seconds| {
            i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)
        });
        let expired = now_ms().saturating_sub(kept_ms).saturating_add(EXPIRING_MS).max(0);
        let mut versions = Vec::new();
        for ((pipeline, version), last) in last_marked(&clickhouse).await? {
            if pipeline == ARCHIVE {
                let first = first_marked(&clickhouse, &version).await?.max(expired.unsigned_abs());
                let key = Some("topic, partition, record_offset, epoch".to_owned());
                let history = ARCHIVE.to_owned();
                versions.push(AuditedVersion {
                    pipeline,
                    version,
                    first,
                    last: last.0,
                    history,
                    key,
                });
            }
        }
        Ok(Self { clickhouse, versions })
    }

    /// Looks for holes; `judged` hears of each check. Kafka is asked for what is missing if `kafka`
    /// is given.
    ///
    /// # Errors
    /// ClickHouse's and Kafka's.
    pub async fn check_archive(
        &self,
        kafka: Option<&KafkaSettings>,
        mut judged: impl FnMut(Outcome),
    ) -> Result<(), AuditError> {
        let mut incomplete = None;
        for check in &CHECKS {
            let outcome = self.judge(check).await?;
            if check.name == "records" {
                incomplete.clone_from(&outcome.first);
            }
            judged(outcome);
        }
        judged(self.judge_offsets(kafka, incomplete.as_ref()).await?);
        Ok(())
    }

    /// Names the first offset that is missing.
    async fn judge_offsets(
        &self,
        kafka: Option<&KafkaSettings>,
        incomplete: Option<&Finding>,
    ) -> Result<Outcome, AuditError> {
        let mut outcome = Outcome::good("offsets", "every offset that has a record is there");
        if let Some(kafka) = kafka {
            let mut probe = RecordProbe::new(kafka)?;
            for archived in self.archived().await? {
                let Some(offset) = self.first_missing(&archived, &mut probe).await? else {
                    continue;
                };
                let epoch = self.epoch_of(&archived, offset).await?;
                let what = "Kafka has it, the archive does not";
                outcome.add(archived.finding(epoch, &offset.to_string(), what), 1);
            }
        }
        // Kafka may have forgotten what the archive should have kept.
        if let Some(Finding { version, epoch, .. }) = incomplete.filter(|_| outcome.first.is_none())
        {
            let mut versions = self.versions.clone();
            versions.retain(|other| other.version == *version);
            versions.iter_mut().for_each(|other| (other.first, other.last) = (*epoch, *epoch));
            let of_epoch = Self { clickhouse: self.clickhouse.clone(), versions };
            for archived in of_epoch.archived().await? {
                if let Some(hole) = of_epoch.holes(&archived, i64::MIN).await?.first() {
                    let offsets = format!("{}..{}", hole.from_offset, hole.next_offset);
                    outcome.add(archived.finding(*epoch, &offsets, "none of these is there"), 1);
                }
            }
        }
        Ok(outcome)
    }

    /// The first offset that Kafka has and the archive does not.
    async fn first_missing(
        &self,
        archived: &Archived<'_>,
        probe: &mut RecordProbe,
    ) -> Result<Option<i64>, AuditError> {
        let mut from_offset = i64::MIN;
        loop {
            let holes = self.holes(archived, from_offset).await?;
            for Hole { from_offset, next_offset } in &holes {
                let offsets = *from_offset..*next_offset;
                let found = tokio::task::block_in_place(|| {
                    probe.first_record(&archived.topic, archived.partition, offsets)
                })?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            match holes.last() {
                Some(last) if holes.len() == HOLES_MAX => from_offset = last.next_offset,
                _ => return Ok(None),
            }
        }
    }

    async fn archived(&self) -> Result<Vec<Archived<'_>>, AuditError> {
        let mut all = Vec::new();
        for version in &self.versions {
            let sql = format!(
                "SELECT DISTINCT range.1, range.2 FROM \
                 (SELECT arrayJoin(ranges) AS range FROM epochs WHERE {}) ORDER BY ALL",
                version.marks()
            );
            let answer = self.clickhouse.query("read the partitions", &sql, "TabSeparated").await?;
            for line in String::from_utf8_lossy(&answer).lines() {
                let partition = line.split_once('\t');
                let partition =
                    partition.and_then(|(topic, number)| Some((topic, number.parse().ok()?)));
                if let Some((topic, partition)) = partition {
                    all.push(Archived { version, topic: topic.to_owned(), partition });
                }
            }
        }
        Ok(all)
    }

    async fn holes(
        &self,
        archived: &Archived<'_>,
        from_offset: i64,
    ) -> Result<Vec<Hole>, AuditError> {
        let sql = include_str!("offsets.sql")
            .replace("{topic}", &literal(&archived.topic))
            .replace("{partition}", &archived.partition.to_string())
            .replace("{from_offset}", &from_offset.to_string())
            .replace("{holes_max}", &HOLES_MAX.to_string());
        let sql = archived.version.fill(&sql);
        let answer = self.clickhouse.query("look for holes", &sql, "TabSeparated").await?;
        let hole = |line: &str| {
            let (from_offset, next_offset) = line.split_once('\t')?;
            Some(Hole {
                from_offset: from_offset.parse().ok()?,
                next_offset: next_offset.parse().ok()?,
            })
        };
        Ok(String::from_utf8_lossy(&answer).lines().filter_map(hole).collect())
    }

    /// The epoch that holds this offset; the last one before it if none does.
    async fn epoch_of(&self, archived: &Archived<'_>, offset: i64) -> Result<u64, AuditError> {
        let sql = format!(
            "SELECT max(epoch) FROM epochs WHERE {} AND arrayExists(range -> \
             range.1 = {} AND range.2 = {} AND range.3 <= {offset}, ranges)",
            archived.version.marks(),
            literal(&archived.topic),
            archived.partition,
        );
        let answer = self.clickhouse.query("find the epoch", &sql, "TabSeparated").await?;
        Ok(String::from_utf8_lossy(&answer).trim().parse().unwrap_or_default())
    }
}

impl Archived<'_> {
    fn finding(&self, epoch: u64, offsets: &str, found: &str) -> Finding {
        Finding {
            pipeline: self.version.pipeline.clone(),
            version: self.version.version.clone(),
            epoch,
            expected: format!("{}/{} offset {offsets}", self.topic, self.partition),
            found: found.to_owned(),
        }
    }
}

async fn first_marked(clickhouse: &ClickHouse, deployment: &str) -> Result<u64, AuditError> {
    let sql = format!(
        "SELECT min(epoch) FROM epochs WHERE pipeline = {} AND version = {}",
        literal(ARCHIVE),
        literal(deployment)
    );
    let answer = clickhouse.query("read the first mark", &sql, "TabSeparated").await?;
    Ok(String::from_utf8_lossy(&answer).trim().parse().unwrap_or_default())
}
