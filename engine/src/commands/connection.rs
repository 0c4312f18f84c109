//! Where Kafka and ClickHouse are: what commands that talk to them share.

use std::{collections::BTreeMap, error::Error, path::PathBuf};

use clap::Args;

use crate::{
    clickhouse::ClickHouseSettings,
    kafka::{KafkaSettings, settings_file},
    secret::{Secret, has_credentials, without_credentials},
};

/// Where ClickHouse is.
#[derive(Args, Debug)]
pub struct ClickHouseArgs {
    /// ClickHouse's HTTP interface.
    #[arg(long, default_value = "http://127.0.0.1:8123")]
    clickhouse: String,
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

impl ClickHouseArgs {
    /// The settings.
    ///
    /// # Errors
    /// When the password's file cannot be read, or the URL would show a password to others.
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
        })
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
