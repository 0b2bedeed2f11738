//! A process's clocks: the host's monotonic time, which all its processes share, and a wall clock that drifts and is stepped.

use galo_engine::time::{Now, UnixMillis};

use super::dice::Dice;

/// Where the wall clocks begin: some time in 2026.
pub const EPOCH_MS: u64 = 1_790_000_000_000;

/// How long the host had been up.
const BOOTED_BEFORE_US: u64 = 1 << 40;

/// The clocks of one process, as functions of the true time.
#[derive(Clone, Copy)]
pub struct Clock {
    wall_offset_ms: i64,
    drift_ppm: i64,
}

impl Clock {
    /// Up to 200 ms off and 100 ppm fast or slow, as a badly kept machine.
    pub fn new(dice: &mut Dice) -> Self {
        let signed = |value: u64, spread: u64| value.cast_signed() - spread.cast_signed();
        Self {
            wall_offset_ms: signed(dice.between(0, 400), 200),
            drift_ppm: signed(dice.between(0, 200), 100),
        }
    }

    /// What the process reads at the true time `true_us`.
    pub fn now(&self, true_us: u64) -> Now {
        let true_ms = true_us / 1000;
        let drift_ms = true_ms.cast_signed() * self.drift_ppm / 1_000_000;
        let unix_ms = (EPOCH_MS + true_ms)
            .checked_add_signed(self.wall_offset_ms + drift_ms)
            .expect("steps are small beside the epoch");
        Now { monotonic_us: BOOTED_BEFORE_US + true_us, unix_ms: UnixMillis(unix_ms) }
    }

    /// Somebody sets the clock, by up to an hour either way.
    pub fn step(&mut self, dice: &mut Dice) {
        let by_ms = dice.skewed(3_600_000).cast_signed();
        self.wall_offset_ms = if dice.one_in(2) { by_ms } else { -by_ms };
    }
}
