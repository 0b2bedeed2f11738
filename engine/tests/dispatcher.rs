//! The dispatcher's rules, one test each, by the actions that it asks for.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use galo_engine::arrivals::QUIET_US_MIN;
use galo_engine::dispatcher::{Action, Answer, Dispatcher, DispatcherConfig, ProcessorPolicy, Verification};
use galo_engine::money::AmountCents;
use galo_engine::router::{Reason, RouterConfig};
use galo_engine::time::{Now, UnixMillis};
use galo_engine::verdict::{End, Verdict};
use galo_engine::{CorrelationId, Outcome, PROCESSORS_LEN_MAX, Processor, Stage};
use galo_wire::Message;
use galo_wire::record::{
    Accept, Acknowledgement, Admission, Assignment, Claim, Completion, Grant, HealthNews, HealthSource,
    Intent, IntentRecorded, Purged, Ready, Release, Withdrawal,
};

const PATIENCE_US: u64 = 2_000_000;
/// What a gateway is ready for that has room for 100 in its queue.
const QUEUE_HELD: u64 = 102;
const OK: End = answered(200);
const FAILED: End = answered(500);

/// As the contest's processors mean it.
const fn answered(status: u16) -> End {
    let verdict = match status {
        200 => Verdict::Processed,
        422 => Verdict::Duplicate,
        429 => Verdict::Overloaded,
        _ => Verdict::Unavailable,
    };
    End { verdict, status, retry_after_ms: 0 }
}

fn id(number: u8) -> CorrelationId {
    CorrelationId([number; 16])
}

fn amount() -> AmountCents {
    AmountCents::new(1990).unwrap()
}

/// A dispatcher, its time, and what it has asked for.
struct Bench {
    dispatcher: Dispatcher,
    now_us: u64,
}

impl Bench {
    fn with(queue_len_max: usize) -> Self {
        Self::with_patience(queue_len_max, PATIENCE_US)
    }

    fn with_patience(queue_len_max: usize, patience_us: u64) -> Self {
        Self::configured(queue_len_max, patience_us, 8)
    }

    fn configured(queue_len_max: usize, patience_us: u64, concurrency_max: u32) -> Self {
        let router = RouterConfig { patience_us, ..RouterConfig::pair([500, 1500]) };
        let config = DispatcherConfig {
            router,
            queue_len_max,
            processors: [ProcessorPolicy::contest(concurrency_max); PROCESSORS_LEN_MAX],
            accept_wait_us_max: 1_000_000,
            seed: 1,
        };
        Self { dispatcher: Dispatcher::new(config), now_us: 1_000_000 }
    }

    /// Connected and idle.
    fn new() -> Self {
        let mut bench = Self::with(100);
        let actions = bench.event(Dispatcher::connected);
        assert_eq!(actions, [Action::Send(Ready { held_len_max: QUEUE_HELD }.into())]);
        bench.hear(Acknowledgement { sequence: 0 });
        bench
    }

    fn now(&self) -> Now {
        Now { monotonic_us: self.now_us, unix_ms: UnixMillis(1_700_000_000_000 + self.now_us / 1_000) }
    }

    fn unix_ms(&self) -> u64 {
        self.now().unix_ms.0
    }

    fn event(&mut self, event: impl FnOnce(&mut Dispatcher, Now)) -> Vec<Action> {
        let now = self.now();
        event(&mut self.dispatcher, now);
        self.dispatcher.actions().drain(..).collect()
    }

    fn accept(&mut self, number: u8) -> Vec<Action> {
        self.event(|dispatcher, now| dispatcher.accept(u32::from(number), id(number), amount(), now))
    }

    fn hear(&mut self, message: impl Into<Message>) -> Vec<Action> {
        let message = message.into();
        self.event(|dispatcher, now| dispatcher.handle(message, now))
    }

    fn grant(&mut self, slot: u32, number: u8) -> Vec<Action> {
        self.hear(Grant { slot, correlation_id: id(number), admission: Admission::Granted })
    }

    fn end(&mut self, slot: u32, reply: End) -> Vec<Action> {
        self.event(|dispatcher, now| dispatcher.attempt_ended(slot, reply, 1_000, now))
    }

    fn tick_after(&mut self, us: u64) -> Vec<Action> {
        self.now_us += us;
        self.event(Dispatcher::tick)
    }

    /// A payment on its way to default: its slot.
    fn attempt(&mut self, number: u8) -> u32 {
        let slot = match self.accept(number)[..] {
            [Action::Send(Message::Accept(accept))] => {
                assert_eq!(accept.stage, Stage::At0);
                accept.slot
            }
            ref other => panic!("expected one accept, got {other:?}"),
        };
        assert!(matches!(self.grant(slot, number)[..], [Action::Answer { .. }, Action::Attempt { .. }]));
        slot
    }

    /// Everyone says that `processor` is down.
    fn fails(&mut self, processor: Processor) {
        self.hear(HealthNews {
            processor,
            source: HealthSource::Traffic,
            failing: true,
            response_ms: 0,
            retry_after_ms: 0,
        });
    }
}

fn sent(actions: &[Action]) -> Vec<Message> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Send(message) => Some(*message),
            Action::Answer { .. }
            | Action::Attempt { .. }
            | Action::Verify { .. }
            | Action::Renew { .. }
            | Action::GiveUp { .. }
            | Action::CheckHealth { .. } => None,
        })
        .collect()
}

fn completion(sequence: u64, number: u8, requested_at_ms: u64, outcome: Outcome) -> Message {
    let processor = Processor::DEFAULT;
    Completion { sequence, correlation_id: id(number), requested_at_ms, processor, outcome, status: 0 }.into()
}

#[test]
fn the_usual_payment_takes_one_round_trip_to_the_ledger() {
    let mut bench = Bench::new();
    let requested_at_ms = bench.unix_ms();
    let accept = Accept {
        slot: 0,
        correlation_id: id(1),
        amount_cents: 1990,
        decided_at_ms: requested_at_ms,
        expires_at_us: bench.now_us + 900_000,
        stage: Stage::At0,
        reason: Reason::Cheaper,
    };
    assert_eq!(bench.accept(1), [Action::Send(accept.into())]);
    let attempt = Action::Attempt {
        slot: 0,
        processor: Processor::DEFAULT,
        correlation_id: id(1),
        amount: amount(),
        requested_at: UnixMillis(requested_at_ms),
    };
    assert_eq!(bench.grant(0, 1), [Action::Answer { ticket: 1, answer: Answer::Granted }, attempt]);
    assert_eq!(bench.end(0, OK), [Action::Send(completion(1, 1, requested_at_ms, Outcome::Processed))]);
    assert!(!bench.dispatcher.is_drained(), "not before the ledger has it");
    bench.hear(Acknowledgement { sequence: 1 });
    assert!(bench.dispatcher.is_drained());
}

#[test]
fn the_clock_is_asked_for_while_time_can_change_something() {
    let mut bench = Bench::new();
    assert_eq!(bench.dispatcher.tick_wait_us(), None, "nothing is held");
    let slot = bench.attempt(1);
    assert_eq!(bench.dispatcher.tick_wait_us(), Some(25_000), "the POST may have to be given up");
    bench.tick_after(25_000);
    assert_eq!(bench.dispatcher.tick_wait_us(), None, "it was answered, and an attempt ends by itself");
    bench.end(slot, End::UNANSWERED);
    assert_eq!(bench.dispatcher.tick_wait_us(), Some(5_000), "in doubt: its next try may be due");
    assert!(!bench.dispatcher.awaits_processors(), "no answer makes its pause shorter");

    let mut bench = Bench::new();
    bench.fails(Processor::DEFAULT);
    bench.fails(Processor::FALLBACK);
    let [Message::Accept(accept)] = sent(&bench.accept(1))[..] else { panic!("one accept") };
    bench.grant(accept.slot, 1);
    bench.tick_after(1_000);
    assert_eq!(bench.dispatcher.tick_wait_us(), Some(25_000), "it waits for a processor");
    assert!(bench.dispatcher.awaits_processors());
}

#[test]
fn whoever_waits_for_the_queues_pace_alone_hurries_no_processor() {
    let mut bench = Bench::configured(100, PATIENCE_US, 64);
    bench.event(Dispatcher::connected);
    bench.fails(Processor::DEFAULT);
    bench.fails(Processor::FALLBACK);
    for number in 0..90 {
        for message in sent(&bench.accept(number)) {
            let Message::Accept(accept) = message else { continue };
            bench.grant(accept.slot, number);
        }
    }
    // It works again, as the first one finds out: some leave with its answer, the others at the queue's pace.
    let probe = sent(&bench.tick_after(250_000));
    let [Message::Intent(probe), Message::Intent(_)] = probe[..] else { panic!("one for each: {probe:?}") };
    bench.hear(IntentRecorded { slot: probe.slot, correlation_id: probe.correlation_id });
    let mut leaving = sent(&bench.end(probe.slot, answered(200)));
    let mut counts = Vec::new();
    for _ in 0..4 {
        assert_eq!(bench.dispatcher.tick_wait_us(), Some(5_000), "the next may leave soon");
        assert!(!bench.dispatcher.awaits_processors(), "and does not wait for an answer");
        for message in std::mem::take(&mut leaving) {
            let Message::Intent(Intent { slot, correlation_id, .. }) = message else { continue };
            bench.hear(IntentRecorded { slot, correlation_id });
            let end = sent(&bench.end(slot, answered(200)));
            assert!(matches!(end[..], [Message::Completion(_)]), "nothing leaves by that: {end:?}");
        }
        leaving = sent(&bench.tick_after(5_000));
        counts.push(leaving.len());
    }
    assert_eq!(counts, [10, 10, 10, 10], "5 ms of 2,000 a second, together");
}

#[test]
fn what_the_ledger_refuses_is_answered_and_forgotten() {
    for (admission, answer) in [
        (Admission::Replayed, Answer::Replayed),
        (Admission::Conflict, Answer::Conflict),
        (Admission::Full, Answer::Full),
        (Admission::Expired, Answer::Unreachable),
    ] {
        let mut bench = Bench::new();
        bench.accept(1);
        let actions = bench.hear(Grant { slot: 0, correlation_id: id(1), admission });
        assert_eq!(actions, [Action::Answer { ticket: 1, answer }]);
        let now = bench.now();
        let gauges = bench.dispatcher.gauges(now);
        assert_eq!((gauges.held, gauges.in_flight), (0, [0; PROCESSORS_LEN_MAX]));
    }
}

#[test]
fn a_full_ledger_is_known_until_it_grants_or_says_nothing_for_a_second() {
    let mut bench = Bench::new();
    let answer = |bench: &mut Bench, number, admission| {
        let slot = accept_of(&bench.accept(number)).slot;
        bench.hear(Grant { slot, correlation_id: id(number), admission });
        bench.dispatcher.ledger_has_room(bench.now())
    };
    assert!(bench.dispatcher.ledger_has_room(bench.now()));
    assert!(!answer(&mut bench, 1, Admission::Full));
    bench.now_us += 999_999;
    assert!(!bench.dispatcher.ledger_has_room(bench.now()));
    // A replay needs no room.
    assert!(!answer(&mut bench, 2, Admission::Replayed));
    bench.now_us += 1;
    assert!(bench.dispatcher.ledger_has_room(bench.now()));
    assert!(!answer(&mut bench, 3, Admission::Full));
    assert!(answer(&mut bench, 4, Admission::Granted));
}

#[test]
fn beyond_the_bound_a_post_is_refused_before_it_is_accepted() {
    let mut bench = Bench::with(1);
    bench.event(Dispatcher::connected);
    bench.accept(1);
    assert_eq!(bench.accept(2), [Action::Answer { ticket: 2, answer: Answer::Full }]);
}

#[test]
fn a_refused_payment_takes_a_new_requested_at_and_waits_for_its_intent() {
    let mut bench = Bench::new();
    let first_ms = bench.unix_ms();
    let slot = bench.attempt(1);
    bench.now_us += 5_000;
    let actions = bench.end(slot, FAILED);
    let intent = Intent {
        slot,
        correlation_id: id(1),
        requested_at_ms: bench.unix_ms(),
        processor: Processor::DEFAULT,
        reason: Reason::Cheaper,
        waited_for_ms: 5,
    };
    assert_eq!(sent(&actions), [completion(1, 1, first_ms, Outcome::Refused), intent.into()]);
    assert_eq!(actions.len(), 2, "nothing is sent to a processor before the intent is recorded");
    let actions = bench.hear(IntentRecorded { slot, correlation_id: id(1) });
    let requested_at = bench.now().unix_ms;
    assert!(
        matches!(actions[..], [Action::Attempt { requested_at: at, .. }] if at == requested_at),
        "{actions:?}"
    );
}

/// Another gateway, whose clock is ahead, tried it and was refused.
#[test]
fn a_new_attempt_is_later_than_the_last_one_by_whichever_clock() {
    let mut bench = Bench::new();
    let requested_at_ms = bench.unix_ms() + 5;
    let actions = bench.hear(Assignment {
        correlation_id: id(1),
        amount_cents: amount().get(),
        requested_at_ms,
        stage: Stage::Waiting,
        in_doubt: false,
    });
    let [Message::Intent(intent)] = sent(&actions)[..] else { panic!("one intent: {actions:?}") };
    assert_eq!(intent.requested_at_ms, requested_at_ms + 1);
}

#[test]
fn a_payment_in_doubt_stays_with_its_processor_and_its_requested_at() {
    let mut bench = Bench::new();
    let first_ms = bench.unix_ms();
    let slot = bench.attempt(1);
    let actions = bench.end(slot, End::UNANSWERED);
    assert_eq!(sent(&actions), [completion(1, 1, first_ms, Outcome::Unknown)]);
    bench.fails(Processor::DEFAULT);
    let mut attempts = 0;
    for _ in 0..4_000 {
        // Twenty seconds: ten times the patience, with a fallback in the best of health.
        for action in bench.tick_after(5_000) {
            let Action::Attempt { processor, requested_at, .. } = action else {
                panic!("only attempts: {action:?}")
            };
            assert_eq!((processor, requested_at.0), (Processor::DEFAULT, first_ms));
            attempts += 1;
            assert_eq!(bench.end(slot, FAILED), [], "a refusal does not settle the doubt");
        }
    }
    assert!(attempts > 10, "it was tried {attempts} times");
}

#[test]
fn only_a_clear_answer_ends_a_doubt_and_a_422_is_looked_up() {
    let mut bench = Bench::new();
    let slot = bench.attempt(1);
    bench.end(slot, End::UNANSWERED);
    let retry = (0..1_000).flat_map(|_| bench.tick_after(5_000)).next();
    let Some(Action::Attempt { requested_at, .. }) = retry else { panic!("one attempt: {retry:?}") };
    let processor = Processor::DEFAULT;
    let verify = Action::Verify { slot, processor, correlation_id: id(1), requested_at };
    assert_eq!(bench.end(slot, answered(422)), [verify]);
    let actions = bench.event(|dispatcher, now| dispatcher.verified(slot, Verification::Unanswered, now));
    assert_eq!(sent(&actions), []);
    let again = (0..1_000).flat_map(|_| bench.tick_after(5_000)).next();
    assert_eq!(again, Some(verify), "asked again");
    let found = Verification::processed(requested_at, amount());
    let actions = bench.event(|dispatcher, now| dispatcher.verified(slot, found, now));
    let told = completion(2, 1, requested_at.0, Outcome::Processed);
    assert_eq!(sent(&actions), [told], "as the processor stored it");
}

/// One payment waits for the default processor, which refuses every probe. How long until it goes to the other one, while
/// a POST comes each `pause_us`.
fn wait_for_the_dearer_one(pause_us: u64) -> u64 {
    let mut bench = Bench::new();
    bench.attempt(9);
    bench.fails(Processor::DEFAULT);
    let actions = bench.accept(1);
    let [Action::Send(Message::Accept(accept))] = actions[..] else { panic!("one accept: {actions:?}") };
    let decided_at_ms = bench.unix_ms();
    assert_eq!((accept.stage, accept.decided_at_ms), (Stage::Waiting, decided_at_ms));
    bench.grant(accept.slot, 1);
    // Its attempt from before the outage fails: that is how the cheaper one is known to be bad.
    bench.end(0, FAILED);
    let start_us = bench.now_us;
    let mut next_post_us = start_us;
    while bench.now_us < start_us + 2 * PATIENCE_US {
        if bench.now_us >= next_post_us {
            next_post_us += pause_us;
            bench.accept(2);
        }
        for message in sent(&bench.tick_after(5_000)) {
            match message {
                Message::Intent(intent) if intent.processor == Processor::DEFAULT => {
                    // A probe: refused at once.
                    bench.hear(IntentRecorded { slot: intent.slot, correlation_id: intent.correlation_id });
                    bench.end(intent.slot, FAILED);
                }
                Message::Intent(_) => return bench.now_us - start_us,
                other => panic!("only intents: {other:?}"),
            }
        }
    }
    panic!("nothing was sent to the dearer one")
}

#[test]
fn while_the_cheaper_one_is_down_payments_wait_for_their_patience_and_then_take_the_dearer() {
    let waited_us = wait_for_the_dearer_one(20_000);
    assert!((PATIENCE_US..PATIENCE_US + 50_000).contains(&waited_us), "{waited_us}");
}

#[test]
fn a_slow_processor_gets_one_payment_a_second_however_many_wait() {
    let mut bench = Bench::new();
    bench.attempt(9);
    bench.fails(Processor::FALLBACK);
    bench.now_us += 2_000_000;
    for number in 10..=40 {
        let actions = bench.accept(number);
        // The first is the probe: planned at once, on its way as soon as it is granted.
        for message in sent(&actions) {
            let Message::Accept(accept) = message else { continue };
            bench.grant(accept.slot, number);
        }
    }
    let mut probe_count = 0;
    for _ in 0..390 {
        // Nothing is recorded, and so nothing is sent: the place that was taken must be enough to hold back the next.
        for message in sent(&bench.tick_after(5_000)) {
            let Message::Intent(intent) = message else { panic!("only intents: {message:?}") };
            probe_count += u32::from(intent.processor == Processor::DEFAULT);
        }
        bench.accept(7);
    }
    assert_eq!(probe_count, 1, "a second after the first one");
}

/// How many probes default gets within the next `seconds` while payments wait: it answers each after two seconds. Those
/// that fallback gets are refused.
fn probes_within(bench: &mut Bench, seconds: u64) -> usize {
    let mut count = 0;
    for _ in 0..seconds * 100 {
        // Never granted: it only says that payments have not stopped coming.
        bench.accept(7);
        let intents: Vec<Intent> = sent(&bench.tick_after(10_000))
            .into_iter()
            .filter_map(|message| if let Message::Intent(intent) = message { Some(intent) } else { None })
            .collect();
        for Intent { slot, correlation_id, processor, reason, .. } in intents {
            assert_eq!(reason, Reason::Probe);
            bench.hear(IntentRecorded { slot, correlation_id });
            if processor == Processor::DEFAULT {
                count += 1;
                bench.event(|dispatcher, now| dispatcher.attempt_ended(slot, OK, 2_000_000, now));
            } else {
                bench.end(slot, FAILED);
            }
        }
    }
    count
}

#[test]
fn the_longer_a_processor_is_slow_the_fewer_payments_find_that_out() {
    let mut bench = Bench::with_patience(10_000, 600_000_000);
    bench.event(Dispatcher::connected);
    let slot = bench.attempt(9);
    bench.fails(Processor::FALLBACK);
    bench.now_us += 2_000_000;
    bench.event(|dispatcher, now| dispatcher.attempt_ended(slot, OK, 2_000_000, now));
    for number in 10..=69 {
        let accept = accept_of(&bench.accept(number));
        let actions = bench.grant(accept.slot, number);
        // The first look at each processor is planned with a POST.
        if actions.iter().any(|action| matches!(action, Action::Attempt { .. })) {
            bench.end(accept.slot, FAILED);
        }
    }
    let early = probes_within(&mut bench, 8);
    probes_within(&mut bench, 24);
    let late = probes_within(&mut bench, 8);
    assert!((6..=8).contains(&early), "one a second: {early}");
    assert!((1..=2).contains(&late), "one in four seconds: {late}");
}

#[test]
fn a_processor_that_falls_silent_gets_no_more_until_it_answers() {
    let mut bench = Bench::new();
    for number in 1..=4 {
        let slot = bench.attempt(number);
        bench.end(slot, OK);
    }
    bench.fails(Processor::FALLBACK);
    let slot = bench.attempt(5);
    bench.now_us += 250_000;
    bench.attempt(6);
    bench.now_us += 1;
    // Time for fallback to be looked at; what comes after that waits.
    assert_eq!(reason_of(&bench.accept(8)), (Stage::At1, Reason::Probe));
    assert_eq!(reason_of(&bench.accept(7)), (Stage::Waiting, Reason::AwaitsAny));
    bench.grant(3, 7);
    // 300 ms: it is no faster than that, but it answers.
    bench.now_us += 49_999;
    let actions = bench.event(|dispatcher, now| dispatcher.attempt_ended(slot, OK, 300_000, now));
    let resumed = sent(&actions)
        .into_iter()
        .any(|message| matches!(message, Message::Intent(intent) if intent.correlation_id == id(7)));
    assert!(resumed, "{actions:?}");
}

#[test]
fn the_first_slow_answer_outweighs_all_the_fast_ones_before_it() {
    let mut bench = Bench::new();
    for number in 1..=20 {
        let slot = bench.attempt(number);
        bench.end(slot, OK);
    }
    bench.fails(Processor::FALLBACK);
    bench.now_us += 1;
    let slot = bench.attempt(30);
    bench.now_us += 1_500_000;
    bench.event(|dispatcher, now| dispatcher.attempt_ended(slot, OK, 1_500_000, now));
    // Nothing is awaited and 20 of 21 answers were fast. One payment may look again, the others wait.
    assert_eq!(reason_of(&bench.accept(31)), (Stage::At0, Reason::Probe));
    assert_eq!(reason_of(&bench.accept(32)), (Stage::At1, Reason::Probe));
    assert_eq!(reason_of(&bench.accept(33)), (Stage::Waiting, Reason::AwaitsAny));
}

#[test]
fn when_no_more_payments_come_those_that_wait_take_the_dearer_one() {
    let waited_us = wait_for_the_dearer_one(u64::from(u32::MAX));
    assert!((QUIET_US_MIN..QUIET_US_MIN + 50_000).contains(&waited_us), "{waited_us}");
}

#[test]
fn without_a_ledger_a_post_waits_and_is_then_told_so() {
    let mut bench = Bench::with(100);
    assert_eq!(bench.accept(1), []);
    assert_eq!(bench.tick_after(999_999), []);
    let told = [Action::Answer { ticket: 1, answer: Answer::Unreachable }];
    assert_eq!(bench.tick_after(1), told);
    let actions = bench.event(Dispatcher::connected);
    assert_eq!(actions, [Action::Send(Ready { held_len_max: QUEUE_HELD }.into())], "it was given up");
}

#[test]
fn a_post_whose_accept_was_lost_with_the_link_is_accepted_over_the_next() {
    let mut bench = Bench::new();
    bench.accept(1);
    bench.event(|dispatcher, _| dispatcher.disconnected());
    let actions = bench.event(Dispatcher::connected);
    let [Message::Accept(accept), Message::Ready(_)] = sent(&actions)[..] else {
        panic!("the accept again, then ready: {actions:?}")
    };
    assert_eq!(accept.stage, Stage::Waiting, "the plan is as old as the link");
    let actions = bench.grant(accept.slot, 1);
    assert!(matches!(actions[0], Action::Answer { ticket: 1, answer: Answer::Granted }));
}

#[test]
fn a_new_link_begins_with_completions_and_claims() {
    let mut bench = Bench::new();
    let requested_at_ms = bench.unix_ms();
    let done = bench.attempt(1);
    let going = bench.attempt(2);
    bench.event(|dispatcher, _| dispatcher.disconnected());
    assert_eq!(bench.end(done, OK), [], "held while there is no link");
    let actions = bench.event(Dispatcher::connected);
    let claim = |slot, number| {
        Message::from(Claim {
            slot,
            correlation_id: id(number),
            amount_cents: 1990,
            requested_at_ms,
            stage: Stage::At0,
            in_doubt: false,
        })
    };
    assert_eq!(
        sent(&actions),
        [
            claim(u32::MAX, 1),
            completion(2, 1, requested_at_ms, Outcome::Processed),
            claim(going, 2),
            Ready { held_len_max: QUEUE_HELD }.into()
        ]
    );
    bench.hear(Acknowledgement { sequence: 2 });
    bench.end(going, OK);
    bench.hear(Acknowledgement { sequence: 3 });
    assert!(bench.dispatcher.is_drained());
}

#[test]
fn an_intent_that_was_never_recorded_is_not_named_in_a_claim() {
    // Another gateway may have recorded an attempt at the same millisecond, and the ledger would take this claim for
    // the word that it was refused.
    let mut bench = Bench::new();
    let actions = bench.hear(Assignment {
        correlation_id: id(1),
        amount_cents: 1990,
        requested_at_ms: 0,
        stage: Stage::Waiting,
        in_doubt: false,
    });
    assert!(matches!(sent(&actions)[..], [Message::Intent(_)]), "{actions:?}");
    for _ in 0..2 {
        bench.event(|dispatcher, _| dispatcher.disconnected());
        let actions = bench.event(Dispatcher::connected);
        assert!(
            matches!(
                sent(&actions)[..],
                [
                    Message::Claim(Claim { requested_at_ms: 0, stage: Stage::Waiting, .. }),
                    Message::Ready(_),
                    Message::Intent(_)
                ]
            ),
            "{actions:?}"
        );
    }
}

#[test]
fn an_assignment_in_doubt_is_sent_to_its_processor_as_it_was() {
    let mut bench = Bench::new();
    bench.hear(Assignment {
        correlation_id: id(1),
        amount_cents: 1990,
        requested_at_ms: 42,
        stage: Stage::At1,
        in_doubt: true,
    });
    let actions = bench.tick_after(50_000);
    let attempt = Action::Attempt {
        slot: 0,
        processor: Processor::FALLBACK,
        correlation_id: id(1),
        amount: amount(),
        requested_at: UnixMillis(42),
    };
    assert_eq!(actions, [attempt]);
}

/// The ledger may have given it to another gateway meanwhile, which may have proved that its processor does not have it.
#[test]
fn a_payment_in_doubt_is_not_sent_again_before_the_ledger_has_heard_the_claim() {
    let mut bench = Bench::new();
    let slot = bench.attempt(1);
    bench.end(slot, End::UNANSWERED);
    bench.event(|dispatcher, _| dispatcher.disconnected());
    let away = (0..1_000).flat_map(|_| bench.tick_after(5_000)).count();
    bench.event(Dispatcher::connected);
    // Of the completion that was said before the claims.
    bench.hear(Acknowledgement { sequence: 1 });
    let unheard = (0..1_000).flat_map(|_| bench.tick_after(5_000)).count();
    assert_eq!((away, unheard), (0, 0));
    bench.hear(Acknowledgement { sequence: 0 });
    let retry = (0..1_000).flat_map(|_| bench.tick_after(5_000)).next();
    assert!(matches!(retry, Some(Action::Attempt { .. })));
}

/// The ledger says an assignment again to whoever asked about a copy that it had withdrawn before.
#[test]
fn a_payment_is_assigned_once() {
    let mut bench = Bench::new();
    let assignment = Assignment {
        correlation_id: id(1),
        amount_cents: 1990,
        requested_at_ms: 42,
        stage: Stage::At1,
        in_doubt: true,
    };
    bench.hear(assignment);
    bench.hear(assignment);
    let attempts = bench.tick_after(50_000);
    assert!(matches!(attempts[..], [Action::Attempt { slot: 0, .. }]), "{attempts:?}");
}

#[test]
fn a_withdrawn_payment_is_dropped_but_its_success_is_still_told() {
    let mut bench = Bench::new();
    let slot = bench.attempt(1);
    bench.hear(Withdrawal { slot, correlation_id: id(1) });
    let told = sent(&bench.end(slot, OK));
    assert!(matches!(told[..], [Message::Completion(it)] if it.outcome == Outcome::Processed), "{told:?}");
    let slot = bench.attempt(2);
    bench.hear(Withdrawal { slot, correlation_id: id(2) });
    assert_eq!(bench.end(slot, FAILED), [], "another gateway has it");
}

#[test]
fn a_purge_drops_what_was_granted_and_keeps_what_was_not() {
    let mut bench = Bench::new();
    let slot = bench.attempt(1);
    bench.fails(Processor::DEFAULT);
    let [Action::Send(Message::Accept(accept))] = bench.accept(2)[..] else { panic!("one accept") };
    bench.hear(Purged { generation: 1 });
    let actions = bench.grant(accept.slot, 2);
    assert!(matches!(actions[0], Action::Answer { ticket: 2, answer: Answer::Granted }));
    assert_eq!(bench.end(slot, FAILED), [], "it ends without a trace");
    let now = bench.now();
    assert_eq!(bench.dispatcher.gauges(now).held, 1);
}

#[test]
fn a_stopping_gateway_hands_back_what_waits_and_finishes_what_is_on_its_way() {
    let mut bench = Bench::new();
    let slot = bench.attempt(1);
    bench.fails(Processor::DEFAULT);
    let [Action::Send(Message::Accept(accept))] = bench.accept(2)[..] else { panic!("one accept") };
    bench.grant(accept.slot, 2);
    let actions = bench.event(|dispatcher, _| dispatcher.drain());
    assert_eq!(sent(&actions), [Release { correlation_id: id(2) }.into()]);
    let actions = bench.end(slot, FAILED);
    assert!(
        matches!(sent(&actions)[..], [Message::Completion(_), Message::Release(_)]),
        "a refusal at the end is handed back too: {actions:?}"
    );
    bench.hear(Acknowledgement { sequence: 1 });
    assert!(bench.dispatcher.is_drained());
}

/// The ledger withdrew the payment and assigned it anew before it came to an intent that was on its way to it: its answer
/// is about an attempt that was never made, not about the one that is intended now.
#[test]
fn an_answer_to_an_intent_of_a_payment_that_was_withdrawn_sends_nothing() {
    let mut bench = Bench::new();
    let waiting = Assignment {
        correlation_id: id(1),
        amount_cents: 1990,
        requested_at_ms: 0,
        stage: Stage::Waiting,
        in_doubt: false,
    };
    let slot_of = |actions: &[Action]| match actions {
        [Action::Send(Message::Intent(intent))] => intent.slot,
        other => panic!("{other:?}"),
    };
    let before = slot_of(&bench.hear(waiting));
    assert_eq!(bench.hear(Withdrawal { slot: before, correlation_id: id(1) }), []);
    bench.now_us += 5_000;
    let after = slot_of(&bench.hear(waiting));
    assert_eq!(bench.hear(IntentRecorded { slot: before, correlation_id: id(1) }), []);
    let sent = bench.hear(IntentRecorded { slot: after, correlation_id: id(1) });
    assert!(matches!(sent[..], [Action::Attempt { .. }]), "{sent:?}");
}

/// The one accept among what is sent; reports of a processor's health may be beside it.
fn accept_of(actions: &[Action]) -> Accept {
    let mut accepts = sent(actions).into_iter().filter_map(|message| match message {
        Message::Accept(accept) => Some(accept),
        Message::HealthReport(_) => None,
        other => panic!("neither an accept nor a report: {other:?}"),
    });
    let accept = accepts.next().expect("an accept");
    assert_eq!(accepts.next(), None);
    accept
}

fn reason_of(actions: &[Action]) -> (Stage, Reason) {
    let accept = accept_of(actions);
    (accept.stage, accept.reason)
}

#[test]
fn each_accept_and_intent_says_why() {
    let mut bench = Bench::new();
    bench.attempt(9);
    bench.fails(Processor::DEFAULT);
    // The router's word for the first that waits; those behind it wait for the same.
    assert_eq!(reason_of(&bench.accept(1)), (Stage::Waiting, Reason::AwaitsCheaper));
    bench.grant(1, 1);
    assert_eq!(reason_of(&bench.accept(2)), (Stage::Waiting, Reason::AwaitsCheaper));
    let counted = bench.dispatcher.counters().decisions;
    assert_eq!((counted[Reason::AwaitsCheaper as usize], counted[Reason::Queued as usize]), (1, 0));
    // A payment that came while the ledger was away was not routed at all.
    bench.event(|dispatcher, _| dispatcher.disconnected());
    assert_eq!(bench.accept(3), []);
    bench.now_us += 70_000;
    let actions = bench.event(Dispatcher::connected);
    let accepts: Vec<_> = sent(&actions)
        .into_iter()
        .filter_map(|message| match message {
            Message::Accept(accept) => Some((accept.stage, accept.reason, accept.decided_at_ms)),
            _ => None,
        })
        .collect();
    let now_ms = bench.unix_ms();
    assert_eq!(accepts, [(Stage::Waiting, Reason::Queued, now_ms); 2]);
    assert_eq!(bench.dispatcher.counters().decisions[Reason::Queued as usize], 2);
    // A probe: the payment that has waited longest, and so long since it came.
    let intent = sent(&actions).into_iter().find_map(|message| match message {
        Message::Intent(intent) => Some((intent.correlation_id, intent.reason, intent.waited_for_ms)),
        _ => None,
    });
    assert_eq!(intent, Some((id(1), Reason::Probe, 70)));
}
