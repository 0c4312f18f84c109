//! How to reach ClickHouse, and the few calls that everything else is made of.

use std::{error::Error, fmt, io};

use bytes::Bytes;
use clickhouse::{Client, Compression};

use super::{
    placement::Placement,
    sql::{identifier, literal},
    tls::Tls,
};
use crate::secret::without_credentials;

/// Where ClickHouse is and who we are there.
#[derive(Clone)]
pub struct ClickHouseSettings {
    /// For example `http://127.0.0.1:8123`, or `https://` with [`Self::tls`].
    pub url: String,
    /// The user.
    pub user: String,
    /// The password; empty for none.
    pub password: String,
    /// The database that holds citycell's tables.
    pub database: String,
    /// How TLS is spoken; none for plain HTTP.
    pub tls: Option<Tls>,
    /// On which servers the tables are.
    pub placement: Placement,
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
#[error("ClickHouse at {url} failed to {action}{hint}")]
pub struct ClickHouseError {
    /// Where it is, without credentials.
    pub url: String,
    /// What we tried.
    pub action: String,
    /// What may be wrong, in parentheses after a space; empty if the source says it.
    pub hint: &'static str,
    /// Its answer.
    #[source]
    pub source: clickhouse::error::Error,
}

impl ClickHouseError {
    /// With a guess at what is wrong if one side speaks TLS and the other does not: both only see
    /// bytes that make no sense, or none. For a first call; later on such a thing is an outage.
    fn with_hint(self) -> Self {
        let mut next: Option<&(dyn Error + 'static)> = Some(&self.source);
        let mut hint = "";
        while let Some(error) = next {
            let http = error.downcast_ref::<hyper::Error>();
            if self.url.starts_with("http:")
                && http.is_some_and(|error| error.is_parse() || error.is_incomplete_message())
            {
                hint = " (if it speaks TLS there, the address begins with https://)";
            }
            if let Some(rustls::Error::InvalidMessage(_)) = error.downcast_ref() {
                hint = " (if it speaks no TLS there, the address begins with http://)";
            }
            // What an I/O error wraps is not its source.
            next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(within) => Some(within),
                None => error.source(),
            };
        }
        Self { hint, ..self }
    }
}

/// A connection to one database.
#[derive(Clone)]
pub struct ClickHouse {
    client: Client,
    url: String,
    database: String,
    placement: Placement,
}

impl ClickHouse {
    /// A client for these settings; nothing is sent yet.
    #[must_use]
    pub fn new(settings: &ClickHouseSettings) -> Self {
        let client = settings
            .tls
            .as_ref()
            .map_or_else(Client::default, Tls::client)
            .with_url(&settings.url)
            .with_user(&settings.user)
            .with_password(&settings.password)
            .with_compression(Compression::None);
        Self {
            client,
            url: without_credentials(&settings.url),
            database: settings.database.clone(),
            placement: settings.placement.clone(),
        }
    }

    /// A client for writing: what ClickHouse acknowledges is on all servers that readers may ask.
    ///
    /// # Errors
    /// ClickHouse's, also when a reader could find less than was written on the cluster.
    pub async fn for_writing(settings: &ClickHouseSettings) -> Result<Self, ClickHouseError> {
        let mut clickhouse = Self::new(settings);
        if let Placement::Cluster { name, .. } = &settings.placement {
            let servers = clickhouse.servers_of(name).await?;
            clickhouse.client =
                clickhouse.client.with_setting("insert_quorum", servers.to_string());
        }
        Ok(clickhouse)
    }

    /// How many servers a cluster has that is fit for us.
    async fn servers_of(&self, cluster: &str) -> Result<u64, ClickHouseError> {
        let action = format!("use the cluster {cluster}");
        let sql = format!(
            "SELECT uniqExact(shard_num), count() FROM system.clusters WHERE cluster = {}",
            literal(cluster)
        );
        // Without a database: there may be none yet.
        let answer = self.client.query_raw(&sql).fetch_bytes("TabSeparated");
        let mut answer = answer.map_err(self.failed(&action))?;
        let answer = answer.collect().await.map_err(self.failed(&action));
        let answer = answer.map_err(ClickHouseError::with_hint)?;
        let text = String::from_utf8_lossy(&answer);
        let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap_or(0));
        let (shards, servers) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let unfit = |error| clickhouse::error::Error::Other(Box::new(error));
        self.placement.quorum(shards, servers).map_err(unfit).map_err(self.failed(&action))
    }

    /// On which servers the tables are.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Creates the database if it is missing.
    ///
    /// # Errors
    /// When ClickHouse cannot be reached or refuses.
    pub async fn create_database(&self) -> Result<(), ClickHouseError> {
        let sql = format!(
            "CREATE DATABASE IF NOT EXISTS {}{}",
            identifier(&self.database),
            self.placement.on_cluster()
        );
        let done = self.client.query_raw(&sql).execute().await;
        done.map_err(self.failed("create the database")).map_err(ClickHouseError::with_hint)
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

    /// An answer that is not what was asked for.
    pub(super) fn unreadable(
        &self,
        action: &str,
        reason: impl std::error::Error + Send + Sync + 'static,
    ) -> ClickHouseError {
        self.failed(action)(clickhouse::error::Error::Other(Box::new(reason)))
    }

    fn failed(&self, action: &str) -> impl FnOnce(clickhouse::error::Error) -> ClickHouseError {
        let (url, action) = (self.url.clone(), action.to_owned());
        move |source| ClickHouseError { url, action, hint: "", source }
    }

    fn scoped(&self) -> Client {
        self.client.clone().with_database(&self.database)
    }
}
