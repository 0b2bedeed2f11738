//! The protocol, byte by byte: what each record looks like on the wire, and that nothing else is taken for one.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use galo_wire::record::{
    Accept, Acknowledgement, Assignment, Claim, Completion, Flush, Flushed, Grant, HealthNews, HealthReport,
    HealthSource, Hello, Intent, IntentRecorded, Lease, LookupQuery, LookupReply, PurgeQuery, PurgeReply,
    Purged, Ready, Release, Role, Standing, SummaryQuery, SummaryReply, Verdict, Withdrawal,
};
use galo_wire::{
    CorrelationId, FRAME_BODY_SIZE_MAX, FRAME_HEADER_SIZE, FrameError, FrameWriter, Kind, Message, Outcome,
    PROTOCOL_VERSION, Processor, Stage, decode_frames,
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
                reserved: 0,
                incarnation: 0x1122_3344_5566_7788,
            }
            .into(),
            "10000000 01 00 0100 0200 00 02 0300 0000 8877665544332211",
        ),
        (
            Accept {
                slot: 7,
                correlation_id: ID,
                amount_cents: 1990,
                requested_at_ms: 0x0198_0d5a_2b3c,
                expires_at_us: 0x0102_0304_0506,
                stage: Stage::AtDefault,
            }
            .into(),
            "2d000000 02 00 0100 07000000 . c607000000000000 3c2b5a0d98010000 0605040302010000 01",
        ),
        (
            Intent { slot: 8, correlation_id: ID, requested_at_ms: 5, processor: Processor::Fallback }.into(),
            "1d000000 03 00 0100 08000000 . 0500000000000000 01",
        ),
        (
            Completion {
                sequence: 9,
                correlation_id: ID,
                requested_at_ms: 6,
                processor: Processor::Default,
                outcome: Outcome::Unknown,
            }
            .into(),
            "22000000 04 00 0100 0900000000000000 . 0600000000000000 00 02",
        ),
        (
            Claim {
                slot: 10,
                correlation_id: ID,
                amount_cents: 1,
                requested_at_ms: 2,
                stage: Stage::AtFallback,
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
        (PurgeQuery { slot: 13 }.into(), "04000000 09 00 0100 0d000000"),
        (
            HealthReport {
                processor: Processor::Fallback,
                source: HealthSource::Traffic,
                failing: true,
                response_ms: 100,
            }
            .into(),
            "07000000 0a 00 0100 01 01 01 64000000",
        ),
        (Ready { claim_count: 14 }.into(), "08000000 0b 00 0100 0e00000000000000"),
        (
            Grant { slot: 15, correlation_id: ID, verdict: Verdict::Conflict }.into(),
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
            SummaryReply {
                slot: 19,
                resolution_ms: 1,
                default_requests: 2,
                default_amount_cents: 3,
                fallback_requests: 4,
                fallback_amount_cents: 5,
            }
            .into(),
            "28000000 26 00 0100 13000000 01000000 0200000000000000 0300000000000000 0400000000000000 0500000000000000",
        ),
        (
            LookupReply {
                slot: 20,
                correlation_id: ID,
                standing: Standing::Processed,
                amount_cents: 6,
                requested_at_ms: 7,
                stage: Stage::AtDefault,
                in_doubt: false,
            }
            .into(),
            "27000000 27 00 0100 14000000 . 02 0600000000000000 0700000000000000 01 00",
        ),
        (Purged { generation: 21 }.into(), "04000000 28 00 0100 15000000"),
        (PurgeReply { slot: 22 }.into(), "04000000 29 00 0100 16000000"),
        (Lease { processor: Processor::Default }.into(), "01000000 2a 00 0100 00"),
        (Flush { number: 23 }.into(), "04000000 2c 00 0100 17000000"),
        (Flushed { number: 24 }.into(), "04000000 0c 00 0100 18000000"),
        (
            HealthNews {
                processor: Processor::Default,
                source: HealthSource::Check,
                failing: false,
                response_ms: 0x0403_0201,
            }
            .into(),
            "07000000 2b 00 0100 00 00 00 01020304",
        ),
    ]
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

proptest! {
    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let (_, result) = decoded(&bytes);
        if let Ok(used) = result {
            prop_assert!(used <= bytes.len());
        }
    }

    #[test]
    fn any_order_of_records_arrives_in_that_order(picks in proptest::collection::vec(0_usize..22, 0..200)) {
        let golden = golden();
        let messages: Vec<Message> = picks.iter().map(|pick| golden[*pick].0).collect();
        let bytes = frames(&messages);
        prop_assert_eq!(decoded(&bytes), (messages, Ok(bytes.len())));
    }
}
