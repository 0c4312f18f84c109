//! What a simulated city is made of.

use thiserror::Error;

/// A city's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatorConfig {
    /// Unit grid cells of its district, at least; the district is a rectangle, so there may be a
    /// few more. Example: 400.
    pub cells: u32,
    /// Sensors of each stream. Example: 250.
    pub sensors_per_stream: u32,
    /// Partitions of each topic. Example: 3.
    pub partitions: i32,
    /// Events a second over all streams, without copies, withdrawals and bad records. Example: 500.
    pub events_per_second: f64,
    /// The share of events that arrive late: most by up to 5 minutes, a fifth of them by 11 to 20.
    pub late_share: f64,
    /// The share of events that are sent again, up to 20 seconds later.
    pub duplicate_share: f64,
    /// The share of events that are withdrawn, from just before they arrive to 30 seconds after.
    pub withdrawn_share: f64,
    /// Bad records, as a share of the events.
    pub bad_share: f64,
    /// The bytes of the largest bad record. Example: 65536, which the embedded broker bears.
    pub oversized_bytes: usize,
    /// When the city starts, ms since 1970 by its simulated clock.
    pub start_time_ms: i64,
}

impl Default for SimulatorConfig {
    /// A small district on a working day's morning.
    fn default() -> Self {
        Self {
            cells: 400,
            sensors_per_stream: 250,
            partitions: 3,
            events_per_second: 500.0,
            late_share: 0.02,
            duplicate_share: 0.01,
            withdrawn_share: 0.005,
            bad_share: 0.005,
            oversized_bytes: 65_536,
            // 2026-03-02T08:00:00+08:00, a Monday.
            start_time_ms: 1_772_409_600_000,
        }
    }
}

/// A setting that makes no city.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ConfigError {
    /// A share that is not one.
    #[error("{name} is {value}, but a share lies between 0 and 1")]
    Share {
        /// The setting.
        name: &'static str,
        /// What it was given.
        value: f64,
    },
    /// A number that is too small or too large.
    #[error("{name} is {value}, but must lie between {min} and {max}")]
    Number {
        /// The setting.
        name: &'static str,
        /// What it was given.
        value: f64,
        /// The least that will do.
        min: f64,
        /// The most that will do.
        max: f64,
    },
}

/// The most cells: 999 streets of 400.
const CELLS_MAX: f64 = 399_600.0;

impl SimulatorConfig {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let shares = [
            ("late_share", self.late_share),
            ("duplicate_share", self.duplicate_share),
            ("withdrawn_share", self.withdrawn_share),
            ("bad_share", self.bad_share),
        ];
        for (name, value) in shares {
            if !(0.0..=1.0).contains(&value) {
                return Err(ConfigError::Share { name, value });
            }
        }
        // Years 1970 to 9000: what a timestamp in an event can say, with room to run.
        let numbers = [
            ("cells", f64::from(self.cells), 1.0, CELLS_MAX),
            ("sensors_per_stream", f64::from(self.sensors_per_stream), 1.0, 1e7),
            ("partitions", f64::from(self.partitions), 1.0, 1e4),
            ("events_per_second", self.events_per_second, 0.001, 1e8),
            ("oversized_bytes", self.oversized_bytes as f64, 16.0, 1e9),
            ("start_time_ms", self.start_time_ms as f64, 0.0, 2.2e14),
        ];
        for (name, value, min, max) in numbers {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::Number { name, value, min, max });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ConfigError, SimulatorConfig};

    #[test]
    fn a_share_above_one_and_a_city_without_cells_are_refused() {
        let config = SimulatorConfig { late_share: 1.5, ..SimulatorConfig::default() };
        assert_eq!(config.check(), Err(ConfigError::Share { name: "late_share", value: 1.5 }));
        let config = SimulatorConfig { cells: 0, ..SimulatorConfig::default() };
        assert!(matches!(config.check(), Err(ConfigError::Number { name: "cells", .. })));
        let config = SimulatorConfig { events_per_second: f64::NAN, ..SimulatorConfig::default() };
        assert!(config.check().is_err());
        assert_eq!(SimulatorConfig::default().check(), Ok(()));
    }
}
