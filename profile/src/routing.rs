//! `[routing]`: the router's thresholds, under one name.

use galo_engine::router::Thresholds;

use crate::table::Table;

/// The word for a bound that there is not, and what the router takes for one.
const NONE: &str = "none";
const NONE_US: u64 = u64::MAX;

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
        let of = base.thresholds;
        let mut bound = |key, base_us: u64| match table.get(key) {
            None => base_us,
            Some(entry) if entry.text() == Some(NONE) => NONE_US,
            Some(_) => table.number_or_word(key, NONE, 1..=DAY_MS).map_or(base_us, |ms| ms * 1_000),
        };
        let (slow_us, stale_us) = (bound("slow_ms", of.slow_us), bound("stale_ms", of.stale_us));
        let mut ms =
            |key, base_us: u64, low| table.number(key, low..=DAY_MS).map_or(base_us, |ms| ms * 1_000);
        let thresholds = Thresholds {
            slow_us,
            stale_us,
            silent_us: ms("silent_ms", of.silent_us, 1),
            settle_us_max: ms("settle_ms", of.settle_us_max, 0),
            horizon_us: table.number_or("horizon_s", of.horizon_us / 1_000_000, 1..=31_536_000) * 1_000_000,
            has_quiet: of.has_quiet,
        };
        let patience_ms = table.number_or("patience_ms", base.patience_ms, 0..=DAY_MS);
        if thresholds.stale_us < thresholds.slow_us {
            table.mistake(&format!(
                "expected slow_ms ({}) to be at most stale_ms ({})",
                shown(thresholds.slow_us),
                shown(thresholds.stale_us)
            ));
        }
        table.finish();
        Self { patience_ms, thresholds }
    }
}

fn shown(bound_us: u64) -> String {
    if bound_us == NONE_US { NONE.to_owned() } else { (bound_us / 1_000).to_string() }
}
