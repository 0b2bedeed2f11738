//! A gateway that speaks to an aggregator over its socket, for tests, benchmarks and `examples/fill.rs`.

#![allow(dead_code, reason = "each user needs its part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use galo_wire::record::{
    Accept, Acknowledgement, Admission, Claim, Completion, Grant, Hello, Intent, LookupQuery, LookupReply,
    PurgeQuery, Ready, Role, SummaryQuery, processors_fingerprint,
};
use galo_wire::{
    CorrelationId, FrameWriter, History, Message, Outcome, PROCESSORS_LEN_MAX, PROTOCOL_VERSION, Processor,
    Reason, Stage, decode_frames,
};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const NOON_MS: u64 = 1_752_580_800_000;

/// Totals by `Processor::index`.
#[derive(Clone, Copy, Default, Debug)]
pub struct Summary {
    pub requests: [u64; PROCESSORS_LEN_MAX],
    pub amount_cents: [u64; PROCESSORS_LEN_MAX],
}

/// A gateway's connection.
pub struct Gateway {
    stream: UnixStream,
    received: Vec<u8>,
    pub messages: std::collections::VecDeque<Message>,
    frames: FrameWriter,
    sequence: u64,
}

impl Gateway {
    /// Waits until somebody listens.
    pub fn connect(path: &Path, instance: u8) -> Self {
        let begin = Instant::now();
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) => assert!(begin.elapsed() < PATIENCE, "{}: {error}", path.display()),
            }
            std::thread::yield_now();
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut gateway = Self {
            stream,
            received: Vec::new(),
            messages: std::collections::VecDeque::new(),
            frames: FrameWriter::default(),
            sequence: 0,
        };
        gateway.push(Hello {
            protocol_version: PROTOCOL_VERSION,
            role: Role::Gateway,
            instance,
            thread: 0,
            processors: processors_fingerprint([
                (Processor::DEFAULT, "default"),
                (Processor::FALLBACK, "fallback"),
            ]),
            incarnation: 1,
        });
        gateway.flush().unwrap();
        assert!(matches!(gateway.next(), Some(Message::Hello(_))));
        gateway
    }

    pub fn push(&mut self, message: impl Into<Message>) {
        self.frames.push(message);
    }

    pub fn flush(&mut self) -> std::io::Result<()> {
        let bytes = self.frames.take(Vec::new());
        self.stream.write_all(&bytes)
    }

    /// The next message; `None` if the aggregator is gone.
    pub fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Some(message);
            }
            let mut bytes = [0; 65_536];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
            let used = decode_frames(&self.received, |message| self.messages.push_back(message)).unwrap();
            self.received.drain(..used);
        }
    }

    /// From here on [`Self::poll`] and [`Self::flush_all`] are used alone.
    pub fn set_nonblocking(&mut self) {
        self.stream.set_nonblocking(true).unwrap();
    }

    /// The next message, if one is there.
    pub fn poll(&mut self) -> Option<Message> {
        if self.messages.is_empty() {
            let mut bytes = [0; 65_536];
            match self.stream.read(&mut bytes) {
                Ok(0) => panic!("the aggregator is gone"),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
            }
            let used = decode_frames(&self.received, |message| self.messages.push_back(message)).unwrap();
            self.received.drain(..used);
        }
        self.messages.pop_front()
    }

    /// Writes everything, waiting for room by asking again.
    pub fn flush_all(&mut self) {
        let bytes = self.frames.take(Vec::new());
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
            }
        }
    }

    /// The next message that `pick` wants; others are passed over. `None` if the aggregator is gone.
    pub fn wait<T>(&mut self, pick: impl Fn(Message) -> Option<T>) -> Option<T> {
        loop {
            if let Some(wanted) = pick(self.next()?) {
                return Some(wanted);
            }
        }
    }

    pub fn push_accept(&mut self, id: CorrelationId, amount_cents: u64) {
        self.push_accept_at(id, amount_cents, Stage::At0, Reason::Cheaper);
    }

    fn push_accept_at(&mut self, id: CorrelationId, amount_cents: u64, stage: Stage, reason: Reason) {
        let decided_at_ms = NOON_MS + amount_cents;
        self.push(Accept {
            slot: 7,
            correlation_id: id,
            amount_cents,
            decided_at_ms,
            expires_at_us: u64::MAX,
            stage,
            reason,
        });
    }

    pub fn next_grant(&mut self) -> Option<Grant> {
        self.wait(|message| if let Message::Grant(grant) = message { Some(grant) } else { None })
    }

    pub fn accept(&mut self, id: CorrelationId, amount_cents: u64) -> Admission {
        self.push_accept(id, amount_cents);
        self.flush().unwrap();
        self.next_grant().unwrap().admission
    }

    pub fn push_intent(&mut self, id: CorrelationId, requested_at_ms: u64, processor: Processor) {
        let (reason, waited_for_ms) = (Reason::PatienceOver, 1_234);
        self.push(Intent { slot: 7, correlation_id: id, requested_at_ms, processor, reason, waited_for_ms });
    }

    /// Returns the completion's number.
    pub fn push_completion(&mut self, id: CorrelationId, requested_at_ms: u64, outcome: Outcome) -> u64 {
        self.sequence += 1;
        let (sequence, processor) = (self.sequence, Processor::DEFAULT);
        self.push(Completion {
            sequence,
            correlation_id: id,
            requested_at_ms,
            processor,
            outcome,
            status: 0,
        });
        sequence
    }

    /// Waits until the completion of this number is acknowledged. That by itself waits for company, so a question is asked.
    pub fn acknowledged(&mut self, number: u64) -> Option<()> {
        self.push(LookupQuery { slot: u32::MAX, correlation_id: id(0) });
        self.flush().ok()?;
        self.wait(|message| match message {
            Message::Acknowledgement(Acknowledgement { sequence }) if sequence >= number => Some(()),
            _ => None,
        })?;
        self.wait(|message| match message {
            Message::LookupReply(LookupReply { slot: u32::MAX, .. }) => Some(()),
            _ => None,
        })
    }

    /// Has these payments granted, all at once, and then those processed for which there is a `requestedAt`; the others stay open,
    /// waiting.
    pub fn fill(&mut self, numbers: Range<u64>, requested_at_ms: impl Fn(u64) -> Option<u64>) {
        for number in numbers.clone() {
            let (stage, reason) = match requested_at_ms(number) {
                Some(_) => (Stage::At0, Reason::Cheaper),
                None => (Stage::Waiting, Reason::AwaitsAny),
            };
            self.push_accept_at(id(number), amount_cents(number), stage, reason);
        }
        self.flush().unwrap();
        for _ in numbers.clone() {
            assert_eq!(self.next_grant().expect("the aggregator lives").admission, Admission::Granted);
        }
        let mut last = None;
        for number in numbers {
            if let Some(requested_at_ms) = requested_at_ms(number) {
                last = Some(self.push_completion(id(number), requested_at_ms, Outcome::Processed));
            }
        }
        if let Some(last) = last {
            self.acknowledged(last).expect("the aggregator lives");
        }
    }

    pub fn push_claim(&mut self, claim: Claim) {
        self.push(claim);
    }

    pub fn ready(&mut self) {
        self.push(Ready { held_len_max: u64::MAX });
    }

    pub fn lookup(&mut self, id: CorrelationId) -> LookupReply {
        self.push(LookupQuery { slot: 9, correlation_id: id });
        self.flush().unwrap();
        self.wait(|message| if let Message::LookupReply(reply) = message { Some(reply) } else { None })
            .unwrap()
    }

    /// What a look-up tells of a payment's decisions.
    pub fn history(&mut self, id: CorrelationId) -> History {
        self.push(LookupQuery { slot: 9, correlation_id: id });
        self.flush().unwrap();
        let mut gathering = History::EMPTY;
        loop {
            match self.next().unwrap() {
                Message::PastDecision(decision) => gathering.push(decision),
                Message::LookupReply(reply) => return gathering.complete(&reply),
                _ => {}
            }
        }
    }

    pub fn summary(&mut self, from_ms: u64, to_ms: u64) -> Summary {
        self.push(SummaryQuery { slot: 9, from_ms, to_ms });
        self.flush().unwrap();
        let mut summary = Summary::default();
        let mut total_count = 0;
        loop {
            match self.next().unwrap() {
                Message::SummaryTotal(total) => {
                    summary.requests[total.processor.index()] = total.requests;
                    summary.amount_cents[total.processor.index()] = total.amount_cents;
                    total_count += 1;
                }
                Message::SummaryReply(reply) => {
                    assert_eq!(reply.total_count, total_count, "totals stand before their reply");
                    return summary;
                }
                _ => {}
            }
        }
    }

    pub fn purge(&mut self) {
        self.push(PurgeQuery { slot: 9 });
        self.flush().unwrap();
        self.wait(|message| matches!(message, Message::PurgeReply(_)).then_some(())).unwrap();
    }
}

/// An id that looks random and is the same in every run.
pub fn id(number: u64) -> CorrelationId {
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits ^= bits >> 31;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..].copy_from_slice(&bits.to_be_bytes());
    CorrelationId(bytes)
}

/// The amount of the payment of this number where [`Gateway::fill`] made it.
pub fn amount_cents(number: u64) -> u64 {
    1 + number % 10_000
}
