//! A snapshot taken at any moment, in slices of any size between any changes, and the entries after it make the same
//! ledger as all entries did.

use galo_wire::journal as wire_journal;
use proptest::prelude::*;

use super::*;
use crate::ledger::{Entry, Known, LedgerConfig, Outcome, Stage, Summary, processor_name};
use crate::random::Random;

const NOON_MS: u64 = 1_752_580_800_000;

fn config(known_len_max: usize) -> LedgerConfig {
    LedgerConfig {
        open_len_max: 10_000,
        known_len_max,
        bucket_bytes_max: 8 << 20,
        members_bytes_max: 1 << 20,
        processors: Processor::ALL.into_iter().collect(),
        hash_seed: 5,
    }
}

fn id(number: u64) -> CorrelationId {
    let mut random = Random::new(number);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..].copy_from_slice(&random.next_u64().to_be_bytes());
    CorrelationId(bytes)
}

/// All that a ledger knows.
fn dump(ledger: &Ledger) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut open: Vec<_> = ledger.open.iter().collect();
    open.sort_by_key(|(id, _)| *id);
    open.iter_mut().for_each(|(_, payment)| payment.owner = None);
    let open: Vec<_> =
        open.into_iter().map(|(id, payment)| (id, payment, ledger.texts(id).cloned())).collect();
    let known: Vec<_> = ledger
        .ended
        .places()
        .map(|place| {
            let id = ledger.ended.at(place).id;
            let digests: Vec<_> = ledger.attachments.digests_of(&(place..place + 1)).collect();
            let digest = digests.first().map(|(_, digest)| *digest);
            (id, ledger.lookup(id), digest, ledger.reference(id))
        })
        .collect();
    let mut rows = Vec::new();
    for processor in Processor::ALL {
        let Some(buckets) = &ledger.buckets[processor.index()] else { continue };
        assert!(
            buckets
                .export(UnixMillis(0), |row| {
                    rows.push((processor, row));
                    ControlFlow::Continue(())
                })
                .is_continue()
        );
    }
    (open, known, rows, ledger.conservation, ledger.purged, ledger.names, ledger.members_bytes())
}

/// A change that fits the ledger, with the texts that belong to it.
fn next_entries(ledger: &Ledger, random: &mut Random, ids: &mut u64) -> Vec<Entry> {
    let entry = next_entry(ledger, random, ids);
    let members = || {
        Some(format!("{{\"payer\":\"{}\"}}", "x".repeat(usize::try_from(*ids * 37 % 200).unwrap())).into())
    };
    let reference = Some(format!("pi_{ids}").into());
    let texts = match (entry, random.below(4)) {
        (Entry::Accepted { .. }, 0) => Texts { members: members(), reference: None },
        (Entry::Accepted { stage, .. }, 1) if stage != Stage::Waiting => {
            Texts { members: members(), reference }
        }
        (Entry::Resolved { outcome: Outcome::Processed | Outcome::Unknown, .. }, 0 | 1) => {
            Texts { members: None, reference }
        }
        _ => Texts::default(),
    };
    texts.entries().chain([entry]).collect()
}

/// A change that fits the ledger.
fn next_entry(ledger: &Ledger, random: &mut Random, ids: &mut u64) -> Entry {
    // The first two have most of it, as in life.
    let number = random.below(12);
    let processor = Processor::ALL[usize::try_from(number.saturating_sub(4)).unwrap()];
    if random.below(20) == 0 && ledger.names().all(|(named, _)| named != processor) {
        let name = processor_name(&format!("processor {}", processor.index())).unwrap();
        return Entry::Named { processor, name };
    }
    let open: Vec<_> = ledger.open.iter().collect();
    let requested_at_ms = NOON_MS + random.below(4_000_000);
    if open.is_empty() || random.below(5) < 2 {
        // Now and then an id that was forgotten.
        let number = if random.below(4) == 0 && *ids > 0 { random.below(*ids) } else { *ids };
        if ledger.lookup(id(number)) == Known::Absent {
            *ids += u64::from(number == *ids);
            let stage = if random.below(4) == 0 { Stage::Waiting } else { Stage::at(processor) };
            return Entry::Accepted {
                correlation_id: id(number),
                amount_cents: 1 + random.below(10_000),
                stage,
                decided_at_ms: requested_at_ms,
                in_doubt: false,
                reason: Reason::Cheaper,
            };
        }
        *ids += 1;
        return Entry::Accepted {
            correlation_id: id(*ids - 1),
            amount_cents: 7,
            stage: Stage::Waiting,
            decided_at_ms: requested_at_ms,
            in_doubt: false,
            reason: Reason::AwaitsAny,
        };
    }
    let place = usize::try_from(random.below(open.len() as u64)).unwrap();
    let (correlation_id, payment) = open[place];
    let at = payment.stage.processor();
    match (random.below(6), at) {
        (3, Some(processor)) if payment.in_doubt => {
            let outcome = Outcome::Absent;
            Entry::Resolved { correlation_id, processor, requested_at_ms, outcome, status: 0 }
        }
        (3, None) if !payment.in_doubt => {
            let (outcome, status) = (Outcome::Declined, 400 + u16::try_from(random.below(600)).unwrap());
            Entry::Resolved { correlation_id, processor, requested_at_ms, outcome, status }
        }
        (0, Some(at)) => {
            let outcome = Outcome::Unknown;
            Entry::Resolved { correlation_id, processor: at, requested_at_ms, outcome, status: 0 }
        }
        (1, Some(at)) if !payment.in_doubt => {
            let outcome = Outcome::Refused;
            Entry::Resolved { correlation_id, processor: at, requested_at_ms, outcome, status: 0 }
        }
        (2, _) | (0 | 1, None) if !payment.in_doubt => {
            let (reason, waited_for_ms) = (Reason::Cheaper, 1);
            Entry::Intended { correlation_id, processor, requested_at_ms, reason, waited_for_ms }
        }
        _ => Entry::Resolved {
            correlation_id,
            processor: at.unwrap_or(processor),
            requested_at_ms,
            outcome: Outcome::Processed,
            status: 0,
        },
    }
}

/// Reads a snapshot's rows. Returns how many of them stood in pages, too.
fn import_counted(config: LedgerConfig, mut bytes: &[u8]) -> (Ledger, u64) {
    let mut ledger = Ledger::new(config);
    ledger.begin_replay();
    let (mut sequence, mut page_rows) = (0, 0);
    while !bytes.is_empty() {
        let (block, rest) = bytes.split_at(BLOCK_SIZE);
        let record = Record::decode(block).unwrap();
        sequence += 1;
        assert_eq!(record.sequence, sequence);
        let (page, rest) = rest.split_at(record.fact.page().map_or(0, |(size, _)| size));
        match record.fact {
            fact @ (Fact::DigestsPage { .. } | Fact::ReferencesPage { .. }) => {
                assert_eq!(fact.page().unwrap().1, page_checksum(page));
                ledger.import_page(fact, page).unwrap();
            }
            Fact::RememberedPage { rows, .. } | Fact::MomentsPage { rows, .. } => {
                assert_eq!(record.fact.page().unwrap().1, page_checksum(page));
                page_rows += u64::from(rows);
                ledger.import_page(record.fact, page).unwrap();
            }
            fact => ledger.import(fact).unwrap(),
        }
        bytes = rest;
    }
    ledger.end_replay();
    (ledger, page_rows)
}

fn import(config: LedgerConfig, bytes: &[u8]) -> Ledger {
    import_counted(config, bytes).0
}

fn everything(ledger: &Ledger) -> Summary {
    ledger.summarize(UnixMillis(0), UnixMillis(u64::MAX))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_snapshot_and_what_came_after_make_the_same_ledger(
        seed: u64,
        before in 0_usize..300,
        slice in 1_usize..40,
        between in 0_usize..6,
        known_len_max in 1_usize..80,
    ) {
        let mut random = Random::new(seed);
        let mut ids = 0;
        let mut ledger = Ledger::new(config(known_len_max));
        for _ in 0..before {
            let entries = next_entries(&ledger, &mut random, &mut ids);
            entries.into_iter().for_each(|entry| ledger.apply(entry));
        }
        let at_begin = dump(&ledger);
        ledger.begin_export();
        let (mut bytes, mut after) = (Vec::new(), Vec::new());
        let mut change = |ledger: &mut Ledger, random: &mut Random| {
            let entries = next_entries(ledger, random, &mut ids);
            entries.iter().for_each(|entry| ledger.apply(*entry));
            after.extend(entries);
            // A summary sees what was processed a moment ago, export or not.
            let processed = everything(ledger).totals;
            assert_eq!(processed, ledger.conservation().processed);
        };
        loop {
            (0..between).for_each(|_| change(&mut ledger, &mut random));
            match ledger.export(slice, &mut bytes) {
                Progress::More => {}
                Progress::Done => break,
                Progress::Gone => panic!("nothing was purged"),
            }
        }
        assert_eq!(ledger.export(slice, &mut bytes), Progress::Gone);
        (0..20).for_each(|_| change(&mut ledger, &mut random));

        let mut again = import(config(known_len_max), &bytes);
        if between == 0 {
            prop_assert!(dump(&again) == at_begin);
        }
        after.into_iter().for_each(|entry| again.try_apply(entry).unwrap());
        prop_assert!(dump(&again) == dump(&ledger), "{:?}\n\n{:?}", dump(&again), dump(&ledger));
    }
}

#[test]
fn the_changes_of_these_tests_are_of_every_kind() {
    let mut random = Random::new(1);
    let (mut ids, mut outcomes) = (0, [0; 5]);
    let mut ledger = Ledger::new(config(1_000));
    let (mut members, mut references, mut digests) = (0, 0, 0);
    for _ in 0..4_000 {
        let mut entries = next_entries(&ledger, &mut random, &mut ids);
        let entry = entries.pop().unwrap();
        for part in entries {
            let Entry::Attached { attachment, .. } = part else { panic!("{part:?}") };
            members += usize::from(attachment == galo_wire::Attachment::Members);
            references += usize::from(attachment == galo_wire::Attachment::Reference);
            ledger.apply(part);
        }
        if let Entry::Resolved { outcome, .. } = entry {
            outcomes[outcome as usize] += 1;
        }
        ledger.apply(entry);
    }
    digests += ledger.attachments.digests_of(&ledger.ended.places()).count();
    assert!(members > 100 && references > 100 && digests > 100, "{members} {references} {digests}");
    assert!(outcomes.iter().all(|count| *count > 20), "{outcomes:?}");
    assert_eq!(ledger.names().count(), 8);
    let books = ledger.conservation();
    assert!(books.declined.count > 20 && books.processed.iter().all(|tally| tally.count > 20), "{books:?}");
}

#[test]
fn what_was_rolled_up_stays_so() {
    let mut random = Random::new(4);
    let mut ledger = Ledger::new(LedgerConfig { bucket_bytes_max: 512 << 10, ..config(10) });
    let mut now_ms = NOON_MS;
    for number in 0..60_000 {
        now_ms += random.below(if number < 30_000 { 4_500 } else { 100 });
        // Now and then more than a small record holds.
        let amount_cents = 1 + random.below(1_000) + if number % 7 == 0 { 1 << 33 } else { 0 };
        let correlation_id = id(number);
        let (stage, requested_at_ms) = (Stage::At0, now_ms + random.below(5_000));
        ledger.apply(Entry::Accepted {
            correlation_id,
            amount_cents,
            stage,
            decided_at_ms: requested_at_ms,
            in_doubt: false,
            reason: Reason::Cheaper,
        });
        let (processor, outcome) = (Processor::PAIR[usize::from(number % 5 == 0)], Outcome::Processed);
        ledger.apply(Entry::Resolved { correlation_id, processor, requested_at_ms, outcome, status: 0 });
    }
    let mut levels = [0; 4];
    for buckets in ledger.buckets.iter().flatten() {
        let flow = buckets.export(UnixMillis(0), |row| {
            levels[usize::from(row.level)] += 1;
            ControlFlow::Continue(())
        });
        assert!(flow.is_continue());
    }
    assert!(levels.iter().all(|count| *count > 0), "every level is in the test: {levels:?}");
    ledger.begin_export();
    let mut bytes = Vec::new();
    while ledger.export(100, &mut bytes) == Progress::More {}
    // Lists that grew another way have other room to spare: within the same budget a little more may be rolled up.
    let again = import(ledger.config, &bytes);
    assert_eq!((everything(&again), again.conservation), (everything(&ledger), ledger.conservation));
    let again = import(LedgerConfig { bucket_bytes_max: 1 << 20, ..ledger.config }, &bytes);
    assert!(dump(&again) == dump(&ledger));
    for _ in 0..2_000 {
        let from = UnixMillis(NOON_MS + random.below(60_000_000));
        let to = UnixMillis(from.0 + random.below(60_000_000));
        assert_eq!(again.summarize(from, to), ledger.summarize(from, to));
    }
}

#[test]
fn hours_that_became_one_stay_one() {
    let mut buckets = crate::buckets::Buckets::new(crate::buckets::BYTES_MAX_LEAST);
    for hour in 0..1_000 {
        buckets.record(UnixMillis(NOON_MS + hour * 3_600_000), 5);
    }
    let (mut rows, mut again) = (Vec::new(), crate::buckets::Buckets::new(crate::buckets::BYTES_MAX_LEAST));
    let flow = buckets.export(UnixMillis(0), |row| {
        rows.push(row);
        ControlFlow::Continue(())
    });
    assert!(flow.is_continue());
    assert!(rows[0].last_ms - rows[0].start_ms > 3_600_000, "hours were merged");
    assert!(rows.iter().all(|row| again.import(*row)));
    for hour in 0..1_001 {
        let from = UnixMillis(NOON_MS + hour * 3_600_000);
        assert_eq!(again.sum(from, UnixMillis(u64::MAX)), buckets.sum(from, UnixMillis(u64::MAX)));
    }
}

#[test]
fn a_purge_ends_an_export_and_an_abandoned_one_leaves_no_trace() {
    let mut random = Random::new(9);
    let mut ids = 0;
    let mut ledger = Ledger::new(config(50));
    let mut plain = Ledger::new(config(50));
    for step in 0..900 {
        if step == 300 {
            ledger.begin_export();
            assert_eq!(ledger.export(3, &mut Vec::new()), Progress::More);
        }
        if step == 600 {
            ledger.abandon_export();
            assert_eq!(ledger.export(3, &mut Vec::new()), Progress::Gone);
        }
        for entry in next_entries(&plain, &mut random, &mut ids) {
            ledger.apply(entry);
            plain.apply(entry);
        }
        assert_eq!(everything(&ledger), everything(&plain));
    }
    assert!(dump(&ledger) == dump(&plain));
    ledger.begin_export();
    assert_eq!(ledger.export(3, &mut Vec::new()), Progress::More);
    ledger.apply(Entry::Purged);
    assert_eq!(ledger.export(3, &mut Vec::new()), Progress::Gone);
    let mut empty = Ledger::new(config(50));
    // Processors keep their names.
    ledger.names().for_each(|(processor, name)| empty.apply(Entry::Named { processor, name }));
    empty.apply(Entry::Purged);
    assert!(empty.names().count() > 0 && dump(&ledger) == dump(&empty));
    // That there was a purge is not forgotten.
    let mut bytes = Vec::new();
    ledger.begin_export();
    assert_eq!(ledger.export(100, &mut bytes), Progress::Done);
    assert!(dump(&import(config(50), &bytes)) == dump(&empty) && empty.was_purged());
}

#[test]
fn what_cannot_be_is_refused() {
    let remembered = |number| Fact::Remembered {
        correlation_id: id(number),
        amount_cents: 1,
        requested_at_ms: 1,
        processor: Processor::DEFAULT,
        declined: false,
    };
    let bucket = |start_ms, last_ms, count, level| Fact::Bucket {
        start_ms,
        last_ms,
        count,
        amount_cents: 1,
        processor: Processor::DEFAULT,
        level,
    };
    let mut ledger = Ledger::new(config(50));
    ledger.begin_replay();
    ledger.import(remembered(1)).unwrap();
    ledger.import(remembered(1)).unwrap();
    assert!(ledger.import(Fact::End).is_err(), "an id that comes twice is found at the end");
    let mut ledger = Ledger::new(config(50));
    let moments = Fact::MomentsPage { start_ms: 0, processor: Processor::DEFAULT, rows: 1, checksum: 0 };
    assert!(ledger.import(moments).is_err(), "a page without its rows");
    assert!(ledger.import_page(moments, &[0; BLOCK_SIZE]).is_err(), "a moment that counts nothing");
    ledger.import(remembered(1)).unwrap();
    for fact in [
        Fact::Purged,
        bucket(0, 0, 0, 0),
        bucket(0, 0, 1 << 32, 0),
        bucket(0, 999, 1, 2),
        bucket(500, 1_499, 1, 1),
        bucket(0, 3_599_999, 1, 4),
        bucket(3_600_000, 0, 1, 3),
    ] {
        assert!(ledger.import(fact).is_err(), "{fact:?}");
    }
    ledger.import(bucket(1_000, 1_999, 1, 1)).unwrap();
    // Sums that no number holds.
    ledger.import(bucket(2_000, 2_999, u64::MAX - 1, 1)).unwrap();
    assert!(ledger.import(bucket(3_000, 3_999, 1, 1)).is_err());
    let accepted = |number, amount_cents| Fact::Accepted {
        correlation_id: id(number),
        amount_cents,
        decided_at_ms: 0,
        reason: Reason::Unstated,
        stage: Stage::Waiting,
        in_doubt: false,
    };
    let mut ledger = Ledger::new(config(50));
    ledger.import(accepted(1, u64::MAX)).unwrap();
    assert!(ledger.import(accepted(2, 1)).is_err());
}

#[test]
fn forgetting_that_overtakes_the_export_leaves_no_gap() {
    let mut ledger = Ledger::new(config(8));
    let accepted = |number| Entry::Accepted {
        correlation_id: id(number),
        amount_cents: 7,
        stage: Stage::At0,
        decided_at_ms: NOON_MS,
        in_doubt: false,
        reason: Reason::Cheaper,
    };
    let processed = |number| Entry::Resolved {
        correlation_id: id(number),
        processor: Processor::DEFAULT,
        requested_at_ms: NOON_MS,
        outcome: Outcome::Processed,
        status: 0,
    };
    for number in 0..8 {
        ledger.apply(accepted(number));
        ledger.apply(processed(number));
    }
    ledger.begin_export();
    let mut bytes = Vec::new();
    // Begin, a bucket, and the first two remembered ids; then seven are forgotten, and the first comes again.
    while bytes.len() < 4 * BLOCK_SIZE {
        assert_eq!(ledger.export(1, &mut bytes), Progress::More);
    }
    let after: Vec<Entry> =
        (8..15).flat_map(|number| [accepted(number), processed(number)]).chain([accepted(0)]).collect();
    after.iter().for_each(|entry| ledger.apply(*entry));
    while ledger.export(1, &mut bytes) == Progress::More {}
    let mut replayed = import(config(8), &bytes);
    for entry in after {
        replayed.try_apply(entry).unwrap();
    }
    assert_eq!(dump(&replayed), dump(&ledger));
}

/// Pages that are full, that end with a slice, and rows that are too far apart for one; milliseconds and ids on both sides.
#[test]
fn what_is_many_stands_in_pages_and_takes_no_more_room_than_is_said() {
    let mut random = Random::new(12);
    for (payments, apart_ms, slice) in
        [(9_000, 1, 100_000), (9_000, 1, 512), (9_000, 700, 512), (700, 1 << 31, 512)]
    {
        let mut ledger = Ledger::new(config(5_000));
        for number in 0..payments {
            let (correlation_id, requested_at_ms) = (id(number), NOON_MS + number * apart_ms);
            let (amount_cents, stage) = (1 + random.below(1 << 40), Stage::At0);
            ledger.apply(Entry::Accepted {
                correlation_id,
                amount_cents,
                stage,
                decided_at_ms: requested_at_ms,
                in_doubt: false,
                reason: Reason::Cheaper,
            });
            if number % 100 > 0 {
                let (processor, outcome) =
                    (Processor::PAIR[usize::from(number % 3 == 0)], Outcome::Processed);
                ledger.apply(Entry::Resolved {
                    correlation_id,
                    processor,
                    requested_at_ms,
                    outcome,
                    status: 0,
                });
            }
        }
        ledger.begin_export();
        let (size_max, mut bytes) = (ledger.export_size_max(), Vec::new());
        while ledger.export(slice, &mut bytes) == Progress::More {}
        assert!(bytes.len() as u64 <= size_max, "{} {size_max}", bytes.len());
        let (again, page_rows) = import_counted(config(5_000), &bytes);
        assert!(dump(&again) == dump(&ledger));
        // But for the lonely ones of the last case nearly all, and of a third of their size.
        let rows = payments - payments / 100 + ledger.known_len() as u64;
        assert!(page_rows > rows / 20 * if apart_ms < 1_000 { 19 } else { 10 }, "{page_rows} of {rows}");
        assert!(apart_ms > 1_000 || (bytes.len() as u64) < rows * 28);
    }
}

#[test]
fn a_snapshot_of_the_version_before_is_read() {
    let moment = |offset_ms, count| wire_journal::Moment { offset_ms, count, amount_cents: 5 };
    let rows = [
        Fact::Begin { open_len: 0, known_len: 2, purged: true },
        Fact::Moments {
            second_ms: NOON_MS,
            processor: Processor::FALLBACK,
            moments: [moment(3, 2), moment(999, 1), moment(0, 0)],
        },
        Fact::Remembered {
            correlation_id: id(1),
            amount_cents: 4,
            requested_at_ms: NOON_MS + 3,
            processor: Processor::FALLBACK,
            declined: false,
        },
        Fact::End,
    ];
    let bytes: Vec<u8> =
        (1..).zip(rows).flat_map(|(sequence, fact)| Record { sequence, fact }.encode()).collect();
    let ledger = import(config(5), &bytes);
    assert!(ledger.was_purged() && ledger.known_len() == 1);
    let of = |from, to| ledger.summarize(UnixMillis(NOON_MS + from), UnixMillis(NOON_MS + to)).totals[1];
    assert_eq!((of(3, 3).count, of(0, 999).count, of(4, 998).count), (2, 3, 0));
    assert_eq!(of(0, 999).amount_cents, 10);
}
