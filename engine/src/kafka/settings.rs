//! How to reach Kafka. Every librdkafka setting passes through, TLS and SASL among them.

use std::{collections::BTreeMap, fmt};

use rdkafka::ClientConfig;

/// The brokers and librdkafka's settings by their own names.
#[derive(Clone)]
pub struct KafkaSettings {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// Further settings, for example `security.protocol`; they win over our defaults.
    pub settings: BTreeMap<String, String>,
}

impl KafkaSettings {
    /// Settings for these brokers with nothing else said.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), settings: BTreeMap::new() }
    }

    /// A client's configuration: our defaults for its role, then what the user says.
    pub(crate) fn client(&self, defaults: &[(&str, &str)]) -> ClientConfig {
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
