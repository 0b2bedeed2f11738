//! Routing: for one payment, now, which processor, or waiting.
//!
//! An economic decision. A payment that is processed earns its amount less the processor's cost, one that never is earns
//! nothing, and a refused attempt costs nothing. So: the cheapest processor whenever it works. While it does not, a payment
//! waits for it, because outages end; waiting is free until somebody closes the books, which is not announced. Five
//! things end the wait, whichever comes first:
//!
//! - *Quiet*: payments have stopped coming, so the books may be closed next ([`crate::arrivals`]).
//! - *Held enough*: the dearer one would take longer than [`Thresholds::settle_us_max`] to settle what waits, so after a
//!   silence there would be no time left.
//! - *Limited*: the cheaper one says itself that it takes nothing for a while.
//! - *Patience over*: it has waited for as long as the operator allows, counted while there was a choice.
//! - The cheaper one works again: single payments, probes, find out.
//!
//! A cheaper one that works but has a queue is waited for as long as that is worth it: with the cost gap `g` (5 % and
//! 15 %: a tenth) and a day that goes on for a minute ([`Thresholds::horizon_us`]) as far as anybody knows, waiting `t` saves `g`
//! and loses the payment with probability `t` / one minute.
//!
//! Slow is not broken: a payment on its way is left alone, but new ones keep away from a processor whose answers take
//! longer than [`Thresholds::slow_us`], because an auditor who compares books meanwhile would see a difference. If
//! nothing faster is left, the cheapest one is still used up to [`Thresholds::stale_us`], beyond which the auditor would.
//!
//! With more than two processors the same rules are asked again of those that are left, from the cheapest up.
//!
//! Pure: a function of a [`Situation`], so that every combination can be enumerated in a test. `docs/routing.md` has
//! the figures behind the constants.

pub use galo_wire::Reason;
use galo_wire::{PROCESSORS_LEN_MAX, Processor};

/// A rest of a processor that is not worth paying more for, µs: what a payment's wait may be without anybody noticing.
const REST_US_MAX: u64 = 250_000;

/// What a processor keeps of a payment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Cost {
    /// Of the amount, in basis points (1/100 %).
    pub basis_points: u32,
    /// Of each payment, cents.
    pub fixed_cents: u32,
}

impl Cost {
    /// For one payment, in ten-thousandths of a cent.
    #[must_use]
    pub fn of(self, amount_cents: u64) -> u64 {
        let share = amount_cents.saturating_mul(u64::from(self.basis_points));
        share.saturating_add(u64::from(self.fixed_cents) * 10_000)
    }
}

/// A set of processors.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ProcessorSet(u8);

impl ProcessorSet {
    /// Nobody.
    pub const EMPTY: Self = Self(0);

    /// The contest's two.
    pub const PAIR: Self = Self(3);

    /// Those in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// With this one.
    #[must_use]
    pub const fn with(self, processor: Processor) -> Self {
        Self(self.0 | 1 << processor.index())
    }

    /// Whether this one is in it.
    #[must_use]
    pub const fn has(self, processor: Processor) -> bool {
        self.0 & (1 << processor.index()) != 0
    }

    /// Whether nobody is.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// In the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Processor> {
        Processor::ALL.into_iter().filter(move |processor| self.has(*processor))
    }
}

impl FromIterator<Processor> for ProcessorSet {
    fn from_iter<I: IntoIterator<Item = Processor>>(processors: I) -> Self {
        processors.into_iter().fold(Self::EMPTY, Self::with)
    }
}

/// What is fast enough, and how soon the books may be closed: a routing profile's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thresholds {
    /// Beyond this a processor is too slow for new payments as long as there is another way, µs.
    pub slow_us: u64,
    /// An answer that takes longer than this may be in one book and not yet in the other when an auditor looks, µs.
    pub stale_us: u64,
    /// An attempt that has been silent for this long, and for twice what answers took, says: not this processor, for now, µs.
    pub silent_us: u64,
    /// How long settling everything that waits may take at the dearer processor, µs.
    pub settle_us_max: u64,
    /// How long a day is taken to go on, on average, µs.
    pub horizon_us: u64,
    /// Whether a pause in the arrivals says that the books may be closed next.
    pub has_quiet: bool,
}

impl Thresholds {
    /// For the contest's auditor, who compares books up to 1.5 s before now: 100 ms of it are margin, since completions reach
    /// the books within 25; and 150 more are left for an answer to be later than those before it. The final comparison comes about a second after the last payment;
    /// 150 ms of it go by before silence is noticed, the rest is margin. Silent is half of what an auditor's request may take, and twice the slowest answer seen from a healthy processor under load.
    pub const CONTEST: Self = Self {
        slow_us: 1_250_000,
        stale_us: 1_400_000,
        silent_us: 250_000,
        settle_us_max: 600_000,
        horizon_us: 60_000_000,
        has_quiet: true,
    };

    /// For processors that may take their time, and books that nobody compares within seconds: only what does not answer at all is slow, nothing is
    /// ever stale, and a pause in the arrivals means nothing. Ten minutes of a day are left, so that a queue is worth a minute's wait at a gap of a tenth.
    pub const STEADY: Self = Self {
        slow_us: u64::MAX,
        stale_us: u64::MAX,
        silent_us: 10_000_000,
        settle_us_max: 60_000_000,
        horizon_us: 600_000_000,
        has_quiet: false,
    };
}

/// What the operator decides.
#[derive(Clone, Copy, Debug)]
pub struct RouterConfig {
    /// The processors that there are.
    pub processors: ProcessorSet,
    /// By [`Processor::index`].
    pub costs: [Cost; PROCESSORS_LEN_MAX],
    /// How long a payment may wait for a cheaper processor while a dearer one works, µs.
    pub patience_us: u64,
    /// See there.
    pub thresholds: Thresholds,
}

impl Default for RouterConfig {
    /// Fees as in the contest's preview. Thirty seconds of patience outlast most outages; what bounds the risk is silence
    /// and [`Thresholds::settle_us_max`], not patience.
    fn default() -> Self {
        Self::pair([500, 1_500])
    }
}

impl RouterConfig {
    /// The contest's two processors, with what each keeps, in basis points.
    #[must_use]
    pub const fn pair(fee_bps: [u32; 2]) -> Self {
        let mut costs = [Cost { basis_points: 0, fixed_cents: 0 }; PROCESSORS_LEN_MAX];
        costs[0].basis_points = fee_bps[0];
        costs[1].basis_points = fee_bps[1];
        Self {
            processors: ProcessorSet::PAIR,
            costs,
            patience_us: 30_000_000,
            thresholds: Thresholds::CONTEST,
        }
    }

    /// Those of `allowed` from the cheapest to the dearest for this amount, by number where they cost the same, and how many they are.
    fn order(&self, allowed: ProcessorSet, amount_cents: u64) -> ([Processor; PROCESSORS_LEN_MAX], usize) {
        let mut order = [Processor::N0; PROCESSORS_LEN_MAX];
        let mut len = 0;
        for processor in self.processors.and(allowed).iter() {
            let cost = self.costs[processor.index()].of(amount_cents);
            let mut place = len;
            while place > 0 && self.costs[order[place - 1].index()].of(amount_cents) > cost {
                order[place] = order[place - 1];
                place -= 1;
            }
            order[place] = processor;
            len += 1;
        }
        (order, len)
    }

    /// Up to this long the queue of a cheaper processor is worth its wait, beside a dearer one, µs.
    fn worth_waiting_us(&self, cheap: Processor, dear: Processor, amount_cents: u64) -> u64 {
        let amount_cents = amount_cents.max(1);
        let [cheap, dear] = [cheap, dear].map(|processor| self.costs[processor.index()].of(amount_cents));
        let kept = amount_cents.saturating_mul(10_000).saturating_sub(dear).max(1);
        let worth_us = u128::from(dear.saturating_sub(cheap)) * u128::from(self.thresholds.horizon_us)
            / u128::from(kept);
        u64::try_from(worth_us).unwrap_or(u64::MAX)
    }
}

/// What is known of a processor at the moment of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Its breaker is closed, and not too many attempts hang there: it works.
    pub closed: bool,
    /// It is expected to answer later than [`Thresholds::slow_us`].
    pub slow: bool,
    /// It has not answered for longer than its answers took: nobody knows how slow it is.
    pub silent: bool,
    /// One more attempt fits its concurrency limit and its rate.
    pub has_capacity: bool,
    /// A single payment may try it although it is not closed, or slow.
    pub probe_ready: bool,
    /// For how long it asks to be left alone yet, µs.
    pub rests_us: u64,
    /// How long ago the latest attempt was sent that was found bad, µs; the far past if there was none.
    pub bad_ago_us: u64,
    /// For how long its breaker has been closed, µs; 0 while it is not.
    pub worked_us: u64,
    /// For how long, up to now and without a gap, there has been another one whose breaker was closed, µs.
    pub others_worked_us: u64,
    /// How long sending it all that waits would take, µs.
    pub drain_us: u64,
    /// How long it is expected to take for an answer, µs.
    pub expected_us: u64,
}

impl View {
    /// Of a processor that there is not.
    pub const NONE: Self = Self {
        closed: false,
        slow: false,
        silent: false,
        has_capacity: false,
        probe_ready: false,
        rests_us: 0,
        bad_ago_us: u64::MAX,
        worked_us: 0,
        others_worked_us: 0,
        drain_us: 0,
        expected_us: 0,
    };

    const fn works(&self) -> bool {
        self.closed && !self.slow
    }
}

/// All that a decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// The processors, by [`Processor::index`].
    pub views: [View; PROCESSORS_LEN_MAX],
    /// Those that may take this payment.
    pub allowed: ProcessorSet,
    /// How much it is.
    pub amount_cents: u64,
    /// How long the payment has waited, µs.
    pub waited_us: u64,
    /// Payments have stopped coming.
    pub quiet: bool,
    /// It was a probe before, and was refused.
    pub probed: bool,
    /// It may be a probe. One that processors refuse while they take others says nothing about them.
    pub may_probe: bool,
}

impl Situation {
    const fn view(&self, processor: Processor) -> &View {
        &self.views[processor.index()]
    }

    /// How long of its wait for the cheapest processor others worked, µs: one of them, or one after the other.
    fn waited_by_choice_us(&self, cheapest: Processor) -> u64 {
        self.waited_us.min(self.view(cheapest).others_worked_us)
    }
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

/// Decides for one payment.
#[must_use]
pub fn route(config: &RouterConfig, situation: &Situation) -> Decision {
    let (order, len) = config.order(situation.allowed, situation.amount_cents);
    let order = &order[..len];
    let cheapest = order.first().copied();
    let patience_is_over = cheapest.is_some_and(|it| situation.waited_by_choice_us(it) >= config.patience_us);
    // Why those that cost less are passed over.
    let mut why = Reason::Cheaper;
    for (place, processor) in order.iter().copied().enumerate() {
        let view = situation.view(processor);
        let mut dearer = order[place + 1..].iter().copied().filter(|it| situation.view(*it).works());
        if view.works() {
            if view.has_capacity {
                return send(processor, why);
            }
            let Some(other) = dearer.find(|it| situation.view(*it).has_capacity) else {
                return wait(Reason::AwaitsCapacity);
            };
            let worth_us = if situation.quiet {
                config.thresholds.settle_us_max
            } else {
                config.worth_waiting_us(processor, other, situation.amount_cents)
            };
            // Those at its end would not wait for so long: they would go elsewhere when their patience is over.
            return if view.drain_us >= worth_us.min(config.patience_us) {
                send(other, Reason::Backlog)
            } else if patience_is_over {
                send(other, Reason::PatienceOver)
            } else {
                wait(Reason::AwaitsCapacity)
            };
        }
        let other = dearer.next();
        let why_pay_more =
            other.and_then(|other| why_pay_more(config, situation, patience_is_over, view, other));
        // One payment is a probe once: should its answer be long in coming, the next probe is due when it comes back, and it
        // would be sent there for ever.
        let had_its_turn = situation.probed
            && why_pay_more.is_some()
            && order[place + 1..]
                .iter()
                .any(|it| situation.view(*it).works() && situation.view(*it).has_capacity);
        if view.probe_ready && situation.may_probe && !had_its_turn {
            return send(processor, Reason::Probe);
        }
        match (other, why_pay_more) {
            (Some(_), Some(reason)) if why == Reason::Cheaper => why = reason,
            (Some(_), Some(_)) => {}
            (Some(_), None) => return wait(Reason::AwaitsCheaper),
            (None, _) => break,
        }
    }
    route_where_none_works(config, situation, order)
}

fn route_where_none_works(config: &RouterConfig, situation: &Situation, order: &[Processor]) -> Decision {
    let has_room = |it: &Processor| situation.view(*it).closed && situation.view(*it).has_capacity;
    let Some((cheapest, others)) = order.split_first() else { return wait(Reason::AwaitsAny) };
    let cheap = situation.view(*cheapest);
    if has_room(cheapest) && !cheap.silent && cheap.expected_us <= config.thresholds.stale_us {
        return send(*cheapest, Reason::SlowButWorks);
    }
    if situation.may_probe
        && let Some(probed) = others.iter().find(|it| situation.view(**it).probe_ready)
    {
        return send(*probed, Reason::Probe);
    }
    if (situation.quiet || situation.waited_us >= config.patience_us)
        && let Some(slow) = order.iter().copied().find(has_room)
    {
        return send(slow, Reason::SlowButWorks);
    }
    wait(Reason::AwaitsAny)
}

/// Why a payment should not wait any longer for a cheaper processor, which does not work, while a dearer one does.
fn why_pay_more(
    config: &RouterConfig,
    situation: &Situation,
    patience_is_over: bool,
    cheap: &View,
    dearer: Processor,
) -> Option<Reason> {
    let dear = situation.view(dearer);
    if situation.quiet {
        return Some(Reason::Quiet);
    }
    if patience_is_over {
        return Some(Reason::PatienceOver);
    }
    if cheap.rests_us > REST_US_MAX {
        return Some(Reason::Limited);
    }
    // The dearer one may have just come back. Often so has the cheaper one: its probe is on the way.
    let bad_since_other_works = cheap.bad_ago_us <= dear.worked_us;
    (bad_since_other_works
        && dear.drain_us.saturating_add(dear.expected_us) > config.thresholds.settle_us_max)
        .then_some(Reason::HeldEnough)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE_US_MAX: u64 = Thresholds::CONTEST.settle_us_max;
    const STALE_US: u64 = Thresholds::CONTEST.stale_us;

    fn config() -> RouterConfig {
        RouterConfig { patience_us: 2_000_000, ..RouterConfig::pair([500, 1_500]) }
    }

    fn pair(views: [View; 2]) -> [View; PROCESSORS_LEN_MAX] {
        let mut all = [View::NONE; PROCESSORS_LEN_MAX];
        all[..2].copy_from_slice(&views);
        (all[0].others_worked_us, all[1].others_worked_us) = (views[1].worked_us, views[0].worked_us);
        all
    }

    fn situation(views: [View; 2]) -> Situation {
        Situation {
            views: pair(views),
            allowed: ProcessorSet::PAIR,
            amount_cents: 1_990,
            waited_us: 0,
            quiet: false,
            probed: false,
            may_probe: true,
        }
    }

    fn every_view() -> impl Iterator<Item = View> + Clone {
        (0..192_u16).map(|bits| View {
            closed: bits & 1 != 0,
            slow: bits & 2 != 0,
            has_capacity: bits & 4 != 0,
            probe_ready: bits & 8 != 0,
            bad_ago_us: if bits & 16 != 0 { 1 } else { 20_000_000 },
            silent: false,
            worked_us: if bits & 1 == 0 {
                0
            } else if bits & 32 != 0 {
                5
            } else {
                10_000_000
            },
            others_worked_us: 0,
            rests_us: 0,
            drain_us: [0, SETTLE_US_MAX, 60_000_000][usize::from(bits / 64)],
            expected_us: if bits & 2 != 0 { STALE_US + 1 } else { 1_000 },
        })
    }

    fn every_situation() -> impl Iterator<Item = Situation> {
        every_view().flat_map(|default| {
            every_view().flat_map(move |fallback| {
                [0, 1_999_999, 2_000_000].into_iter().flat_map(move |waited_us| {
                    [(false, false), (true, false), (false, true)].map(|(quiet, probed)| Situation {
                        waited_us,
                        quiet,
                        probed,
                        ..situation([default, fallback])
                    })
                })
            })
        })
    }

    fn views(situation: &Situation) -> [View; 2] {
        [situation.views[0], situation.views[1]]
    }

    #[test]
    fn the_dearer_one_never_gets_what_the_cheaper_one_can_take() {
        let config = config();
        for situation in every_situation() {
            let [cheap, _] = views(&situation);
            if cheap.works() && cheap.has_capacity {
                let decision = route(&config, &situation);
                assert_eq!(decision.choice, Choice::Send(Processor::DEFAULT), "{situation:?}");
            }
        }
    }

    #[test]
    fn nothing_is_sent_where_there_is_neither_room_nor_a_probe() {
        let config = config();
        for situation in every_situation() {
            if let Choice::Send(processor) = route(&config, &situation).choice {
                let view = situation.view(processor);
                assert!((view.closed && view.has_capacity) || view.probe_ready, "{situation:?}");
                let suspect = Situation { may_probe: false, ..situation };
                if let Choice::Send(processor) = route(&config, &suspect).choice {
                    let view = situation.view(processor);
                    assert!(view.closed && view.has_capacity, "no probe: {suspect:?}");
                }
            }
        }
    }

    #[test]
    fn more_is_paid_for_one_of_the_reasons_there_are() {
        let config = config();
        for situation in every_situation() {
            let decision = route(&config, &situation);
            if decision.choice != Choice::Send(Processor::FALLBACK) {
                continue;
            }
            let [cheap, dear] = views(&situation);
            let patience_is_over = situation.waited_by_choice_us(Processor::DEFAULT) >= config.patience_us;
            let holds = match decision.reason {
                Reason::Backlog => {
                    cheap.works()
                        && cheap.drain_us >= SETTLE_US_MAX
                        && (situation.quiet || cheap.drain_us >= 7_000_000)
                }
                Reason::PatienceOver => patience_is_over && !(cheap.works() && cheap.has_capacity),
                Reason::Probe => !cheap.works() && !dear.works(),
                Reason::SlowButWorks => {
                    dear.slow && (situation.quiet || situation.waited_us >= config.patience_us)
                }
                Reason::Quiet => !cheap.works() && situation.quiet,
                Reason::HeldEnough => !cheap.works() && dear.drain_us + dear.expected_us > SETTLE_US_MAX,
                Reason::Cheaper
                | Reason::AwaitsCapacity
                | Reason::AwaitsCheaper
                | Reason::AwaitsAny
                | Reason::Queued
                | Reason::Limited
                | Reason::Proof
                | Reason::Elsewhere
                | Reason::Unstated => false,
            };
            assert!(holds, "{situation:?} {decision:?}");
        }
    }

    fn cheapest(config: &RouterConfig, amount_cents: u64) -> Processor {
        config.order(config.processors, amount_cents).0[0]
    }

    #[test]
    fn costs_alone_say_which_one_is_the_cheaper() {
        let config = config();
        let swapped = RouterConfig { patience_us: config.patience_us, ..RouterConfig::pair([1_500, 500]) };
        let fixed = RouterConfig {
            costs: RouterConfig::pair([500, 500]).costs.map(|cost| Cost { fixed_cents: 0, ..cost }),
            ..config
        };
        for situation in every_situation() {
            let [default, fallback] = views(&situation);
            let mirrored = route(&swapped, &Situation { views: pair([fallback, default]), ..situation });
            let decision = route(&config, &situation);
            let mirror = |choice| match choice {
                Choice::Send(Processor::N0) => Choice::Send(Processor::N1),
                Choice::Send(_) => Choice::Send(Processor::N0),
                Choice::Wait => Choice::Wait,
            };
            assert_eq!((mirror(decision.choice), decision.reason), (mirrored.choice, mirrored.reason));
        }
        let mut with_fixed = fixed;
        with_fixed.costs[0].fixed_cents = 30;
        with_fixed.costs[1].basis_points = 800;
        assert_eq!(cheapest(&with_fixed, 500), Processor::N1, "25 % + 0.30 of 5.00");
        assert_eq!(cheapest(&with_fixed, 100_000), Processor::N0, "50.30 of 1,000.00");
    }

    #[test]
    fn after_a_silence_nothing_waits_that_could_be_sent() {
        let config = config();
        for situation in every_situation().filter(|situation| situation.quiet) {
            let [cheap, dear] = views(&situation);
            // A cheaper one that works drains its queue in time.
            let drains = cheap.works() && cheap.drain_us < SETTLE_US_MAX;
            if !drains && (cheap.works() && cheap.has_capacity || dear.works() && dear.has_capacity) {
                assert_ne!(route(&config, &situation).choice, Choice::Wait, "{situation:?}");
            }
        }
    }

    /// Invariant 11, whatever keeps the cheaper one from taking it.
    #[test]
    fn once_patience_is_over_a_payment_moves_if_the_dearer_one_works() {
        let config = config();
        for situation in every_situation() {
            let [_, dear] = views(&situation);
            if situation.waited_by_choice_us(Processor::DEFAULT) >= config.patience_us
                && dear.works()
                && dear.has_capacity
            {
                assert_ne!(route(&config, &situation).choice, Choice::Wait, "{situation:?}");
            }
        }
    }

    const WORKS: View = View {
        closed: true,
        has_capacity: true,
        worked_us: 10_000_000,
        bad_ago_us: 20_000_000,
        expected_us: 1_000,
        ..View::NONE
    };

    #[test]
    fn a_payment_whose_patience_is_over_is_a_probe_once() {
        let config = config();
        let probe = View { closed: false, worked_us: 0, bad_ago_us: 1, probe_ready: true, ..WORKS };
        let at =
            |probed, waited_us| route(&config, &Situation { waited_us, probed, ..situation([probe, WORKS]) });
        let waited_us = config.patience_us;
        assert_eq!(at(false, waited_us), send(Processor::DEFAULT, Reason::Probe));
        assert_eq!(at(true, waited_us), send(Processor::FALLBACK, Reason::PatienceOver));
        assert_eq!(at(true, waited_us - 1), send(Processor::DEFAULT, Reason::Probe));
    }

    #[test]
    fn a_cheaper_one_that_is_a_little_slow_is_used_when_nothing_faster_is_left() {
        let config = config();
        let slow = View { slow: true, expected_us: STALE_US, ..WORKS };
        let broken = View { closed: false, worked_us: 0, ..slow };
        let at = |views| route(&config, &situation(views));
        assert_eq!(at([slow, broken]), send(Processor::DEFAULT, Reason::SlowButWorks));
        assert_eq!(at([View { expected_us: STALE_US + 1, ..slow }, broken]), wait(Reason::AwaitsAny));
        assert_eq!(at([View { silent: true, ..slow }, broken]), wait(Reason::AwaitsAny));
        assert_eq!(at([slow, WORKS]), wait(Reason::AwaitsCheaper));
    }

    #[test]
    fn a_processor_that_asks_to_be_left_alone_is_not_waited_for_beyond_a_moment() {
        let config = config();
        let rests = |rests_us| View { closed: false, worked_us: 0, bad_ago_us: 1, rests_us, ..WORKS };
        let at = |views| route(&config, &situation(views));
        assert_eq!(at([rests(REST_US_MAX), WORKS]), wait(Reason::AwaitsCheaper));
        assert_eq!(at([rests(REST_US_MAX + 1), WORKS]), send(Processor::FALLBACK, Reason::Limited));
        let full = View { has_capacity: false, ..WORKS };
        assert_eq!(at([rests(5_000_000), full]), wait(Reason::AwaitsCapacity));
        assert_eq!(at([rests(5_000_000), rests(5_000_000)]), wait(Reason::AwaitsAny));
    }

    #[test]
    fn the_rules_are_asked_again_of_those_that_are_left() {
        let mut config = config();
        config.processors = config.processors.with(Processor::N5);
        config.costs[5].basis_points = 900;
        let broken = View { closed: false, worked_us: 0, bad_ago_us: 1, ..WORKS };
        let at = |default, fallback, middle, waited_us| {
            let mut situation = Situation { waited_us, ..situation([default, fallback]) };
            situation.allowed = situation.allowed.with(Processor::N5);
            situation.views[5] = middle;
            situation.views[0].others_worked_us = fallback.worked_us.max(middle.worked_us);
            route(&config, &situation)
        };
        let full = View { has_capacity: false, ..WORKS };
        let patience_us = config.patience_us;
        assert_eq!(at(WORKS, WORKS, WORKS, 0), send(Processor::N0, Reason::Cheaper));
        assert_eq!(at(broken, WORKS, WORKS, 0), wait(Reason::AwaitsCheaper));
        assert_eq!(at(broken, WORKS, WORKS, patience_us), send(Processor::N5, Reason::PatienceOver));
        assert_eq!(at(broken, WORKS, full, patience_us), send(Processor::N1, Reason::PatienceOver));
        assert_eq!(at(broken, WORKS, broken, patience_us), send(Processor::N1, Reason::PatienceOver));
        assert_eq!(at(broken, broken, broken, patience_us), wait(Reason::AwaitsAny));
        let back = View { worked_us: 1, ..WORKS };
        assert_eq!(at(broken, WORKS, back, patience_us), send(Processor::N5, Reason::PatienceOver));
        assert_eq!(at(broken, back, broken, patience_us), wait(Reason::AwaitsCheaper));
        let probe = View { probe_ready: true, ..broken };
        assert_eq!(at(broken, broken, probe, 0), send(Processor::N5, Reason::Probe));
        let nobody = Situation { allowed: ProcessorSet::EMPTY, ..situation([WORKS, WORKS]) };
        assert_eq!(route(&config, &nobody), wait(Reason::AwaitsAny));
    }

    #[test]
    fn the_cost_gap_decides_how_long_a_queue_is_worth_waiting_for() {
        let worth_us = |fee_bps: [u32; 2]| {
            let config = RouterConfig::pair(fee_bps);
            let cheap = cheapest(&config, 1_990);
            let dear = if cheap == Processor::N0 { Processor::N1 } else { Processor::N0 };
            config.worth_waiting_us(cheap, dear, 1_990)
        };
        assert_eq!(worth_us([500, 1500]), 7_058_823);
        assert_eq!(worth_us([1500, 500]), 7_058_823);
        assert_eq!(worth_us([700, 1000]), 2_000_000);
        assert_eq!(worth_us([700, 700]), 0);
        assert!(worth_us([0, 10_000]) > 0, "a processor that keeps everything divides by nothing");

        let busy = |drain_us| View { has_capacity: false, drain_us, ..WORKS };
        let patient = RouterConfig { patience_us: 30_000_000, ..config() };
        let of = |config: &RouterConfig, drain_us, quiet, waited_us| {
            route(config, &Situation { quiet, waited_us, ..situation([busy(drain_us), WORKS]) })
        };
        let at = |drain_us, quiet, waited_us| of(&patient, drain_us, quiet, waited_us);
        assert_eq!(at(7_058_822, false, 0), wait(Reason::AwaitsCapacity));
        assert_eq!(at(7_058_823, false, 0), send(Processor::FALLBACK, Reason::Backlog));
        assert_eq!(at(SETTLE_US_MAX - 1, true, 0), wait(Reason::AwaitsCapacity));
        assert_eq!(at(SETTLE_US_MAX, true, 0), send(Processor::FALLBACK, Reason::Backlog));
        assert_eq!(of(&config(), 0, false, 2_000_000), send(Processor::FALLBACK, Reason::PatienceOver));
        // No queue is longer than patience.
        assert_eq!(of(&config(), 1_999_999, false, 0), wait(Reason::AwaitsCapacity));
        assert_eq!(of(&config(), 2_000_000, false, 0), send(Processor::FALLBACK, Reason::Backlog));
    }
}
