//! When a process that died is started again: at once, as `restart: always` would, unless it cannot start at all.
//!
//! A process killed under load comes back within 50 ms however often that happens: that is what the kill tests rely on. One that ends
//! by itself five times within two seconds has something that a restart will not mend (a bad setting, a taken
//! port): giving up with its last words beats a loop that fills the logs. Time is passed in; nothing here sleeps.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(2);
const DEATHS_IN_WINDOW_MAX: usize = 5;
/// Doubles with each death in the window, up to a bound that leaves fork and exec 30 ms on a busy machine.
const DELAY_FIRST: Duration = Duration::from_millis(5);
const DELAY_MAX: Duration = Duration::from_millis(20);

/// What to do about a death.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Start it again after this pause.
    RestartAfter(Duration),
    /// It will not stay up.
    GiveUp,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Death {
    /// By its own doing: an exit, or a crash.
    Own,
    /// By SIGKILL, which a process cannot send for itself: somebody's hand, or the kernel's when memory ran out.
    Killed,
}

/// The recent deaths of one process.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    recent: VecDeque<(Instant, Death)>,
}

impl Restarts {
    /// Decides about a death at `now`.
    pub(crate) fn decide(&mut self, now: Instant, death: Death) -> Verdict {
        while self.recent.front().is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.recent.pop_front();
        }
        let before = self.recent.len();
        self.recent.push_back((now, death));
        // Long series of kills would grow this without bound; the newest few decide.
        if self.recent.len() > 64 {
            self.recent.pop_front();
        }
        let own = self.recent.iter().filter(|(_, death)| *death == Death::Own).count();
        if own >= DEATHS_IN_WINDOW_MAX {
            return Verdict::GiveUp;
        }
        let doublings = u32::try_from(before.saturating_sub(1)).unwrap_or(u32::MAX).min(8);
        Verdict::RestartAfter(if before == 0 {
            Duration::ZERO
        } else {
            (DELAY_FIRST * 2_u32.pow(doublings)).min(DELAY_MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_own_deaths_within_two_seconds_are_enough() {
        let start = Instant::now();
        let mut restarts = Restarts::default();
        let delays: Vec<_> = (0..5)
            .map(|death| restarts.decide(start + Duration::from_millis(death * 100), Death::Own))
            .collect();
        let after = |millis| Verdict::RestartAfter(Duration::from_millis(millis));
        assert_eq!(delays, [after(0), after(5), after(10), after(20), Verdict::GiveUp]);
    }

    #[test]
    fn deaths_further_apart_restart_at_once_for_ever() {
        let start = Instant::now();
        let mut restarts = Restarts::default();
        for death in 0..100 {
            assert_eq!(
                restarts.decide(start + WINDOW * death, Death::Own),
                Verdict::RestartAfter(Duration::ZERO)
            );
        }
    }

    #[test]
    fn kills_are_answered_within_50_ms_however_many() {
        let start = Instant::now();
        let mut restarts = Restarts::default();
        for death in 0..1000 {
            let verdict = restarts.decide(start + Duration::from_millis(death), Death::Killed);
            assert!(
                matches!(verdict, Verdict::RestartAfter(delay) if delay < Duration::from_millis(50)),
                "{verdict:?}"
            );
        }
    }
}
