//! Routing: for one payment, now, the cheaper processor, the dearer one, or waiting.
//!
//! An economic decision. Every payment that is processed earns its amount less the processor's fee, one that is never
//! processed earns nothing, and waiting is free until somebody ends the day. So: the cheaper one whenever it works;
//! while it does not, a payment waits for it up to a patience, then takes the dearer one; single payments find out
//! whether a processor works again (a refused attempt costs nothing).
//!
//! Slow is not broken: a payment on its way is left alone, but new ones keep away from a processor whose answers take
//! longer than [`RouterConfig::slow_us`], because an auditor who compares books meanwhile would see a difference.
//!
//! Pure: a function of two views and a wait, so that every combination can be enumerated in a test.

use galo_wire::Processor;

/// What the operator decides.
#[derive(Clone, Copy, Debug)]
pub struct RouterConfig {
    /// What a processor keeps, by [`Processor::index`], in basis points (1/100 %).
    pub fee_bps: [u32; 2],
    /// How long a payment may wait for the cheaper processor, µs.
    pub patience_us: u64,
    /// Beyond this a processor is too slow for new payments as long as there is another way, µs.
    pub slow_us: u64,
}

/// What is known of a processor at the moment of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Its breaker is closed: it works.
    pub closed: bool,
    /// It is expected to answer later than [`RouterConfig::slow_us`].
    pub slow: bool,
    /// One more attempt fits its concurrency limit.
    pub has_capacity: bool,
    /// A single payment may try it although it is not closed, or slow.
    pub probe_ready: bool,
    /// It was found bad by an attempt that was sent after the other processor last began to work.
    pub bad_since_other_works: bool,
    /// How long the waiting payments would keep it busy, µs.
    pub drain_us: u64,
}

/// What to do with a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Send it there, now.
    Send(Processor),
    /// Keep it.
    Wait,
}

/// Why. Each decision has one; metrics count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The cheaper processor works.
    Cheaper = 0,
    /// The cheaper processor works, but draining its backlog would take longer than the patience. How long the payment
    /// has waited already does not matter: that is spent either way.
    Backlog = 1,
    /// The payment's patience with the cheaper processor is over.
    PatienceOver = 2,
    /// A single payment finds out whether a processor works again.
    Probe = 3,
    /// Both are slow or broken, and this one answers.
    SlowButWorks = 4,
    /// Waiting for room at a processor that works.
    AwaitsCapacity = 5,
    /// Waiting for the cheaper processor to come back.
    AwaitsCheaper = 6,
    /// Waiting for any processor to come back.
    AwaitsAny = 7,
}

impl Reason {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Cheaper,
        Self::Backlog,
        Self::PatienceOver,
        Self::Probe,
        Self::SlowButWorks,
        Self::AwaitsCapacity,
        Self::AwaitsCheaper,
        Self::AwaitsAny,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cheaper => "cheaper",
            Self::Backlog => "backlog",
            Self::PatienceOver => "patience_over",
            Self::Probe => "probe",
            Self::SlowButWorks => "slow_but_works",
            Self::AwaitsCapacity => "awaits_capacity",
            Self::AwaitsCheaper => "awaits_cheaper",
            Self::AwaitsAny => "awaits_any",
        }
    }
}

/// A choice and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What.
    pub choice: Choice,
    /// Why.
    pub reason: Reason,
}

/// Decides for a payment that has waited for `waited_us`. `views` by [`Processor::index`].
#[must_use]
pub fn route(config: &RouterConfig, views: &[View; 2], waited_us: u64) -> Decision {
    let send = |processor, reason| Decision { choice: Choice::Send(processor), reason };
    let wait = |reason| Decision { choice: Choice::Wait, reason };

    let cheaper =
        if config.fee_bps[0] <= config.fee_bps[1] { Processor::Default } else { Processor::Fallback };
    let dearer = cheaper.other();
    let (cheap, dear) = (&views[cheaper.index()], &views[dearer.index()]);
    let works = |view: &View| view.closed && !view.slow;

    if works(cheap) {
        return if cheap.has_capacity {
            send(cheaper, Reason::Cheaper)
        } else if works(dear) && dear.has_capacity && cheap.drain_us >= config.patience_us {
            send(dearer, Reason::Backlog)
        } else {
            wait(Reason::AwaitsCapacity)
        };
    }
    if cheap.probe_ready {
        return send(cheaper, Reason::Probe);
    }
    if waited_us < config.patience_us {
        return wait(Reason::AwaitsCheaper);
    }
    if works(dear) {
        return if !cheap.bad_since_other_works {
            // The dearer one has just come back. Often so has the cheaper one: its probe is on the way.
            wait(Reason::AwaitsCheaper)
        } else if dear.has_capacity {
            send(dearer, Reason::PatienceOver)
        } else {
            wait(Reason::AwaitsCapacity)
        };
    }
    if dear.probe_ready {
        return send(dearer, Reason::Probe);
    }
    for (processor, view) in [(cheaper, cheap), (dearer, dear)] {
        if view.closed && view.has_capacity {
            return send(processor, Reason::SlowButWorks);
        }
    }
    wait(Reason::AwaitsAny)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: RouterConfig =
        RouterConfig { fee_bps: [500, 1500], patience_us: 2_000_000, slow_us: 1_000_000 };

    fn every_view() -> impl Iterator<Item = View> + Clone {
        (0..64_u8).map(|bits| View {
            closed: bits & 1 != 0,
            slow: bits & 2 != 0,
            has_capacity: bits & 4 != 0,
            probe_ready: bits & 8 != 0,
            bad_since_other_works: bits & 16 != 0,
            drain_us: if bits & 32 != 0 { 5_000_000 } else { 0 },
        })
    }

    fn every_case() -> impl Iterator<Item = ([View; 2], u64)> {
        every_view().flat_map(|default| {
            every_view().flat_map(move |fallback| {
                [0, 1_999_999, 2_000_000].map(|waited| ([default, fallback], waited))
            })
        })
    }

    #[test]
    fn the_dearer_one_never_gets_what_the_cheaper_one_can_take() {
        for (views, waited) in every_case() {
            let cheap = views[0];
            if cheap.closed && !cheap.slow && cheap.has_capacity {
                let decision = route(&CONFIG, &views, waited);
                assert_eq!(decision.choice, Choice::Send(Processor::Default), "{views:?} {waited}");
            }
        }
    }

    #[test]
    fn nothing_is_sent_where_there_is_neither_room_nor_a_probe() {
        for (views, waited) in every_case() {
            if let Choice::Send(processor) = route(&CONFIG, &views, waited).choice {
                let view = views[processor.index()];
                assert!((view.closed && view.has_capacity) || view.probe_ready, "{views:?} {waited}");
            }
        }
    }

    #[test]
    fn patience_is_kept_unless_a_backlog_would_outlast_it() {
        for (views, waited) in every_case().filter(|(_, waited)| *waited < CONFIG.patience_us) {
            let decision = route(&CONFIG, &views, waited);
            if decision.choice == Choice::Send(Processor::Fallback) {
                assert_eq!(decision.reason, Reason::Backlog, "{views:?} {waited}");
                assert!(views[0].drain_us >= CONFIG.patience_us);
            }
        }
    }

    #[test]
    fn fees_alone_say_which_one_is_the_cheaper() {
        let swapped = RouterConfig { fee_bps: [1500, 500], ..CONFIG };
        for (views, waited) in every_case() {
            let mirrored = route(&swapped, &[views[1], views[0]], waited);
            let decision = route(&CONFIG, &views, waited);
            let mirror = |choice| match choice {
                Choice::Send(processor) => Choice::Send(processor.other()),
                Choice::Wait => Choice::Wait,
            };
            assert_eq!((mirror(decision.choice), decision.reason), (mirrored.choice, mirrored.reason));
        }
    }

    #[test]
    fn once_patience_is_over_a_payment_moves_if_anything_works() {
        for (views, _) in every_case().filter(|(_, waited)| *waited == CONFIG.patience_us) {
            let works = |view: &View| view.closed && !view.slow;
            // A cheaper one that works is waited for as long as its backlog drains in time.
            let drains = works(&views[0]) && views[0].drain_us < CONFIG.patience_us;
            let compared = works(&views[0]) || views[0].bad_since_other_works;
            if views.iter().any(|view| works(view) && view.has_capacity) && compared && !drains {
                assert_ne!(route(&CONFIG, &views, CONFIG.patience_us).choice, Choice::Wait, "{views:?}");
            }
        }
    }

    #[test]
    fn a_backlog_that_drains_in_time_is_no_reason_to_pay_more() {
        let busy = View {
            closed: true,
            slow: false,
            has_capacity: false,
            probe_ready: false,
            bad_since_other_works: false,
            drain_us: CONFIG.patience_us - 1,
        };
        let free = View { has_capacity: true, drain_us: 0, ..busy };
        let decision = route(&CONFIG, &[busy, free], 60_000_000);
        assert_eq!(decision, Decision { choice: Choice::Wait, reason: Reason::AwaitsCapacity });
        let hopeless = View { drain_us: CONFIG.patience_us, ..busy };
        let decision = route(&CONFIG, &[hopeless, free], 0);
        assert_eq!(decision, Decision { choice: Choice::Send(Processor::Fallback), reason: Reason::Backlog });
    }
}
