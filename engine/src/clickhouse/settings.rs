//! How to reach ClickHouse, and the few calls that everything else is made of.

use std::fmt;

use bytes::Bytes;
use clickhouse::{Client, Compression};

use super::sql::identifier;
use crate::secret::without_credentials;

/// Where ClickHouse is and who we are there.
#[derive(Clone)]
pub struct ClickHouseSettings {
    /// For example `http://127.0.0.1:8123`.
    pub url: String,
    /// The user.
    pub user: String,
    /// The password; empty for none.
    pub password: String,
    /// The database that holds citycell's tables.
    pub database: String,
}

impl fmt::Debug for ClickHouseSettings {
    /// Leaves out the password, also one within the URL.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = without_credentials(&self.url);
        write!(formatter, "{url} as {} in {}", self.user, self.database)
    }
}

/// What ClickHouse did not do.
#[derive(Debug, thiserror::Error)]
#[error("ClickHouse at {url} failed to {action}")]
pub struct ClickHouseError {
    /// Where it is, without credentials.
    pub url: String,
    /// What we tried.
    pub action: String,
    /// Its answer.
    #[source]
    pub source: clickhouse::error::Error,
}

/// A connection to one database.
#[derive(Clone)]
pub struct ClickHouse {
    client: Client,
    url: String,
    database: String,
}

impl ClickHouse {
    /// A client for these settings; nothing is sent yet.
    #[must_use]
    pub fn new(settings: &ClickHouseSettings) -> Self {
        let client = Client::default()
            .with_url(&settings.url)
            .with_user(&settings.user)
            .with_password(&settings.password)
            .with_compression(Compression::None);
        Self {
            client,
            url: without_credentials(&settings.url),
            database: settings.database.clone(),
        }
    }

    /// Creates the database if it is missing.
    ///
    /// # Errors
    /// When ClickHouse cannot be reached or refuses.
    pub async fn create_database(&self) -> Result<(), ClickHouseError> {
        let sql = format!("CREATE DATABASE IF NOT EXISTS {}", identifier(&self.database));
        self.client.query_raw(&sql).execute().await.map_err(self.failed("create the database"))
    }

    /// Runs a statement without a result.
    ///
    /// # Errors
    /// ClickHouse's, with `action` as what we tried.
    pub async fn execute(&self, action: &str, sql: &str) -> Result<(), ClickHouseError> {
        self.scoped().query_raw(sql).execute().await.map_err(self.failed(action))
    }

    /// Runs a query and returns its result in `format`.
    ///
    /// # Errors
    /// ClickHouse's, with `action` as what we tried.
    pub async fn query(
        &self,
        action: &str,
        sql: &str,
        format: &str,
    ) -> Result<Bytes, ClickHouseError> {
        let cursor = self.scoped().query_raw(sql).fetch_bytes(format);
        let mut cursor = cursor.map_err(self.failed(action))?;
        cursor.collect().await.map_err(self.failed(action))
    }

    /// Runs a query and hands its result in `format` over piece by piece.
    ///
    /// # Errors
    /// ClickHouse's, with `action` as what we tried.
    pub async fn query_each(
        &self,
        action: &str,
        sql: &str,
        format: &str,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), ClickHouseError> {
        let cursor = self.scoped().query_raw(sql).fetch_bytes(format);
        let mut cursor = cursor.map_err(self.failed(action))?;
        while let Some(piece) = cursor.next().await.map_err(self.failed(action))? {
            each(&piece);
        }
        Ok(())
    }

    /// Inserts `data`, an Arrow stream, into `table`.
    ///
    /// # Errors
    /// ClickHouse's.
    pub async fn insert_arrow(&self, table: &str, data: Bytes) -> Result<(), ClickHouseError> {
        self.insert_pieces(table, "ArrowStream", [data]).await
    }

    /// Inserts data in `format`, in pieces, into `table`.
    ///
    /// # Errors
    /// ClickHouse's.
    pub async fn insert_pieces(
        &self,
        table: &str,
        format: &str,
        pieces: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), ClickHouseError> {
        let action = format!("insert into {table}");
        // A stream may reach over any number of months, which are the tables' partitions; by
        // default ClickHouse refuses more than 100 in one insert, and would do so for ever.
        let sql = format!(
            "INSERT INTO {} SETTINGS max_partitions_per_insert_block = 0 FORMAT {format}",
            identifier(table)
        );
        let mut insert = self.scoped().insert_formatted_with(sql);
        for piece in pieces {
            insert.send(piece).await.map_err(self.failed(&action))?;
        }
        insert.end().await.map_err(self.failed(&action))
    }

    fn failed(&self, action: &str) -> impl FnOnce(clickhouse::error::Error) -> ClickHouseError {
        let (url, action) = (self.url.clone(), action.to_owned());
        move |source| ClickHouseError { url, action, source }
    }

    fn scoped(&self) -> Client {
        self.client.clone().with_database(&self.database)
    }
}
