//! The protocol, byte by byte: what each record looks like on the wire, and that nothing else is taken for one.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use galo_wire::record::{
    Accept, Acknowledgement, Admission, Assignment, CancelQuery, Claim, Completion, Contradiction,
    Discrepancy, Flush, Flushed, Grant, HealthNews, HealthReport, HealthSource, Hello, Intent,
    IntentRecorded, Lease, LookupQuery, LookupReply, Notice, Notified, Opened, Part, PurgeQuery, PurgeReply,
    Purged, Ready, Release, Role, Standing, SummaryQuery, SummaryReply, SummaryTotal, Withdrawal, Yield,
    Yielded, processors_fingerprint,
};
use galo_wire::{
    Attachment, AttemptState, CorrelationId, FRAME_BODY_SIZE_MAX, FRAME_HEADER_SIZE, FrameError, FrameWriter,
    History, Kind, Message, Outcome, PART_SIZE, PROTOCOL_VERSION, PastDecision, Processor, Reason, Stage,
    decode_frames,
};
use proptest::prelude::*;

const ID: CorrelationId = CorrelationId([
    0x4a, 0x79, 0x01, 0xb8, 0x7d, 0x26, 0x4d, 0x9d, 0xaa, 0x19, 0x4d, 0xc1, 0xc7, 0xcf, 0x60, 0xb3,
]);
/// The bytes of [`ID`], as they stand in the expected frames below.
const ID_HEX: &str = "4a7901b87d264d9daa194dc1c7cf60b3";

/// One of each kind, every field with a value of its own, and its frame. A dot stands for [`ID_HEX`].
fn golden() -> Vec<(Message, &'static str)> {
    vec![
        (
            Hello {
                protocol_version: PROTOCOL_VERSION,
                role: Role::Gateway,
                instance: 2,
                thread: 3,
                processors: 0x0b0a,
                incarnation: 0x1122_3344_5566_7788,
            }
            .into(),
            "10000000 01 00 0100 0600 00 02 0300 0a0b 8877665544332211",
        ),
        (
            Part { attachment: Attachment::Members, size: 11, text: part_text(b"{\"payer\":1}") }.into(),
            "32000000 11 00 0100 00 0b 7b227061796572223a317d 00000000000000000000000000000000000000000000000000000000000000000000000000",
        ),
        (
            Part { attachment: Attachment::Reference, size: 48, text: [0x61; PART_SIZE] }.into(),
            "32000000 11 00 0100 01 30 616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161",
        ),
        (
            Accept {
                slot: 7,
                correlation_id: ID,
                amount_cents: 1990,
                decided_at_ms: 0x0198_0d5a_2b3c,
                expires_at_us: 0x0102_0304_0506,
                stage: Stage::At0,
                reason: Reason::Probe,
            }
            .into(),
            "2e000000 02 00 0100 07000000 . c607000000000000 3c2b5a0d98010000 0605040302010000 01 04",
        ),
        (
            Intent {
                slot: 8,
                correlation_id: ID,
                requested_at_ms: 5,
                processor: Processor::FALLBACK,
                reason: Reason::PatienceOver,
                waited_for_ms: 0x0403_0201,
            }
            .into(),
            "22000000 03 00 0100 08000000 . 0500000000000000 01 03 01020304",
        ),
        (
            Completion {
                sequence: 9,
                correlation_id: ID,
                requested_at_ms: 6,
                processor: Processor::DEFAULT,
                outcome: Outcome::Unknown,
                status: 0,
            }
            .into(),
            "24000000 04 00 0100 0900000000000000 . 0600000000000000 00 02 0000",
        ),
        (
            Completion {
                sequence: 9,
                correlation_id: ID,
                requested_at_ms: 6,
                processor: Processor::N7,
                outcome: Outcome::Declined,
                status: 402,
            }
            .into(),
            "24000000 04 00 0100 0900000000000000 . 0600000000000000 07 04 9201",
        ),
        (
            Claim {
                slot: 10,
                correlation_id: ID,
                amount_cents: 1,
                requested_at_ms: 2,
                stage: Stage::At1,
                in_doubt: true,
            }
            .into(),
            "26000000 05 00 0100 0a000000 . 0100000000000000 0200000000000000 02 01",
        ),
        (Release { correlation_id: ID }.into(), "10000000 06 00 0100 ."),
        (
            SummaryQuery { slot: 11, from_ms: 1, to_ms: u64::MAX }.into(),
            "14000000 07 00 0100 0b000000 0100000000000000 ffffffffffffffff",
        ),
        (LookupQuery { slot: 12, correlation_id: ID }.into(), "14000000 08 00 0100 0c000000 ."),
        (
            Discrepancy {
                slot: 28,
                correlation_id: ID,
                processor: Processor::N5,
                requested_at_ms: 0x0198_0d5a_2b3c,
                amount_cents: 28,
                is_new: true,
            }
            .into(),
            "26000000 0d 00 0100 1c000000 . 05 3c2b5a0d98010000 1c00000000000000 01",
        ),
        (
            Contradiction { slot: 29, correlation_id: ID, processor: Processor::N5, amount_cents: 28 }.into(),
            "1d000000 34 00 0100 1d000000 . 05 1c00000000000000",
        ),
        (CancelQuery { slot: 25, correlation_id: ID }.into(), "14000000 0e 00 0100 19000000 ."),
        (Yielded { number: 26, correlation_id: ID, idle: true }.into(), "15000000 0f 00 0100 1a000000 . 01"),
        (Yield { number: 27, correlation_id: ID }.into(), "14000000 2d 00 0100 1b000000 ."),
        (Notice { correlation_id: ID, processor: Processor::N6 }.into(), "11000000 10 00 0100 . 06"),
        (Notified { correlation_id: ID, processor: Processor::N2 }.into(), "11000000 33 00 0100 . 02"),
        (
            Opened { region: 30, ring: 31, opening: 32 }.into(),
            "0e000000 35 00 0100 1e00000000000000 1f00 20000000",
        ),
        (PurgeQuery { slot: 13 }.into(), "04000000 09 00 0100 0d000000"),
        (
            HealthReport {
                processor: Processor::FALLBACK,
                source: HealthSource::Traffic,
                failing: true,
                response_ms: 100,
                retry_after_ms: 5_000,
            }
            .into(),
            "0b000000 0a 00 0100 01 01 01 64000000 88130000",
        ),
        (Ready { held_len_max: 14 }.into(), "08000000 0b 00 0100 0e00000000000000"),
        (
            Grant { slot: 15, correlation_id: ID, admission: Admission::Conflict }.into(),
            "15000000 21 00 0100 0f000000 . 02",
        ),
        (IntentRecorded { slot: 16, correlation_id: ID }.into(), "14000000 22 00 0100 10000000 ."),
        (Acknowledgement { sequence: 17 }.into(), "08000000 23 00 0100 1100000000000000"),
        (
            Assignment {
                correlation_id: ID,
                amount_cents: 3,
                requested_at_ms: 4,
                stage: Stage::Waiting,
                in_doubt: false,
            }
            .into(),
            "22000000 24 00 0100 . 0300000000000000 0400000000000000 00 00",
        ),
        (Withdrawal { slot: 18, correlation_id: ID }.into(), "14000000 25 00 0100 12000000 ."),
        (
            SummaryTotal { processor: Processor::N3, requests: 2, amount_cents: 3 }.into(),
            "11000000 31 00 0100 03 0200000000000000 0300000000000000",
        ),
        (
            SummaryReply { slot: 19, resolution_ms: 1, total_count: 8 }.into(),
            "09000000 26 00 0100 13000000 01000000 08",
        ),
        (
            LookupReply {
                slot: 20,
                correlation_id: ID,
                standing: Standing::Processed,
                amount_cents: 6,
                requested_at_ms: 7,
                stage: Stage::At0,
                in_doubt: false,
                decision_count: 2,
                decisions_forgotten: true,
                status: 0,
            }
            .into(),
            "2b000000 27 00 0100 14000000 . 02 0600000000000000 0700000000000000 01 00 02 01 0000",
        ),
        (
            LookupReply {
                slot: 20,
                correlation_id: ID,
                standing: Standing::Declined,
                amount_cents: 6,
                requested_at_ms: 7,
                stage: Stage::At7,
                in_doubt: false,
                decision_count: 1,
                decisions_forgotten: false,
                status: 402,
            }
            .into(),
            "2b000000 27 00 0100 14000000 . 03 0600000000000000 0700000000000000 08 00 01 00 9201",
        ),
        (
            PastDecision {
                at_ms: 8,
                waited_for_ms: 0x0807_0605,
                stage: Stage::At0,
                reason: Reason::Queued,
                attempt: AttemptState::InDoubt,
                was_in_doubt: true,
            }
            .into(),
            "10000000 30 00 0100 0800000000000000 05060708 01 0b 03 01",
        ),
        (Purged { generation: 21 }.into(), "04000000 28 00 0100 15000000"),
        (PurgeReply { slot: 22 }.into(), "04000000 29 00 0100 16000000"),
        (Lease { processor: Processor::DEFAULT }.into(), "01000000 2a 00 0100 00"),
        (Flush { number: 23 }.into(), "04000000 2c 00 0100 17000000"),
        (Flushed { number: 24 }.into(), "04000000 0c 00 0100 18000000"),
        (
            HealthNews {
                processor: Processor::DEFAULT,
                source: HealthSource::Check,
                failing: false,
                response_ms: 0x0403_0201,
                retry_after_ms: 0x0807_0605,
            }
            .into(),
            "0b000000 2b 00 0100 00 00 00 01020304 05060708",
        ),
    ]
}

fn part_text(bytes: &[u8]) -> [u8; PART_SIZE] {
    let mut text = [0; PART_SIZE];
    text[..bytes.len()].copy_from_slice(bytes);
    text
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: String = hex.replace('.', ID_HEX).chars().filter(|c| !c.is_whitespace()).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn frames(messages: &[Message]) -> Vec<u8> {
    let mut writer = FrameWriter::default();
    messages.iter().for_each(|message| writer.push(*message));
    writer.take(Vec::new())
}

fn decoded(bytes: &[u8]) -> (Vec<Message>, Result<usize, FrameError>) {
    let mut messages = Vec::new();
    let result = decode_frames(bytes, |message| messages.push(message));
    (messages, result)
}

#[test]
fn every_kind_has_its_golden_bytes() {
    let golden = golden();
    for (message, hex) in &golden {
        let bytes = bytes_of(hex);
        assert_eq!(frames(&[*message]), bytes, "{message:?}");
        assert_eq!(decoded(&bytes), (vec![*message], Ok(bytes.len())));
    }
    let covered: Vec<Kind> = golden.iter().map(|(message, _)| message.kind()).collect();
    for kind in Kind::ALL {
        assert!(covered.contains(kind), "{kind:?} has golden bytes");
        assert_eq!(Kind::from_number(*kind as u8), Some(*kind));
    }
}

#[test]
fn every_prefix_decodes_to_the_whole_frames_in_it() {
    let messages: Vec<Message> = golden().into_iter().map(|(message, _)| message).collect();
    let bytes = frames(&messages);
    for end in 0..=bytes.len() {
        let (prefix, result) = decoded(&bytes[..end]);
        let used = result.unwrap();
        assert_eq!(prefix[..], messages[..prefix.len()]);
        assert_eq!(used, frames(&prefix).len(), "what is used is the whole frames");
        assert!(used <= end);
    }
}

#[test]
fn every_value_of_every_byte_is_decoded_or_refused_without_a_panic() {
    let mut refused = 0;
    for (message, _) in golden() {
        let bytes = frames(&[message]);
        for at in 0..bytes.len() {
            for value in 0..=u8::MAX {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let (messages, result) = decoded(&damaged);
                match result {
                    Ok(used) if used == bytes.len() => {
                        assert_eq!(frames(&messages), damaged, "no byte is ignored")
                    }
                    Ok(_) => assert!(at < FRAME_HEADER_SIZE, "only a header can make a frame longer"),
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > 10_000, "only {refused} were refused");
}

#[test]
fn each_broken_rule_is_named() {
    let hello = bytes_of(golden()[0].1);
    let with = |at: usize, value: u8| {
        let mut bytes = hello.clone();
        bytes[at] = value;
        decoded(&bytes).1.unwrap_err()
    };
    assert_eq!(with(4, 0), FrameError::UnknownKind(0));
    assert_eq!(with(5, 1), FrameError::Reserved(1));
    assert_eq!(with(6, 0), FrameError::Size { body_size: 16, count: 0, record_size: 16 });
    assert_eq!(with(0, 17), FrameError::Size { body_size: 17, count: 1, record_size: 16 });
    assert_eq!(with(10, 9), FrameError::Record { kind: Kind::Hello, index: 0 });
}

#[test]
fn a_batch_beyond_a_frame_takes_two() {
    let release = Message::from(Release { correlation_id: ID });
    let fits = FRAME_BODY_SIZE_MAX / Kind::Release.record_size();
    let bytes = frames(&vec![release; fits + 1]);
    assert_eq!(bytes.len(), (fits + 1) * Kind::Release.record_size() + 2 * FRAME_HEADER_SIZE);
    assert_eq!(decoded(&bytes).0.len(), fits + 1);
}

#[test]
fn a_writer_that_was_emptied_begins_a_new_frame() {
    let mut writer = FrameWriter::default();
    writer.push(PurgeQuery { slot: 1 });
    let first = writer.take(Vec::new());
    assert!(writer.is_empty());
    writer.push(PurgeQuery { slot: 2 });
    let second = writer.take(first.clone());
    assert_eq!(decoded(&second).0, [Message::from(PurgeQuery { slot: 2 })]);
    assert_eq!(first.len(), second.len());
}

#[test]
fn a_history_is_what_came_before_its_reply_or_is_said_to_be_forgotten() {
    let decision = |at_ms| PastDecision { at_ms, ..PastDecision::NONE };
    let reply = |decision_count, decisions_forgotten| LookupReply {
        slot: 1,
        correlation_id: ID,
        standing: Standing::Open,
        amount_cents: 1,
        requested_at_ms: 0,
        stage: Stage::Waiting,
        in_doubt: false,
        decision_count,
        decisions_forgotten,
        status: 0,
    };
    let mut gathering = History::EMPTY;
    (1..=6).for_each(|at_ms| gathering.push(decision(at_ms)));
    let history = gathering.complete(&reply(6, true));
    assert_eq!(history.decisions(), [1, 2, 3, 4, 5, 6].map(decision));
    assert!(history.forgotten);
    assert_eq!(gathering, History::EMPTY, "the next one begins anew");
    gathering.push(decision(1));
    assert_eq!(gathering.complete(&reply(2, false)), History::FORGOTTEN, "one is missing");
    (1..=7).for_each(|at_ms| gathering.push(decision(at_ms)));
    assert_eq!(gathering.complete(&reply(6, false)), History::FORGOTTEN, "no reply has seven");
    assert_eq!(gathering.complete(&reply(0, false)), History::EMPTY);
}

/// Peers compare it, so it is part of the protocol.
#[test]
fn the_fingerprint_of_processors_depends_on_each_name_and_number() {
    let of = |names: &[(Processor, &str)]| processors_fingerprint(names.iter().copied());
    let pair = [(Processor::DEFAULT, "default"), (Processor::FALLBACK, "fallback")];
    assert_eq!(of(&pair), 0x8fd3);
    let others = [
        of(&[]),
        of(&pair[..1]),
        of(&[(Processor::FALLBACK, "default"), (Processor::DEFAULT, "fallback")]),
        of(&[(Processor::DEFAULT, "default"), (Processor::FALLBACK, "fallbacks")]),
        of(&[(Processor::DEFAULT, "default"), (Processor::N2, "fallback")]),
    ];
    assert!(others.iter().all(|other| *other != of(&pair) && *other != 0), "{others:?}");
}

/// What waits for a gateway waits as messages: in a hand-over as many as there are payments.
#[test]
fn a_message_is_small() {
    assert!(size_of::<Message>() <= 56, "{}", size_of::<Message>());
}

proptest! {
    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let (_, result) = decoded(&bytes);
        if let Ok(used) = result {
            prop_assert!(used <= bytes.len());
        }
    }

    #[test]
    fn any_order_of_records_arrives_in_that_order(picks in proptest::collection::vec(0_usize..33, 0..200)) {
        let golden = golden();
        let messages: Vec<Message> = picks.iter().map(|pick| golden[*pick].0).collect();
        let bytes = frames(&messages);
        prop_assert_eq!(decoded(&bytes), (messages, Ok(bytes.len())));
    }
}
