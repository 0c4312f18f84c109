//! A seeded city that behaves: its district, its sensors with their faults, and their events.
//!
//! The same seed and settings give the same district and the same records, byte for byte. Nothing
//! here reads a clock, a file or a socket: [`City::next_batch`] runs in simulated time, and the
//! caller decides how that relates to the clock on the wall.
//!
//! ```
//! use citycell_simulator::{City, SimulatorConfig};
//!
//! let mut city = City::new(7, SimulatorConfig::default()).unwrap();
//! let start_ms = city.now_ms();
//! let records = city.next_batch(start_ms + 1_000);
//! assert!(records.iter().all(|record| record.broker_time_ms < start_ms + 1_000));
//! ```

mod bad;
mod city;
mod config;
mod district;
mod record;
mod rhythm;
mod sensor;
mod stream;

pub use bad::BadKind;
pub use city::City;
pub use config::{ConfigError, SimulatorConfig};
pub use district::{Cell, District};
pub use record::{Planted, RawRow, SimulatedRecord};
pub use stream::Stream;
