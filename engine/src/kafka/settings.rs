//! How to reach Kafka. Every librdkafka setting passes through, TLS and SASL among them.

use std::{collections::BTreeMap, fmt};

use rdkafka::{
    ClientConfig, ClientContext, config::FromClientConfigAndContext, error::KafkaError,
    types::RDKafkaConfRes,
};

use super::settings_file::is_secret;

/// The brokers and librdkafka's settings by their own names.
#[derive(Clone)]
pub struct KafkaSettings {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// Further settings, for example `security.protocol`; they win over our defaults.
    pub settings: BTreeMap<String, String>,
    /// What the broker can be asked.
    pub broker: BrokerKind,
}

/// Kinds of brokers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BrokerKind {
    /// Kafka.
    #[default]
    Kafka,
    /// The demo's, which leaves an admin's questions unanswered and tells no topics apart.
    Embedded,
}

impl KafkaSettings {
    /// Settings for these brokers with nothing else said.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), settings: BTreeMap::new(), broker: BrokerKind::Kafka }
    }

    /// A client: our defaults for its role, then what the user says.
    ///
    /// # Errors
    /// When a setting is wrong. The error shows no secret, not even one under a mistyped name.
    pub(crate) fn create<C, T>(
        &self,
        defaults: &[(&str, &str)],
        context: C,
    ) -> Result<T, KafkaError>
    where
        C: ClientContext,
        T: FromClientConfigAndContext<C>,
    {
        self.config(defaults).create_with_context(context).map_err(without_secret)
    }

    fn config(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", "citycell");
        for (key, value) in defaults {
            config.set(*key, *value);
        }
        for (key, value) in &self.settings {
            config.set(key, value);
        }
        config
    }
}

fn without_secret(error: KafkaError) -> KafkaError {
    match error {
        // Its text names the setting and not the value.
        KafkaError::ClientConfig(kind @ RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, text, key, _) => {
            KafkaError::ClientConfig(kind, text, key, String::new())
        }
        KafkaError::ClientConfig(kind, _, key, _) if is_secret(&key) => {
            KafkaError::ClientConfig(kind, "invalid value for".into(), key, String::new())
        }
        error => error,
    }
}

impl fmt::Debug for KafkaSettings {
    /// Names the settings without their values: some of them are passwords.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("settings", &self.settings.keys().collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::{BaseConsumer, DefaultConsumerContext};

    use super::*;

    #[test]
    fn an_error_about_a_setting_shows_no_secret() {
        let error_of = |key: &str, value: &str| {
            let mut settings = KafkaSettings::new("127.0.0.1:9");
            settings.settings.insert(key.to_owned(), value.to_owned());
            let made = settings.create::<_, BaseConsumer<_>>(&[], DefaultConsumerContext);
            made.err().expect("the setting is wrong").to_string()
        };
        let mistyped = error_of("sasl.pasword", "hunter2");
        assert!(mistyped.contains("sasl.pasword") && !mistyped.contains("hunter2"), "{mistyped}");
        // Whatever is wrong with what is no secret is said in full.
        assert!(error_of("security.protocol", "SASL-SSL").contains("SASL-SSL"));
    }
}
