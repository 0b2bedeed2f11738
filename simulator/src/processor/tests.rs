//! One test per rule of the model, under a clock made of numbers.

use super::*;

const MS: u64 = 1000;

fn processor(change: impl FnOnce(&mut Config)) -> Processor {
    let mut config = Config::new("0.05".parse().unwrap());
    change(&mut config);
    Processor::new(config)
}

fn payment(id: u128) -> Payment {
    Payment { correlation_id: Uuid::from_u128(id), amount_cents: 1990, requested_at_ms: 1_752_582_896_000 }
}

fn pending(step: Step) -> RequestId {
    match step {
        Step::Pending(request) => request,
        Step::Answered(answer) => panic!("answered at once: {answer:?}"),
    }
}

fn answers(processor: &mut Processor) -> Vec<(RequestId, Answer)> {
    std::iter::from_fn(|| processor.poll_answer()).collect()
}

#[test]
fn a_payment_is_stored_once() {
    let mut processor = processor(|_| {});
    assert_eq!(processor.post(0, payment(1)), Step::Answered(Answer::Processed));
    let again = Payment { amount_cents: 5, requested_at_ms: 7, ..payment(1) };
    assert_eq!(processor.post(1, again), Step::Answered(Answer::Duplicate(payment(1).correlation_id)));
    assert_eq!(processor.find(2, payment(1).correlation_id), Step::Answered(Answer::Found(payment(1))));
    assert_eq!(processor.find(2, payment(2).correlation_id), Step::Answered(Answer::NotFound));
    let statistics = processor.statistics();
    assert_eq!((statistics.posts, statistics.inserted, statistics.duplicates), (2, 1, 1));
}

#[test]
fn the_insert_comes_after_the_delay() {
    let mut processor = processor(|config| config.delay_ms = 100);
    let request = pending(processor.post(0, payment(1)));
    assert_eq!(processor.deadline_us(), Some(100 * MS));
    assert_eq!(processor.find(100 * MS - 1, payment(1).correlation_id), Step::Answered(Answer::NotFound));
    assert_eq!(answers(&mut processor), []);
    processor.advance(100 * MS);
    assert_eq!(answers(&mut processor), [(request, Answer::Processed)]);
    assert_eq!(processor.deadline_us(), None);
}

#[test]
fn the_delay_is_read_when_the_request_starts() {
    let mut processor = processor(|config| config.delay_ms = 100);
    let request = pending(processor.post(0, payment(1)));
    assert_eq!(processor.set_delay_ms(10 * MS, 0), 100);
    assert_eq!(processor.post(10 * MS, payment(2)), Step::Answered(Answer::Processed));
    processor.advance(99 * MS);
    assert_eq!(answers(&mut processor), []);
    processor.advance(100 * MS);
    assert_eq!(answers(&mut processor), [(request, Answer::Processed)]);
}

#[test]
fn the_failure_switch_is_read_after_the_delay() {
    let mut processor = processor(|config| config.delay_ms = 100);
    let fails = pending(processor.post(0, payment(1)));
    assert!(!processor.set_failing(50 * MS, true));
    let recovers = pending(processor.post(60 * MS, payment(2)));
    // Due before the switch goes back, although nobody looked in between.
    assert!(processor.set_failing(120 * MS, false));
    processor.advance(160 * MS);
    assert_eq!(answers(&mut processor), [(fails, Answer::Failed), (recovers, Answer::Processed)]);
    assert_eq!(processor.store().get(payment(1).correlation_id), None);
    assert_eq!(processor.statistics().failures500, 1);
}

#[test]
fn failing_answers_500_even_to_a_stored_id() {
    let mut processor = processor(|_| {});
    assert_eq!(processor.post(0, payment(1)), Step::Answered(Answer::Processed));
    processor.set_failing(0, true);
    assert_eq!(processor.post(0, payment(1)), Step::Answered(Answer::Failed));
}

#[test]
fn a_running_request_is_stored_although_its_caller_has_gone() {
    let mut processor = processor(|config| config.delay_ms = 100);
    let request = pending(processor.post(0, payment(1)));
    processor.caller_gone(10 * MS, request);
    processor.advance(100 * MS);
    assert_eq!(processor.store().get(payment(1).correlation_id), Some(payment(1)));
}

#[test]
fn a_waiting_request_leaves_with_its_caller() {
    let mut processor = processor(|config| {
        config.delay_ms = 100;
        config.running_max = 1;
    });
    pending(processor.post(0, payment(1)));
    let leaves = pending(processor.post(0, payment(2)));
    let stays = pending(processor.post(0, payment(3)));
    processor.caller_gone(10 * MS, leaves);
    processor.advance(1000 * MS);
    assert_eq!(processor.store().get(payment(2).correlation_id), None);
    assert_eq!(answers(&mut processor).last(), Some(&(stays, Answer::Processed)));
}

#[test]
fn limits_are_800_running_and_500_waiting() {
    let mut processor = processor(|config| config.delay_ms = 100);
    let mut requests = Vec::new();
    for id in 0..1300 {
        requests.push(pending(processor.post(0, payment(id))));
    }
    assert_eq!(processor.post(0, payment(1300)), Step::Answered(Answer::Refused));
    assert_eq!(processor.find(0, payment(0).correlation_id), Step::Answered(Answer::Refused));
    // The first 800 end together; their places go to the 500 that waited, and those sleep from then on.
    processor.advance(100 * MS);
    assert_eq!(processor.store().len(), 800);
    assert_eq!(processor.deadline_us(), Some(200 * MS));
    processor.advance(200 * MS);
    let order: Vec<RequestId> = answers(&mut processor).into_iter().map(|(request, _)| request).collect();
    assert_eq!(order, requests);
    assert_eq!(processor.post(200 * MS, payment(1300)), Step::Pending(RequestId(1300)));
    let statistics = processor.statistics();
    assert_eq!((statistics.running_max, statistics.waiting_max, statistics.refused429), (800, 500, 2));
}

#[test]
fn the_oldest_that_waits_runs_next() {
    let mut processor = processor(|config| {
        config.delay_ms = 100;
        config.running_max = 1;
    });
    let requests: Vec<RequestId> = (0..3).map(|id| pending(processor.post(0, payment(id)))).collect();
    for (turn, request) in (1..).zip(requests) {
        processor.advance(turn * 100 * MS);
        assert_eq!(answers(&mut processor), [(request, Answer::Processed)]);
    }
}

#[test]
fn a_lookup_waits_behind_sleeping_payments() {
    let mut processor = processor(|config| {
        config.delay_ms = 100;
        config.running_max = 1;
    });
    let post = pending(processor.post(0, payment(1)));
    let find = pending(processor.find(0, payment(1).correlation_id));
    processor.advance(100 * MS);
    assert_eq!(answers(&mut processor), [(post, Answer::Processed), (find, Answer::Found(payment(1)))]);
}

#[test]
fn health_answers_what_is_configured_when_its_window_comes() {
    let mut processor = processor(|config| config.delay_ms = 20);
    assert_eq!(
        processor.health(0),
        Step::Answered(Answer::Health { failing: false, min_response_time_ms: 20 })
    );
    let early = pending(processor.health(4_999 * MS));
    let hangs = pending(processor.health(4_999 * MS));
    assert_eq!(processor.health(4_999 * MS), Step::Answered(Answer::Refused));
    assert_eq!(processor.deadline_us(), Some(5_000 * MS));
    processor.set_failing(4_999 * MS, true);
    processor.advance(5_000 * MS);
    assert_eq!(
        answers(&mut processor),
        [(early, Answer::Health { failing: true, min_response_time_ms: 20 })]
    );
    processor.caller_gone(6_000 * MS, hangs);
    processor.advance(20_000 * MS);
    assert_eq!(answers(&mut processor), []);
    assert_eq!((processor.statistics().health_calls, processor.statistics().health429), (4, 1));
}

#[test]
fn both_bounds_or_none() {
    let mut processor = processor(|_| {});
    for (id, ms) in [(1, 1000), (2, 2000), (3, 3000)] {
        processor.post(0, Payment { requested_at_ms: ms, ..payment(id) });
    }
    let two = Total { requests: 2, amount_cents: 3980 };
    let all = Total { requests: 3, amount_cents: 5970 };
    assert_eq!(processor.summarize(0, Some(1000), Some(2000)), two);
    assert_eq!(processor.summarize(0, None, None), all);
    assert_eq!(processor.summarize(0, Some(2000), None), all);
    assert_eq!(processor.summarize(0, None, Some(2000)), all);
    processor.purge(0);
    assert_eq!(processor.summarize(0, None, None), Total::default());
}

fn with_fault(change: impl FnOnce(&mut Faults)) -> Processor {
    let mut faults = Faults { hang_ms: 50, ..Faults::default() };
    change(&mut faults);
    processor(|config| config.faults = faults)
}

#[test]
fn faults_before_the_insert_store_nothing() {
    for (mut processor, answers) in [
        (
            with_fault(|faults| faults.close_before_insert = 1.0),
            vec![Answer::Closed { reset: false }, Answer::Closed { reset: true }],
        ),
        (with_fault(|faults| faults.random500 = 1.0), vec![Answer::Failed]),
        (with_fault(|faults| faults.random429 = 1.0), vec![Answer::Refused]),
    ] {
        match processor.post(0, payment(1)) {
            Step::Answered(answer) => assert!(answers.contains(&answer), "{answer:?}"),
            Step::Pending(_) => panic!("expected one of {answers:?}"),
        }
        assert!(processor.store().is_empty(), "{answers:?}");
    }
}

#[test]
fn faults_after_the_insert_have_stored() {
    let mut processor = with_fault(|faults| faults.garbage = 1.0);
    assert_eq!(processor.post(0, payment(1)), Step::Answered(Answer::Garbage));
    assert_eq!(processor.store().len(), 1);

    processor = with_fault(|faults| faults.close_after_insert = 1.0);
    assert!(matches!(processor.post(0, payment(1)), Step::Answered(Answer::Closed { .. })));
    assert_eq!(processor.store().len(), 1);

    processor = with_fault(|faults| faults.hang_after_insert = 1.0);
    let request = pending(processor.post(0, payment(1)));
    assert_eq!(processor.store().len(), 1);
    processor.advance(50 * MS - 1);
    assert_eq!(answers(&mut processor), []);
    processor.advance(50 * MS);
    assert_eq!(answers(&mut processor), [(request, Answer::Processed)]);
}

#[test]
fn a_hang_before_the_insert_follows_the_delay_and_precedes_the_switch() {
    let mut processor = with_fault(|faults| faults.hang_before_insert = 1.0);
    processor.set_delay_ms(0, 100);
    let request = pending(processor.post(0, payment(1)));
    processor.set_failing(149 * MS, true);
    assert_eq!(answers(&mut processor), []);
    processor.advance(150 * MS);
    assert_eq!(answers(&mut processor), [(request, Answer::Failed)]);
}

#[test]
fn faults_draw_nothing_from_a_request_that_came_before() {
    let mut processor = with_fault(|faults| faults.hang_before_insert = 1.0);
    let hangs = pending(processor.post(0, payment(1)));
    processor.set_faults(1, Faults::default()).unwrap();
    assert_eq!(processor.post(2, payment(2)), Step::Answered(Answer::Processed));
    processor.advance(50 * MS);
    assert_eq!(answers(&mut processor), [(hangs, Answer::Processed)]);
    assert!(processor.set_faults(3, Faults { garbage: 2.0, ..Faults::default() }).is_err());
}
