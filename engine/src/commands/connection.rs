//! Where Kafka, ClickHouse and keys are: what commands that talk to them share.

use std::{collections::BTreeMap, error::Error, path::PathBuf};

use clap::Args;

use crate::{
    clickhouse::{
        ClickHouseSettings,
        placement::{Copying, Placement},
        tls::{Tls, TlsFiles},
    },
    kafka::{KafkaSettings, settings_file},
    personal::{KeySettings, Keys, KeysError, MasterKey},
    secret::{Secret, has_credentials, without_credentials},
};

/// The environment variable that may hold the master key.
const MASTER_KEY: &str = "CITYCELL_MASTER_KEY";

/// Where ClickHouse is.
#[derive(Args, Debug)]
pub struct ClickHouseArgs {
    /// ClickHouse's HTTP interface; https:// for one that speaks TLS.
    #[arg(long, default_value = "http://127.0.0.1:8123")]
    clickhouse: String,
    /// A file of the authorities that vouch for ClickHouse's certificate, in PEM; without it, those
    /// that this machine trusts.
    #[arg(long, value_name = "FILE")]
    clickhouse_ca: Option<PathBuf>,
    /// A file of our own certificate, in PEM, if ClickHouse asks for one.
    #[arg(long, value_name = "FILE", requires = "clickhouse_key")]
    clickhouse_certificate: Option<PathBuf>,
    /// The file of its private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "clickhouse_certificate")]
    clickhouse_key: Option<PathBuf>,
    /// ClickHouse's user.
    #[arg(long, default_value = "default")]
    user: String,
    /// A file that holds ClickHouse's password; without it the environment variable
    /// CITYCELL_CLICKHOUSE_PASSWORD does, or there is none.
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// The database of the tables; `run` creates it if it is missing.
    #[arg(long, default_value = "city")]
    database: String,
}

/// On which of ClickHouse's servers the tables are.
#[derive(Args, Debug)]
pub struct PlacementArgs {
    /// Make the tables on every server of this cluster of ClickHouse's, which must have one shard.
    #[arg(long, value_name = "NAME")]
    clickhouse_cluster: Option<String>,
    /// Replicate the tables; what is written is then on all servers of the cluster before it shows.
    #[arg(long, requires = "clickhouse_cluster")]
    clickhouse_replicated: bool,
}

/// Where Kafka is, for a command that cannot do without.
#[derive(Args, Debug)]
pub struct BrokerArgs {
    /// Kafka's brokers, host:port, comma-separated.
    #[arg(long, env = "CITYCELL_KAFKA", default_value = "127.0.0.1:9092")]
    brokers: String,
    #[command(flatten)]
    kafka: KafkaArgs,
}

impl BrokerArgs {
    /// The settings.
    ///
    /// # Errors
    /// Those of [`KafkaArgs::settings`].
    pub fn settings(&self) -> Result<KafkaSettings, Box<dyn Error>> {
        self.kafka.settings(&self.brokers)
    }
}

/// How Kafka's clients behave.
#[derive(Args, Debug)]
pub struct KafkaArgs {
    /// A librdkafka setting, key=value; for example security.protocol=SASL_SSL. May be repeated.
    /// No passwords: a command line can be read by others.
    // Taken apart later: whatever is wrong with an argument, clap repeats it.
    #[arg(long = "kafka", value_name = "KEY=VALUE")]
    kafka: Vec<String>,
    /// A file of librdkafka settings, one key=value per line: the place for passwords.
    #[arg(long)]
    kafka_settings: Option<PathBuf>,
}

/// Where the keys of personal fields lie.
#[derive(Args, Debug)]
pub struct KeyPlaceArgs {
    /// Where the keys of personal fields lie: a folder, or an object store's URL such as
    /// s3://bucket/path, whose settings come from its usual environment variables.
    #[arg(long, default_value = "citycell-keys")]
    keys: String,
}

/// What opens the keys of personal fields.
#[derive(Args, Debug)]
pub struct MasterKeyArgs {
    /// A file that holds the master key of personal fields, 64 hexadecimal digits; without it the
    /// environment variable CITYCELL_MASTER_KEY does.
    #[arg(long)]
    master_key_file: Option<PathBuf>,
}

impl KeyPlaceArgs {
    /// The keys of a deployment.
    ///
    /// # Errors
    /// When their place cannot be used.
    pub fn open(&self, deployment: &str) -> Result<Keys, KeysError> {
        Keys::open(&self.keys, deployment)
    }

    /// The settings with a master key.
    #[must_use]
    pub fn settings(&self, master: MasterKey) -> KeySettings {
        KeySettings { location: self.keys.clone(), master }
    }
}

impl MasterKeyArgs {
    /// The master key, if there is one.
    ///
    /// # Errors
    /// When its file cannot be read, or it is no key.
    pub fn find(&self) -> Result<Option<MasterKey>, Box<dyn Error>> {
        let secret = Secret::read(self.master_key_file.as_deref(), MASTER_KEY)?;
        Ok(secret.map(|secret| MasterKey::new(&secret)).transpose()?)
    }

    /// The master key of a command that cannot do without.
    ///
    /// # Errors
    /// Those of [`Self::find`], and where there is none.
    pub fn read(&self) -> Result<MasterKey, Box<dyn Error>> {
        let missing =
            || format!("there is no master key: name it by --master-key-file or {MASTER_KEY}");
        self.find()?.ok_or_else(|| missing().into())
    }
}

impl ClickHouseArgs {
    /// The settings.
    ///
    /// # Errors
    /// When a file cannot be read, or the URL would show a password to others or speaks no TLS
    /// although files say how.
    pub fn settings(&self) -> Result<ClickHouseSettings, Box<dyn Error>> {
        if has_credentials(&self.clickhouse) {
            let shown = without_credentials(&self.clickhouse);
            let hint = "name the user with --user, and the password's file with --password-file";
            let fault = format!("--clickhouse {shown} would show who we are to others: {hint}");
            return Err(fault.into());
        }
        let password = Secret::read(self.password_file.as_deref(), "CITYCELL_CLICKHOUSE_PASSWORD")?;
        Ok(ClickHouseSettings {
            url: self.clickhouse.clone(),
            user: self.user.clone(),
            password: password.unwrap_or_default().reveal().to_owned(),
            database: self.database.clone(),
            tls: self.tls()?,
            placement: Placement::OneServer,
        })
    }

    fn tls(&self) -> Result<Option<Tls>, Box<dyn Error>> {
        let files = TlsFiles {
            ca: self.clickhouse_ca.clone(),
            identity: self.clickhouse_certificate.clone().zip(self.clickhouse_key.clone()),
        };
        if self.clickhouse.to_ascii_lowercase().starts_with("https://") {
            return Ok(Some(Tls::read(&files)?));
        }
        if files == TlsFiles::default() {
            return Ok(None);
        }
        let url = &self.clickhouse;
        Err(format!("--clickhouse {url} speaks no TLS; certificates are for https://").into())
    }
}

impl PlacementArgs {
    /// What they say.
    #[must_use]
    pub fn placement(&self) -> Placement {
        let copying =
            if self.clickhouse_replicated { Copying::Replicated } else { Copying::Nothing };
        let cluster = |name| Placement::Cluster { name, copying };
        self.clickhouse_cluster.clone().map_or(Placement::OneServer, cluster)
    }
}

impl KafkaArgs {
    /// The settings for these brokers.
    ///
    /// # Errors
    /// When the file of settings cannot be read, or an argument is no setting.
    pub fn settings(&self, brokers: &str) -> Result<KafkaSettings, Box<dyn Error>> {
        let mut settings = BTreeMap::new();
        if let Some(path) = &self.kafka_settings {
            settings.extend(settings_file::read(path)?);
        }
        for argument in &self.kafka {
            settings.extend([settings_file::from_argument(argument)?]);
        }
        Ok(KafkaSettings { settings, ..KafkaSettings::new(brokers) })
    }
}
