//! The laboratory's own honesty: one seed is one run, nobody beats the bound, and what is bad is found to be bad.
//!
//! On short schedules: generated ones, six times as fast and with half the clients.

use super::baselines::{Baseline, Past, Rank, Step, Strategy};
use super::policy::{Event, Figures, Order, Policy};
use super::run::play_with;
use super::*;
use crate::cluster::dice::Dice;

/// A schedule of ten seconds with everything that its original has.
fn short(seed: u64) -> Schedule {
    let mut schedule = generate(seed);
    let faster = u64::from(schedule.seconds) / 10;
    let shorten = |moment: Moment| Moment::from_ms(moment.ms / faster);
    schedule.seconds = 10;
    for point in &mut schedule.clients {
        *point = ClientPoint { at_s: shorten(point.at_s), count: point.count / 2 + 1 };
    }
    for stage in &mut schedule.stages {
        stage.at_s = shorten(stage.at_s);
    }
    schedule.stages.dedup_by_key(|stage| stage.at_s);
    schedule.check().unwrap();
    schedule
}

fn steady(stages: Vec<Stage>) -> Schedule {
    let point = |ms| ClientPoint { at_s: Moment::from_ms(ms), count: 100 };
    Schedule {
        name: "steady".to_owned(),
        seconds: 30,
        settle_ms: 1_000,
        processors: Vec::new(),
        clients: vec![point(0), point(30_000)],
        stages,
    }
}

fn stage(ms: u64, default: Condition, fallback: Condition) -> Stage {
    Stage::new(Moment::from_ms(ms), &[default, fallback])
}

const FINE: Condition =
    Condition { delay_ms: 0, failing: false, error_percent: 0, unanswered_percent: 0, reset_percent: 0 };
const OUT: Condition =
    Condition { delay_ms: 0, failing: true, error_percent: 0, unanswered_percent: 0, reset_percent: 0 };
const SLOW: Condition =
    Condition { delay_ms: 3_000, failing: false, error_percent: 0, unanswered_percent: 0, reset_percent: 0 };

fn settings(seed: u64) -> Settings {
    Settings::new(Fees::PREVIEW, seed)
}

#[test]
fn one_seed_is_one_run() {
    for kind in PolicyKind::ALL {
        let [first, second] = [0; 2].map(|_| format!("{:?}", play(&short(11), &settings(11), *kind, true)));
        assert_eq!(first, second, "{}", kind.name());
    }
    let [first, other] =
        [11, 12].map(|seed| format!("{:?}", play(&short(11), &settings(seed), PolicyKind::Galo, true)));
    assert_ne!(first, other, "chance plays no part");
}

#[test]
fn nobody_earns_more_than_the_bound_and_nobody_invents_payments() {
    for seed in 0..50 {
        let schedule = short(seed);
        let fees = if seed % 2 == 0 { Fees::PREVIEW } else { Fees::FINAL };
        for kind in PolicyKind::ALL {
            let run = play(&schedule, &Settings { fees, ..settings(seed) }, *kind, false);
            let name = kind.name();
            assert!(run.profit_units() <= run.bound.profit_units(fees), "seed {seed}, {name}: {run:?}");
            let bounds = [run.bound.audit_profit_units(fees), run.bound.profit_units(fees)];
            assert!(bounds[0] <= bounds[1], "seed {seed}, {name}: {bounds:?}");
            assert!(run.lag() >= 0, "seed {seed}, {name}: {run:?}");
            let booked: u64 = run.processed.iter().sum();
            assert!(booked <= run.stored.iter().sum(), "seed {seed}, {name}: {run:?}");
        }
    }
}

#[test]
fn a_run_at_other_fees_is_the_same_run() {
    for kind in PolicyKind::ALL {
        let preview = play(&short(4), &settings(4), *kind, true);
        let played = play(&short(4), &Settings { fees: Fees::FINAL, ..settings(4) }, *kind, true);
        match preview.at_fees(Fees::FINAL) {
            Some(derived) => assert_eq!(format!("{derived:?}"), format!("{played:?}"), "{}", kind.name()),
            None => assert_eq!(*kind, PolicyKind::Galo),
        }
        assert!(preview.at_fees(Fees::pair([2_000, 1_000])).is_none());
    }
}

#[test]
fn galo_pays_nobody_twice() {
    for seed in 100..150 {
        let run = play(&short(seed), &settings(seed), PolicyKind::Galo, false);
        assert_eq!(run.doubles, 0, "seed {seed}: {run:?}");
        assert_eq!(run.accepted, run.posted, "seed {seed}: nothing is refused");
    }
}

#[test]
fn without_trouble_everybody_earns_everything() {
    for kind in PolicyKind::ALL {
        let run = play(&steady(Vec::new()), &settings(1), *kind, false);
        assert_eq!(run.profit_units(), run.bound.profit_units(run.fees), "{}", kind.name());
        assert_eq!(run.lag(), 0, "{}", kind.name());
        assert_eq!((run.inconsistencies, run.risky, run.doubles), (0, 0, 0), "{}", kind.name());
    }
}

#[test]
fn an_attempt_given_up_may_be_processed_and_is_found() {
    let schedule = steady(vec![stage(5_000, Condition { delay_ms: 500, ..FINE }, FINE)]);
    let run = play(&schedule, &settings(1), PolicyKind::ShortTimeout, false);
    assert!(run.doubles > 1_000, "{run:?}");
    assert!(run.inconsistencies > 1_000, "{run:?}");
}

#[test]
fn requests_that_are_never_answered_hold_up_nobody() {
    let broken = Condition { unanswered_percent: 10, reset_percent: 10, ..FINE };
    // Clients that come one after the other: bursts of a hundred at one moment may have to wait for a second look at the processor.
    let point = |ms, count| ClientPoint { at_s: Moment::from_ms(ms), count };
    let clients = vec![point(0, 1), point(3_000, 150), point(30_000, 150)];
    let schedule = Schedule { settle_ms: 3_000, clients, ..steady(vec![stage(4_000, broken, FINE)]) };
    let run = play(&schedule, &settings(1), PolicyKind::Galo, false);
    assert!(run.in_doubt > 200, "{run:?}");
    assert_eq!((run.late, run.doubles, run.inconsistencies), (0, 0, 0), "{run:?}");
    assert!(run.others_regret() < 0.02, "{run:?}");
}

#[test]
fn patience_ends_however_often_the_processors_beside_take_turns() {
    // For as long as both work nobody need find out that there is a choice.
    let turn = |number: u64| {
        let (second, third) = [(FINE, OUT), (FINE, FINE), (OUT, FINE), (FINE, FINE)][(number % 4) as usize];
        Stage::new(Moment::from_ms(3_000 + 800 * number), &[OUT, second, third])
    };
    let member = |(name, fee_bps): (&str, u32)| Member { name: name.to_owned(), fee_bps };
    let processors = [("cheap", 200), ("second", 500), ("third", 900)].map(member).to_vec();
    // Not all in step: bursts that a processor's last moments meet are refused together, and pause.
    let point = |ms, count| ClientPoint { at_s: Moment::from_ms(ms), count };
    let clients = vec![point(0, 1), point(2_000, 97), point(30_000, 97)];
    let schedule = Schedule { processors, clients, ..steady((0..34).map(turn).collect()) };
    let galo = GaloConfig { patience_ms: 3_000, ..GaloConfig::default() };
    let run = play(&schedule, &Settings { galo, ..settings(1) }, PolicyKind::Galo, false);
    assert_eq!((run.lag(), run.doubles), (0, 0), "{run:?}");
    // Counted from when one of the two came back last it would be 8 s.
    assert!(run.waited_us_max < 4_000_000, "{run:?}");
}

/// Sends everything to the dearest.
struct Spendthrift;

impl Strategy for Spendthrift {
    fn route(&mut self, _: &mut Past, count: usize, _: u64, _: &mut Dice) -> Step {
        Step::Send(count - 1, None)
    }

    fn ended(&mut self, _: Rank, _: bool, _: u64, _: u64) {}
}

#[test]
fn who_always_pays_more_is_ranked_below_galo() {
    let [mut galo, mut bad] = [Vec::new(), Vec::new()];
    for seed in 0..10 {
        let schedule = short(seed);
        let settings = settings(seed);
        galo.push(play(&schedule, &settings, PolicyKind::Galo, false).regret());
        let spendthrift = Box::new(Baseline::new(Spendthrift, Fees::PREVIEW, &mut Dice::new(seed)));
        bad.push(play_with(&schedule, &settings, PolicyKind::FiveTries, spendthrift, false).regret());
    }
    let [galo, bad] = [galo, bad].map(Spread::of);
    // Ten of the ninety-five per cent that default leaves.
    assert!(bad.median > 0.1 && bad.mean > 0.1, "{bad:?}");
    assert!(galo.median < bad.median && galo.mean < bad.mean, "{galo:?} and {bad:?}");
}

/// A policy whose books are not what the processors have.
struct Liar(Box<dyn Policy>, u64);

impl Policy for Liar {
    fn start(&mut self, orders: &mut Vec<Order>) {
        self.0.start(orders);
    }

    fn handle(&mut self, event: Event, now_us: u64, orders: &mut Vec<Order>) {
        self.0.handle(event, now_us, orders);
    }

    fn summarize(&mut self, from_ms: u64, to_ms: u64) -> Counts {
        let mut counts = self.0.summarize(from_ms, to_ms);
        counts[0] += self.1;
        counts
    }

    fn waiting(&self) -> u64 {
        self.0.waiting()
    }

    fn figures(&mut self, now_us: u64) -> Figures {
        self.0.figures(now_us)
    }
}

#[test]
fn the_auditor_sees_one_payment_too_many() {
    let schedule = steady(Vec::new());
    // Four times it looks: at 0, 10, 20 and 30 s.
    for (lie, inconsistencies) in [(0, 0), (1, 4), (2, 8)] {
        let honest = Box::new(Baseline::new(Spendthrift, Fees::PREVIEW, &mut Dice::new(1)));
        let liar = Box::new(Liar(honest, lie));
        let run = play_with(&schedule, &settings(1), PolicyKind::FiveTries, liar, false);
        assert_eq!(run.inconsistencies, inconsistencies, "{:?}", run.audits);
    }
}

#[test]
fn what_takes_longer_than_the_auditor_waits_can_be_seen() {
    // Three seconds from requestedAt to the books, where the auditor looks after 1.5: what is processed between its three
    // looks, five milliseconds apart at most, is in one book and not in the other.
    let look = |condition| {
        let mut schedule = steady(vec![stage(5_000, condition, condition)]);
        // Not all in step.
        let point = |ms, count| ClientPoint { at_s: Moment::from_ms(ms), count };
        schedule.clients = vec![point(0, 1), point(5_000, 120), point(30_000, 120)];
        (0..10).map(|seed| play(&schedule, &settings(seed), PolicyKind::FiveTries, false)).collect::<Vec<_>>()
    };
    let slow = look(SLOW);
    assert!(slow.iter().map(|run| run.inconsistencies).sum::<u64>() > 0, "{slow:?}");
    assert!(slow.iter().all(|run| run.risk() > 0.5), "{slow:?}");
    let brisk = look(Condition { delay_ms: 900, ..FINE });
    assert!(brisk.iter().all(|run| run.inconsistencies == 0 && run.risky == 0), "{brisk:?}");
}

#[test]
fn a_backlog_drains_at_the_rate_of_the_processor() {
    let schedule = steady(vec![stage(5_000, OUT, OUT), stage(15_000, FINE, OUT)]);
    let run = play(&schedule, &settings(1), PolicyKind::Galo, true);
    let drained: Vec<u64> = run.seconds[15..].iter().map(|second| second.processed[0]).collect();
    assert!(drained.iter().all(|count| *count <= 5_010), "{drained:?}");
    assert!(drained.iter().take(3).sum::<u64>() > 1_000, "{drained:?}");
    assert_eq!(run.lag(), 0);
}
