//! Routing: for one payment, now, the cheaper processor, the dearer one, or waiting.
//!
//! An economic decision. A payment that is processed earns its amount less the processor's fee, one that never is earns
//! nothing, and a refused attempt costs nothing. So: the cheaper one whenever it works. While it does not, a payment
//! waits for it, because outages end; waiting is free until somebody closes the books, which is not announced. Four
//! things end the wait, whichever comes first:
//!
//! - *Quiet*: payments have stopped coming, so the books may be closed next ([`crate::arrivals`]).
//! - *Held enough*: the dearer one would take longer than [`SETTLE_US_MAX`] to settle what waits, so after a silence
//!   there would be no time left.
//! - *Patience over*: it has waited for as long as the operator allows, counted while there was a choice.
//! - The cheaper one works again: single payments, probes, find out.
//!
//! A cheaper one that works but has a queue is waited for as long as that is worth it: with the fee gap `g` (5 % and
//! 15 %: a tenth) and a day that goes on for a minute ([`HORIZON_US`]) as far as anybody knows, waiting `t` saves `g` and
//! loses the payment with probability `t` / one minute.
//!
//! Slow is not broken: a payment on its way is left alone, but new ones keep away from a processor whose answers take
//! longer than [`RouterConfig::slow_us`], because an auditor who compares books meanwhile would see a difference. If
//! nothing faster is left, the cheaper one is still used up to [`STALE_US`], beyond which the auditor would.
//!
//! Pure: a function of a [`Situation`], so that every combination can be enumerated in a test. `docs/routing.md` has
//! the figures behind the constants.

use galo_wire::Processor;
pub use galo_wire::Reason;

/// How long settling everything that waits may take at the dearer processor, µs. The contest's final comparison comes
/// about a second after the last payment; 150 ms of it go by before silence is noticed, the rest is margin.
pub const SETTLE_US_MAX: u64 = 600_000;

/// How long a day is taken to go on, on average, µs.
pub const HORIZON_US: u64 = 60_000_000;

/// An answer that takes longer than this may be in one book and not yet in the other when an auditor looks, µs: the
/// window that it compares ends 1.5 s before now, and 100 ms are margin: completions reach the books within 25.
pub const STALE_US: u64 = 1_400_000;

/// What the operator decides.
#[derive(Clone, Copy, Debug)]
pub struct RouterConfig {
    /// What a processor keeps, by [`Processor::index`], in basis points (1/100 %).
    pub fee_bps: [u32; 2],
    /// How long a payment may wait for the cheaper processor while the dearer one works, µs.
    pub patience_us: u64,
    /// Beyond this a processor is too slow for new payments as long as there is another way, µs.
    pub slow_us: u64,
}

impl Default for RouterConfig {
    /// Fees as in the contest's preview. Thirty seconds of patience outlast most outages; what bounds the risk is silence
    /// and [`SETTLE_US_MAX`], not patience.
    fn default() -> Self {
        Self { fee_bps: [500, 1_500], patience_us: 30_000_000, slow_us: 1_000_000 }
    }
}

impl RouterConfig {
    /// The processor with the lower fee; the default one if they are equal.
    #[must_use]
    pub const fn cheaper(&self) -> Processor {
        if self.fee_bps[0] <= self.fee_bps[1] { Processor::Default } else { Processor::Fallback }
    }

    /// Up to this long the cheaper processor's queue is worth its wait, µs.
    #[must_use]
    pub fn worth_waiting_us(&self) -> u64 {
        let [default, fallback] = self.fee_bps.map(u64::from);
        let kept_bps = 10_000_u64.saturating_sub(default.max(fallback)).max(1);
        default.abs_diff(fallback) * HORIZON_US / kept_bps
    }
}

/// What is known of a processor at the moment of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Its breaker is closed: it works.
    pub closed: bool,
    /// It is expected to answer later than [`RouterConfig::slow_us`].
    pub slow: bool,
    /// It has not answered for longer than its answers took: nobody knows how slow it is.
    pub silent: bool,
    /// One more attempt fits its concurrency limit.
    pub has_capacity: bool,
    /// A single payment may try it although it is not closed, or slow.
    pub probe_ready: bool,
    /// It was found bad by an attempt that was sent after the other processor last began to work.
    pub bad_since_other_works: bool,
    /// How long sending it all that waits would take, µs.
    pub drain_us: u64,
    /// How long it is expected to take for an answer, µs.
    pub expected_us: u64,
}

impl View {
    const fn works(&self) -> bool {
        self.closed && !self.slow
    }
}

/// All that a decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// The processors, by [`Processor::index`].
    pub views: [View; 2],
    /// How long the payment has waited, µs.
    pub waited_us: u64,
    /// How long of that the dearer processor worked, µs.
    pub waited_by_choice_us: u64,
    /// Payments have stopped coming.
    pub quiet: bool,
    /// It was a probe before, and was refused.
    pub probed: bool,
}

/// What to do with a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Send it there, now.
    Send(Processor),
    /// Keep it.
    Wait,
}

/// A choice and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What.
    pub choice: Choice,
    /// Why.
    pub reason: Reason,
}

const fn send(processor: Processor, reason: Reason) -> Decision {
    Decision { choice: Choice::Send(processor), reason }
}

const fn wait(reason: Reason) -> Decision {
    Decision { choice: Choice::Wait, reason }
}

/// Decides for the payment that has waited longest.
#[must_use]
pub fn route(config: &RouterConfig, situation: &Situation) -> Decision {
    let cheaper = config.cheaper();
    let dearer = cheaper.other();
    let cheap = &situation.views[cheaper.index()];
    let dear = &situation.views[dearer.index()];
    if cheap.works() {
        let worth_us = if situation.quiet { SETTLE_US_MAX } else { config.worth_waiting_us() };
        return if cheap.has_capacity {
            send(cheaper, Reason::Cheaper)
        } else if dear.works() && dear.has_capacity && cheap.drain_us >= worth_us {
            send(dearer, Reason::Backlog)
        } else {
            wait(Reason::AwaitsCapacity)
        };
    }
    let why_pay_more = if dear.works() { why_pay_more(config, situation, cheap, dear) } else { None };
    // One payment is a probe once: should its answer be long in coming, the next probe is due when it comes back, and it
    // would be sent there for ever.
    let had_its_turn = situation.probed && why_pay_more.is_some() && dear.has_capacity;
    if cheap.probe_ready && !had_its_turn {
        return send(cheaper, Reason::Probe);
    }
    if dear.works() {
        return match why_pay_more {
            Some(reason) if dear.has_capacity => send(dearer, reason),
            Some(_) => wait(Reason::AwaitsCapacity),
            None => wait(Reason::AwaitsCheaper),
        };
    }
    if cheap.closed && cheap.has_capacity && !cheap.silent && cheap.expected_us <= STALE_US {
        return send(cheaper, Reason::SlowButWorks);
    }
    if dear.probe_ready {
        return send(dearer, Reason::Probe);
    }
    if situation.quiet || situation.waited_us >= config.patience_us {
        for (processor, view) in [(cheaper, cheap), (dearer, dear)] {
            if view.closed && view.has_capacity {
                return send(processor, Reason::SlowButWorks);
            }
        }
    }
    wait(Reason::AwaitsAny)
}

/// Why a payment should not wait any longer for the cheaper processor, which does not work, while the dearer one does.
fn why_pay_more(config: &RouterConfig, situation: &Situation, cheap: &View, dear: &View) -> Option<Reason> {
    if situation.quiet {
        return Some(Reason::Quiet);
    }
    // The dearer one may have just come back. Often so has the cheaper one: its probe is on the way.
    if !cheap.bad_since_other_works {
        return None;
    }
    if situation.waited_by_choice_us >= config.patience_us {
        return Some(Reason::PatienceOver);
    }
    (dear.drain_us.saturating_add(dear.expected_us) > SETTLE_US_MAX).then_some(Reason::HeldEnough)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: RouterConfig =
        RouterConfig { fee_bps: [500, 1500], patience_us: 2_000_000, slow_us: 1_000_000 };

    fn every_view() -> impl Iterator<Item = View> + Clone {
        (0..192_u8).map(|bits| View {
            closed: bits & 1 != 0,
            slow: bits & 2 != 0,
            has_capacity: bits & 4 != 0,
            probe_ready: bits & 8 != 0,
            bad_since_other_works: bits & 16 != 0,
            silent: bits & 32 != 0,
            drain_us: [0, SETTLE_US_MAX, 60_000_000][usize::from(bits / 64)],
            expected_us: if bits & 2 != 0 { STALE_US + 1 } else { 1_000 },
        })
    }

    fn every_situation() -> impl Iterator<Item = Situation> {
        every_view().flat_map(|default| {
            every_view().flat_map(move |fallback| {
                [(0, 0), (1_999_999, 5), (2_000_000, 1_999_999), (2_000_000, 2_000_000)].into_iter().flat_map(
                    move |(waited_us, waited_by_choice_us)| {
                        [(false, false), (true, false), (false, true), (true, true)].map(|(quiet, probed)| {
                            Situation {
                                views: [default, fallback],
                                waited_us,
                                waited_by_choice_us,
                                quiet,
                                probed,
                            }
                        })
                    },
                )
            })
        })
    }

    #[test]
    fn the_dearer_one_never_gets_what_the_cheaper_one_can_take() {
        for situation in every_situation() {
            let cheap = situation.views[0];
            if cheap.works() && cheap.has_capacity {
                let decision = route(&CONFIG, &situation);
                assert_eq!(decision.choice, Choice::Send(Processor::Default), "{situation:?}");
            }
        }
    }

    #[test]
    fn nothing_is_sent_where_there_is_neither_room_nor_a_probe() {
        for situation in every_situation() {
            if let Choice::Send(processor) = route(&CONFIG, &situation).choice {
                let view = situation.views[processor.index()];
                assert!((view.closed && view.has_capacity) || view.probe_ready, "{situation:?}");
            }
        }
    }

    #[test]
    fn more_is_paid_for_one_of_the_reasons_there_are() {
        for situation in every_situation() {
            let decision = route(&CONFIG, &situation);
            if decision.choice != Choice::Send(Processor::Fallback) {
                continue;
            }
            let [cheap, dear] = situation.views;
            let holds = match decision.reason {
                Reason::Backlog => {
                    cheap.works()
                        && cheap.drain_us >= SETTLE_US_MAX
                        && (situation.quiet || cheap.drain_us >= 7_000_000)
                }
                Reason::PatienceOver => !cheap.works() && situation.waited_by_choice_us >= CONFIG.patience_us,
                Reason::Probe => !cheap.works() && !dear.works(),
                Reason::SlowButWorks => {
                    dear.slow && (situation.quiet || situation.waited_us >= CONFIG.patience_us)
                }
                Reason::Quiet => !cheap.works() && situation.quiet,
                Reason::HeldEnough => !cheap.works() && dear.drain_us + dear.expected_us > SETTLE_US_MAX,
                Reason::Cheaper
                | Reason::AwaitsCapacity
                | Reason::AwaitsCheaper
                | Reason::AwaitsAny
                | Reason::Queued
                | Reason::Unstated => false,
            };
            assert!(holds, "{situation:?} {decision:?}");
        }
    }

    #[test]
    fn fees_alone_say_which_one_is_the_cheaper() {
        let swapped = RouterConfig { fee_bps: [1500, 500], ..CONFIG };
        for situation in every_situation() {
            let [default, fallback] = situation.views;
            let mirrored = route(&swapped, &Situation { views: [fallback, default], ..situation });
            let decision = route(&CONFIG, &situation);
            let mirror = |choice| match choice {
                Choice::Send(processor) => Choice::Send(processor.other()),
                Choice::Wait => Choice::Wait,
            };
            assert_eq!((mirror(decision.choice), decision.reason), (mirrored.choice, mirrored.reason));
        }
    }

    #[test]
    fn after_a_silence_nothing_waits_that_could_be_sent() {
        for situation in every_situation().filter(|situation| situation.quiet) {
            let [cheap, dear] = situation.views;
            // A cheaper one that works drains its queue in time.
            let drains = cheap.works() && cheap.drain_us < SETTLE_US_MAX;
            if !drains && (cheap.works() && cheap.has_capacity || dear.works() && dear.has_capacity) {
                assert_ne!(route(&CONFIG, &situation).choice, Choice::Wait, "{situation:?}");
            }
        }
    }

    #[test]
    fn once_patience_is_over_a_payment_moves_if_the_dearer_one_works() {
        for situation in every_situation().filter(|it| it.waited_by_choice_us == CONFIG.patience_us) {
            let [cheap, dear] = situation.views;
            if !cheap.works() && cheap.bad_since_other_works && dear.works() && dear.has_capacity {
                assert_ne!(route(&CONFIG, &situation).choice, Choice::Wait, "{situation:?}");
            }
        }
    }

    #[test]
    fn a_payment_whose_patience_is_over_is_a_probe_once() {
        let probe = View {
            closed: false,
            slow: false,
            has_capacity: true,
            silent: false,
            probe_ready: true,
            bad_since_other_works: true,
            drain_us: 0,
            expected_us: 1_000,
        };
        let works = View { closed: true, probe_ready: false, ..probe };
        let waited_us = CONFIG.patience_us;
        let at = |probed, waited_us| {
            let situation = Situation {
                views: [probe, works],
                waited_us,
                waited_by_choice_us: waited_us,
                quiet: false,
                probed,
            };
            route(&CONFIG, &situation)
        };
        assert_eq!(at(false, waited_us), send(Processor::Default, Reason::Probe));
        assert_eq!(at(true, waited_us), send(Processor::Fallback, Reason::PatienceOver));
        assert_eq!(at(true, waited_us - 1), send(Processor::Default, Reason::Probe));
    }

    #[test]
    fn a_cheaper_one_that_is_a_little_slow_is_used_when_nothing_faster_is_left() {
        let slow = View {
            closed: true,
            slow: true,
            has_capacity: true,
            silent: false,
            probe_ready: false,
            bad_since_other_works: false,
            drain_us: 0,
            expected_us: STALE_US,
        };
        let broken = View { closed: false, ..slow };
        let fast = View { slow: false, expected_us: 1_000, ..slow };
        let at = |views| {
            route(
                &CONFIG,
                &Situation { views, waited_us: 0, waited_by_choice_us: 0, quiet: false, probed: false },
            )
        };
        assert_eq!(at([slow, broken]), send(Processor::Default, Reason::SlowButWorks));
        assert_eq!(at([View { expected_us: STALE_US + 1, ..slow }, broken]), wait(Reason::AwaitsAny));
        assert_eq!(at([View { silent: true, ..slow }, broken]), wait(Reason::AwaitsAny));
        assert_eq!(at([slow, fast]), wait(Reason::AwaitsCheaper));
    }

    #[test]
    fn the_fee_gap_decides_how_long_a_queue_is_worth_waiting_for() {
        let worth_us = |fee_bps| RouterConfig { fee_bps, ..CONFIG }.worth_waiting_us();
        assert_eq!(worth_us([500, 1500]), 7_058_823);
        assert_eq!(worth_us([1500, 500]), 7_058_823);
        assert_eq!(worth_us([700, 1000]), 2_000_000);
        assert_eq!(worth_us([700, 700]), 0);
        assert!(worth_us([0, 10_000]) > 0, "a processor that keeps everything divides by nothing");

        let busy = View {
            closed: true,
            slow: false,
            has_capacity: false,
            silent: false,
            probe_ready: false,
            bad_since_other_works: false,
            drain_us: 7_000_000,
            expected_us: 1_000,
        };
        let free = View { has_capacity: true, drain_us: 0, ..busy };
        let situation = Situation {
            views: [busy, free],
            waited_us: 60_000_000,
            waited_by_choice_us: 60_000_000,
            quiet: false,
            probed: false,
        };
        assert_eq!(route(&CONFIG, &situation), wait(Reason::AwaitsCapacity));
        let cheap_gap = RouterConfig { fee_bps: [700, 1000], ..CONFIG };
        assert_eq!(route(&cheap_gap, &situation), send(Processor::Fallback, Reason::Backlog));
    }
}
