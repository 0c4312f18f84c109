//! The ClickHouse tables that all pipelines share, and the view of the city's moment.
//!
//! The statements leave two things open, for one server or several: where they run (`{on_cluster}`) and
//! which engine of the family a table has (`{MergeTree}`, `{ReplacingMergeTree}`).

/// Each shared table's name and its `CREATE TABLE IF NOT EXISTS`.
pub const SHARED: [(&str, &str); 7] = [
    ("epochs", include_str!("../tables/epochs.sql")),
    ("moments", include_str!("../tables/moments.sql")),
    ("rejects", include_str!("../tables/rejects.sql")),
    ("late", include_str!("../tables/late.sql")),
    ("skipped", include_str!("../tables/skipped.sql")),
    ("versions", include_str!("../tables/versions.sql")),
    ("cells", include_str!("../tables/cells.sql")),
];

/// The table of the records as Kafka delivered them, made only if they are kept;
/// `{keep_seconds}` says how long.
pub const ARCHIVE: (&str, &str) = ("archive", include_str!("../tables/archive.sql"));

/// The view of the moment at which the city is shown.
pub const MOMENT: &str = include_str!("../tables/city_moment.sql");
