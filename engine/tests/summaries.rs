//! A summary shows what any gateway knew when it was asked for, whichever gateway was asked.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test file uses its part")]
mod gateways;

use galo_engine::coordinator::{Coordinator, SessionId};
use galo_engine::time::{Now, UnixMillis};
use galo_engine::{CorrelationId, Outcome, PROCESSORS_LEN_MAX, Processor, Stage};
use galo_wire::record::{Accept, Completion, Flush, Flushed, Hello, Ready, Role, SummaryQuery};
use galo_wire::{Message, PROTOCOL_VERSION, Reason};

const START_US: u64 = 1_000_000;

struct Cluster {
    coordinator: Coordinator,
    now_us: u64,
}

impl Cluster {
    fn new(gateway_count: u8) -> (Self, Vec<SessionId>) {
        let mut config = gateways::coordinator_config();
        config.ledger.known_len_max = 100;
        // No leases in between.
        config.health_interval_us = [u64::MAX / 2; PROCESSORS_LEN_MAX];
        config.claim_grace_us = 0;
        let start = Now { monotonic_us: START_US, unix_ms: UnixMillis(0) };
        let mut cluster = Self { coordinator: Coordinator::new(config, start), now_us: START_US };
        let sessions = (1..=gateway_count).map(|instance| cluster.join(instance)).collect();
        (cluster, sessions)
    }

    fn join(&mut self, instance: u8) -> SessionId {
        let (protocol_version, role) = (PROTOCOL_VERSION, Role::Gateway);
        let hello = Hello { protocol_version, role, instance, thread: 0, processors: 0, incarnation: 1 };
        let session = self.coordinator.connect(hello).unwrap();
        self.tell(session, Ready { held_len_max: u64::MAX });
        session
    }

    fn now(&self) -> Now {
        Now { monotonic_us: self.now_us, unix_ms: UnixMillis(self.now_us / 1_000) }
    }

    /// Tells, and returns what is sent in answer.
    fn tell(&mut self, from: SessionId, message: impl Into<Message>) -> Vec<(SessionId, Message)> {
        self.coordinator.handle(from, message.into(), self.now()).unwrap();
        self.coordinator.messages().drain(..).collect()
    }

    fn accept(&mut self, from: SessionId, number: u8) {
        let accept = Accept {
            slot: 1,
            correlation_id: CorrelationId([number; 16]),
            amount_cents: 100,
            decided_at_ms: 7,
            expires_at_us: u64::MAX,
            stage: Stage::At0,
            reason: Reason::Cheaper,
        };
        self.tell(from, accept);
    }

    fn complete(&mut self, from: SessionId, number: u8) {
        let completion = Completion {
            sequence: number.into(),
            correlation_id: CorrelationId([number; 16]),
            requested_at_ms: 7,
            processor: Processor::DEFAULT,
            outcome: Outcome::Processed,
            status: 0,
        };
        self.tell(from, completion);
    }
}

fn query(slot: u32) -> SummaryQuery {
    SummaryQuery { slot, from_ms: 0, to_ms: u64::MAX }
}

fn flush(to: SessionId, number: u32) -> (SessionId, Message) {
    (to, Flush { number }.into())
}

/// Who got a summary under which slot, and how many payments it shows.
fn summaries(sent: &[(SessionId, Message)]) -> Vec<(SessionId, u32, u64)> {
    let mut requests = 0;
    let mut all = Vec::new();
    for (to, message) in sent {
        match message {
            Message::SummaryTotal(total) => requests += total.requests,
            Message::SummaryReply(reply) => {
                all.push((*to, reply.slot, std::mem::take(&mut requests)));
            }
            other => panic!("expected summaries alone, got {other:?}"),
        }
    }
    all
}

#[test]
fn a_gateway_alone_is_answered_at_once() {
    let (mut cluster, sessions) = Cluster::new(1);
    cluster.accept(sessions[0], 1);
    cluster.complete(sessions[0], 1);
    let sent = cluster.tell(sessions[0], query(5));
    assert_eq!(summaries(&sent), [(sessions[0], 5, 1)]);
}

#[test]
fn what_the_others_had_not_said_is_waited_for() {
    let (mut cluster, sessions) = Cluster::new(3);
    cluster.accept(sessions[1], 1);
    cluster.accept(sessions[2], 2);
    assert_eq!(cluster.tell(sessions[0], query(5)), [flush(sessions[1], 1), flush(sessions[2], 1)]);
    cluster.complete(sessions[1], 1);
    assert_eq!(cluster.tell(sessions[1], Flushed { number: 1 }), []);
    cluster.complete(sessions[2], 2);
    let sent = cluster.tell(sessions[2], Flushed { number: 1 });
    assert_eq!(summaries(&sent), [(sessions[0], 5, 2)]);
    assert_eq!(cluster.coordinator.counters().unconfirmed_summaries, 0);
}

#[test]
fn whoever_asks_meanwhile_is_answered_by_the_next_round() {
    let (mut cluster, sessions) = Cluster::new(2);
    cluster.accept(sessions[1], 1);
    assert_eq!(cluster.tell(sessions[0], query(5)), [flush(sessions[1], 1)]);
    assert_eq!(cluster.tell(sessions[0], query(6)), []);
    assert_eq!(cluster.tell(sessions[1], query(7)), []);
    // The answer to 5 says nothing of what the second gateway hears from here on; those to 6 and 7 must.
    let sent = cluster.tell(sessions[1], Flushed { number: 1 });
    assert_eq!(summaries(&sent[..1]), [(sessions[0], 5, 0)]);
    assert_eq!(sent[1..], [flush(sessions[0], 2), flush(sessions[1], 2)], "once each");
    assert_eq!(cluster.tell(sessions[0], Flushed { number: 2 }), []);
    cluster.complete(sessions[1], 1);
    assert_eq!(cluster.tell(sessions[1], Flushed { number: 1 }), [], "an answer to the round before");
    let sent = cluster.tell(sessions[1], Flushed { number: 2 });
    assert_eq!(summaries(&sent), [(sessions[0], 6, 1), (sessions[1], 7, 1)]);
}

#[test]
fn a_gateway_that_stands_still_is_not_waited_for_longer_than_200_ms() {
    let (mut cluster, sessions) = Cluster::new(2);
    cluster.tell(sessions[0], query(5));
    assert_eq!(cluster.coordinator.tick_due_us(), cluster.now_us + 200_000);
    cluster.now_us += 199_999;
    cluster.coordinator.tick(cluster.now());
    assert_eq!(cluster.coordinator.messages().drain(..).collect::<Vec<_>>(), []);
    cluster.now_us += 1;
    cluster.coordinator.tick(cluster.now());
    let sent: Vec<_> = cluster.coordinator.messages().drain(..).collect();
    assert_eq!(summaries(&sent), [(sessions[0], 5, 0)]);
    assert_eq!(cluster.coordinator.counters().unconfirmed_summaries, 1);
}

#[test]
fn whoever_is_gone_is_neither_waited_for_nor_answered() {
    let (mut cluster, sessions) = Cluster::new(3);
    cluster.tell(sessions[0], query(5));
    cluster.tell(sessions[2], query(6));
    cluster.tell(sessions[1], Flushed { number: 1 });
    cluster.coordinator.disconnect(sessions[2], cluster.now());
    let sent: Vec<_> = cluster.coordinator.messages().drain(..).collect();
    assert_eq!(summaries(&sent), [(sessions[0], 5, 0)], "and nobody asks for 6 any more");
    assert_eq!(cluster.coordinator.counters().unconfirmed_summaries, 0);
}

#[test]
fn whoever_comes_back_within_a_round_is_asked_too() {
    let (mut cluster, sessions) = Cluster::new(2);
    cluster.accept(sessions[1], 1);
    assert_eq!(cluster.tell(sessions[0], query(5)), [flush(sessions[1], 1)]);
    // The second gateway has lost its connection with a completion unsaid, and connects again.
    let (protocol_version, role) = (PROTOCOL_VERSION, Role::Gateway);
    let hello = Hello { protocol_version, role, instance: 2, thread: 0, processors: 0, incarnation: 1 };
    let back = cluster.coordinator.connect(hello).unwrap();
    let sent: Vec<_> = cluster.coordinator.messages().drain(..).collect();
    assert_eq!(sent[..1], [flush(back, 1)]);
    assert!(matches!(sent[1..], [(to, Message::Hello(_))] if to == back), "the hello is the last: {sent:?}");
    cluster.coordinator.disconnect(sessions[1], cluster.now());
    let handed_over: Vec<_> = cluster.coordinator.messages().drain(..).collect();
    assert!(matches!(handed_over[..], [(_, Message::Assignment(_))]), "and no summary yet: {handed_over:?}");
    cluster.complete(back, 1);
    let sent = cluster.tell(back, Flushed { number: 1 });
    assert_eq!(summaries(&sent), [(sessions[0], 5, 1)]);
}
