//! The aggregator's configuration: read once from the environment, checked, with units in its names.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use galo_engine::coordinator::CoordinatorConfig;
use galo_engine::ledger::LedgerConfig;
use galo_engine::router::ProcessorSet;
use galo_shell::env::{Env, EnvError};
use galo_shell::processors::{self, Names, ProcessorList, ProcessorsError};
use galo_wire::PROCESSORS_LEN_MAX;
use galo_wire::record::processors_fingerprint;

use crate::journal::{JournalConfig, Sync};

/// How long payments without an owner wait after a start for the gateways that hold them. Gateways try to reconnect
/// every 10 ms; this leaves them thirty tries.
const CLAIM_GRACE_US: u64 = 300_000;

/// Added to the interval of the health checks: a call that reaches the processor slightly early waits for its next
/// window, and the second one gets a 429.
const HEALTH_MARGIN_US: u64 = 100_000;

/// See the table in README.md.
#[derive(Clone, Debug)]
pub struct Config {
    /// `AGGREGATOR_SOCKET`: where gateways connect.
    pub socket: PathBuf,
    /// `AGGREGATOR_HTTP_SOCKET`: metrics, liveness, readiness.
    pub http_socket: PathBuf,
    /// `ADMISSION_TABLE`: where gateways of this host grant by themselves; `None`: they ask.
    pub admission_table: Option<PathBuf>,
    /// How the journal is kept.
    pub journal: JournalConfig,
    /// The processors' names.
    pub names: Names,
    /// The engine's share.
    pub coordinator: CoordinatorConfig,
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// The first variable that is not as expected.
    pub fn read(env: &Env, incarnation: u64) -> Result<Self, ConfigError> {
        let path = |name, default: &str| PathBuf::from(env.text(name).unwrap_or_else(|| default.to_owned()));
        let health_interval_ms = env.number("HEALTH_INTERVAL_MS", 5_000, 100..=3_600_000_u64)?;
        let ProcessorList { names, health_checked } = processors::read_names(env)?;
        let interval_us = |every_ms| every_ms * 1_000 + HEALTH_MARGIN_US;
        let mut health_interval_us = [interval_us(health_interval_ms); PROCESSORS_LEN_MAX];
        for (processor, every_ms) in &health_checked {
            health_interval_us[processor.index()] = interval_us(every_ms.unwrap_or(health_interval_ms));
        }
        let processors: ProcessorSet = names.iter().map(|(processor, _)| processor).collect();
        Ok(Self {
            socket: path("AGGREGATOR_SOCKET", "/run/galo/aggregator.sock"),
            http_socket: path("AGGREGATOR_HTTP_SOCKET", "/run/galo/aggregator-http.sock"),
            admission_table: env.text("ADMISSION_TABLE").map(PathBuf::from),
            journal: JournalConfig {
                directory: path("JOURNAL_DIR", "/var/lib/galo"),
                sync: env.read("JOURNAL_SYNC", Sync::Never, Sync::parse)?,
                segment_bytes: env.number("SEGMENT_BYTES", 16 << 20, 4_096..=1 << 40)?,
                snapshot_every_bytes: env.number("SNAPSHOT_EVERY_BYTES", 6 << 20, 4_096..=1 << 40)?,
                scrub_every: match env.number("SCRUB_EVERY_S", 86_400, 0..=31_536_000)? {
                    0 => None,
                    seconds => Some(Duration::from_secs(seconds)),
                },
            },
            coordinator: CoordinatorConfig {
                processors_fingerprint: processors_fingerprint(names.iter()),
                health_checked: health_checked.iter().map(|(processor, _)| *processor).collect(),
                ledger: LedgerConfig {
                    open_len_max: env.number("OPEN_LEN_MAX", 450_000, 1..=100_000_000)?,
                    known_len_max: env.number("KNOWN_LEN_MAX", 800_000, 1..=1_000_000_000)?,
                    bucket_bytes_max: env.number("BUCKET_BYTES_MAX", 32 << 20, (1 << 20)..=(1 << 40))?,
                    members_bytes_max: env.number("MEMBERS_BYTES_MAX", 16 << 20, 0..=(1 << 40))?,
                    processors,
                    // The incarnation is told to others and follows from the clock; this is nobody's to guess.
                    hash_seed: RandomState::new().hash_one(incarnation),
                },
                health_interval_us,
                claim_grace_us: CLAIM_GRACE_US,
                incarnation,
            },
            names,
        })
    }
}

/// Why the aggregator does not start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// A variable.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// What the processors are.
    #[error(transparent)]
    Processors(#[from] ProcessorsError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        let read = |list| Config::read(&Env::of_list(list), 1).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(read(&[]), Ok(()));
        assert_eq!(
            read(&[("OPEN_LEN_MAX", "0")]),
            Err(r#"OPEN_LEN_MAX="0": expected a whole number from 1 to 100000000"#.to_owned())
        );
        assert_eq!(
            read(&[("HEALTH_INTERVAL_MS", "5s")]),
            Err(r#"HEALTH_INTERVAL_MS="5s": expected a whole number from 100 to 3600000"#.to_owned())
        );
        for (value, sync) in [
            ("never", Some(Sync::Never)),
            ("interval:250", Some(Sync::Interval(Duration::from_millis(250)))),
            ("always", Some(Sync::Always)),
            ("memory", Some(Sync::Memory)),
            ("interval:", None),
            ("interval:0", None),
            ("interval:-1", None),
            ("often", None),
        ] {
            assert_eq!(Sync::parse(value).ok(), sync, "{value}");
        }
        assert_eq!(
            read(&[("JOURNAL_SYNC", "often")]),
            Err(r#"JOURNAL_SYNC="often": expected never, interval:MS (1 to 60000), always, or memory"#
                .to_owned())
        );
    }
}
