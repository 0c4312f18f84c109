//! Marks against the log of bindings: what was bound is marked, as it was bound.
//!
//! Reads the log once, a slice of epochs at a time, so that a long history needs little memory.

use std::collections::{BTreeMap, BTreeSet};

use citycell_schemas::EventTime;
use serde::Deserialize;

use crate::{
    binding::Binding,
    clickhouse::{ClickHouse, archive::ARCHIVE, sql::literal},
    kafka::{
        KafkaSettings,
        binding_log::{BindingReader, read_beside},
    },
};

use super::{Audit, AuditError, AuditedVersion, Finding, Outcome};

const NAME: &str = "bindings";
/// Bindings that are held against marks at once.
const SLICE: usize = 10_000;

/// What one version is compared by.
struct Compared<'a> {
    version: &'a AuditedVersion,
    topics: BTreeSet<String>,
    outcome: Outcome,
}

impl Audit {
    /// Whether every epoch that was bound up to a version's last mark is marked, with the same
    /// ranges, watermark and bound time, and no other epoch is.
    ///
    /// # Errors
    /// ClickHouse's and Kafka's; [`AuditError::OtherDeployment`] when the log knows none of the
    /// pipelines.
    pub async fn check_bindings(
        &self,
        kafka: &KafkaSettings,
        deployment: &str,
    ) -> Result<Outcome, AuditError> {
        let mut compared = Vec::new();
        for version in self.versions() {
            let topics = topics(&self.clickhouse, version).await?;
            compared.push(Compared { version, topics, outcome: good() });
        }
        let names: BTreeSet<String> =
            compared.iter().flat_map(|compared| compared.topics.clone()).collect();
        let names: Vec<String> = names.into_iter().collect();
        let mut log = read_beside(kafka, deployment, names.clone())?;
        let mut pipelines = BTreeSet::new();
        let mut after = 0;
        loop {
            let bindings = tokio::task::block_in_place(|| slice(&mut log))?;
            let until = bindings.last().map(|binding| binding.epoch.0);
            pipelines.extend(bindings.iter().flat_map(|binding| binding.versions.keys().cloned()));
            for compared in &mut compared {
                let epochs = (after, until.unwrap_or(u64::MAX).min(compared.version.last));
                let marked = marked(&self.clickhouse, compared.version, epochs).await?;
                compared.compare(&bindings, &names, &marked);
            }
            let Some(until) = until else { break };
            after = until;
        }
        // Another deployment may write into the same database.
        compared.retain(|compared| {
            let AuditedVersion { pipeline, version, .. } = compared.version;
            pipelines.contains(pipeline) || (pipeline == ARCHIVE && version == deployment)
        });
        if compared.is_empty() && !self.versions().is_empty() {
            return Err(AuditError::OtherDeployment { deployment: deployment.to_owned() });
        }
        let mut outcome = good();
        for compared in compared {
            if let Some(first) = compared.outcome.first {
                outcome.add(first, compared.outcome.faults);
            }
        }
        Ok(outcome)
    }
}

fn good() -> Outcome {
    Outcome::good(NAME, "what was bound is marked as it was bound")
}

fn slice(log: &mut BindingReader) -> Result<Vec<Binding>, AuditError> {
    let bindings = log.by_ref().take(SLICE).map(|logged| Ok(logged?.binding));
    bindings.collect()
}

impl Compared<'_> {
    fn compare(&mut self, bindings: &[Binding], names: &[String], marked: &BTreeMap<u64, String>) {
        let mut bound = BTreeSet::new();
        for binding in bindings.iter().filter(|binding| self.version.judges(binding.epoch.0)) {
            let epoch = binding.epoch.0;
            bound.insert(epoch);
            let expected = self.as_bound(binding, names);
            match marked.get(&epoch) {
                Some(found) if *found == expected => {}
                Some(found) => self.fault(epoch, format!("bound: {expected}"), found.clone()),
                None => self.fault(epoch, format!("bound: {expected}"), "no mark".to_owned()),
            }
        }
        for (epoch, found) in marked.iter().filter(|(epoch, _)| !bound.contains(epoch)) {
            self.fault(
                *epoch,
                "no mark of an epoch that was never bound".to_owned(),
                found.clone(),
            );
        }
    }

    fn fault(&mut self, epoch: u64, expected: String, found: String) {
        let (pipeline, version) = (self.version.pipeline.clone(), self.version.version.clone());
        self.outcome.add(Finding { pipeline, version, epoch, expected, found }, 1);
    }

    /// What the version's mark should say.
    fn as_bound(&self, binding: &Binding, names: &[String]) -> String {
        let ranges = binding.partitions.iter().filter_map(|(partition, range)| {
            let topic = &names[usize::from(partition.topic)];
            let wanted = range.next_offset > range.from_offset && self.topics.contains(topic);
            let (from, next) = (range.from_offset, range.next_offset);
            wanted.then(|| format!("{topic}/{} {from}..{next}", partition.partition))
        });
        let skipped = binding.partitions.iter().filter_map(|(partition, range)| {
            let (from, next) = (range.skipped_from?, range.from_offset);
            let topic = &names[usize::from(partition.topic)];
            let name = || format!("{topic}/{} {from}..{next}", partition.partition);
            self.topics.contains(topic).then(name)
        });
        let mut skipped: Vec<String> = skipped.collect();
        skipped.sort_unstable();
        let watermark = binding.watermarks.get(&self.version.pipeline).copied();
        let watermark = watermark.filter(|time| *time > EventTime::MIN);
        let mark = MarkRow {
            epoch_text: String::new(),
            watermark_ms: watermark.map(|time| time.0.to_string()),
            bound_time_ms: binding.bound_time_ms.max(0).to_string(),
            joined: ranges.collect(),
            skipped,
        };
        mark.to_text()
    }
}

/// A mark as far as its binding decides it.
#[derive(Deserialize)]
struct MarkRow {
    epoch_text: String,
    watermark_ms: Option<String>,
    bound_time_ms: String,
    joined: Vec<String>,
    skipped: Vec<String>,
}

impl MarkRow {
    fn to_text(&self) -> String {
        let watermark = self.watermark_ms.as_deref().unwrap_or("unknown");
        let ranges =
            if self.joined.is_empty() { "no records".into() } else { self.joined.join(", ") };
        let skipped = match self.skipped.as_slice() {
            [] => String::new(),
            all => format!(", skipped {}", all.join(", ")),
        };
        format!("{ranges}{skipped}; watermark {watermark}, bound time {} ms", self.bound_time_ms)
    }
}

/// The topics that a version reads: what its plan says if it was ever served, and what its marks do.
async fn topics(
    clickhouse: &ClickHouse,
    version: &AuditedVersion,
) -> Result<BTreeSet<String>, AuditError> {
    let (name, hash) = (literal(&version.pipeline), literal(&version.version));
    let sql = format!(
        "SELECT DISTINCT topic FROM (\
         SELECT arrayJoin(JSONExtract(plan, 'topics', 'Array(String)')) AS topic FROM versions \
         WHERE pipeline = {name} AND version = {hash} \
         UNION ALL SELECT DISTINCT arrayJoin(ranges).1 FROM epochs WHERE {})",
        version.marks()
    );
    let answer = clickhouse.query("read the topics", &sql, "TabSeparated").await?;
    Ok(String::from_utf8_lossy(&answer).lines().map(str::to_owned).collect())
}

/// What the marks after the first and up to the second of these epochs say.
async fn marked(
    clickhouse: &ClickHouse,
    version: &AuditedVersion,
    (after, until): (u64, u64),
) -> Result<BTreeMap<u64, String>, AuditError> {
    let sql = format!(
        "SELECT DISTINCT toString(epochs.epoch) AS epoch_text, \
         toString(toUnixTimestamp64Milli(watermark)) AS watermark_ms, \
         toString(toUnixTimestamp64Milli(bound_time)) AS bound_time_ms, \
         arrayMap(range -> concat(range.1, '/', toString(range.2), ' ', toString(range.3), '..', \
         toString(range.4)), arraySort(epochs.ranges)) AS joined, \
         arraySort(gaps.skipped_ranges) AS skipped \
         FROM epochs LEFT ANY JOIN (SELECT epoch, groupUniqArray(concat(topic, '/', \
         toString(partition), ' ', toString(from_offset), '..', toString(next_offset))) \
         AS skipped_ranges FROM skipped WHERE {marks} GROUP BY epoch) AS gaps USING (epoch) \
         WHERE {marks} AND epoch > {after} AND epoch <= {until}",
        marks = version.marks()
    );
    let answer = clickhouse.query("read the marks", &sql, "JSONEachRow").await?;
    let mut marked = BTreeMap::new();
    for line in answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let row: MarkRow = serde_json::from_slice(line)
            .map_err(|source| AuditError::Answer { check: NAME, source })?;
        marked.insert(row.epoch_text.parse().unwrap_or_default(), row.to_text());
    }
    Ok(marked)
}
