//! `[routing]`: the router's thresholds, under one name.

use galo_engine::router::Thresholds;

use crate::table::Table;

/// What the router is told. The meaning of each threshold is in `docs/routing.md`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Routing {
    /// How long a payment waits for a cheaper processor while a dearer one works, ms.
    pub patience_ms: u64,
    /// What is fast enough, and how soon the books may be closed.
    pub thresholds: Thresholds,
}

impl Routing {
    /// For the contest's auditor, who compares books up to 1.5 s before now and closes them without notice.
    pub const CONTEST: Self = Self { patience_ms: 30_000, thresholds: Thresholds::CONTEST };

    /// For processors that take their time, and books that nobody closes: a payment flows whatever it takes, and waits for a
    /// cheaper processor for some seconds only.
    pub const STEADY: Self = Self { patience_ms: 5_000, thresholds: Thresholds::STEADY };

    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(one, _)| *one == name).map(|(_, routing)| routing)
    }

    const NAMES: [(&'static str, Self); 2] = [("contest", Self::CONTEST), ("steady", Self::STEADY)];

    pub(crate) fn read(table: Option<Table<'_>>, default: Self) -> Self {
        let Some(mut table) = table else { return default };
        let base = table.word("profile", &Self::NAMES).unwrap_or(default);
        const DAY_MS: u64 = 86_400_000;
        let mut ms =
            |key, base_us: u64, low| table.number(key, low..=DAY_MS).map_or(base_us, |ms| ms * 1_000);
        let of = base.thresholds;
        let thresholds = Thresholds {
            slow_us: ms("slow_ms", of.slow_us, 1),
            stale_us: ms("stale_ms", of.stale_us, 1),
            silent_us: ms("silent_ms", of.silent_us, 1),
            settle_us_max: ms("settle_ms", of.settle_us_max, 0),
            horizon_us: table.number_or("horizon_s", of.horizon_us / 1_000_000, 1..=31_536_000) * 1_000_000,
            has_quiet: of.has_quiet,
        };
        let patience_ms = table.number_or("patience_ms", base.patience_ms, 0..=DAY_MS);
        if thresholds.stale_us < thresholds.slow_us {
            table.mistake(&format!(
                "expected slow_ms ({}) to be at most stale_ms ({})",
                thresholds.slow_us / 1_000,
                thresholds.stale_us / 1_000
            ));
        }
        table.finish();
        Self { patience_ms, thresholds }
    }
}
