//! A coordinator, and gateways that say to it what a test has them say.

use galo_engine::coordinator::{Coordinator, CoordinatorConfig, SessionId};
use galo_engine::ledger::LedgerConfig;
use galo_engine::router::ProcessorSet;
use galo_engine::time::{Now, UnixMillis};
use galo_engine::{CorrelationId, Outcome, PROCESSORS_LEN_MAX, Processor, Stage};
use galo_wire::record::{Accept, Admission, Completion, Grant, Hello, Ready, Role};
use galo_wire::{Message, PROTOCOL_VERSION, Reason};

/// For so long after its start the coordinator waits for claims, µs.
pub const GRACE_US: u64 = 300_000;

/// Between two health checks of a processor, µs.
pub const INTERVAL_US: u64 = 5_000_000;

/// A moment after the grace of the start.
pub const LATER: u64 = GRACE_US + 1;

/// When attempts are made, and payments are stored.
pub const STORED_MS: u64 = 7;

pub fn id(number: u8) -> CorrelationId {
    CorrelationId([number; 16])
}

pub fn at(monotonic_us: u64) -> Now {
    Now { monotonic_us, unix_ms: UnixMillis(monotonic_us / 1_000) }
}

/// The contest's two processors, a hundred open payments at most, four that are remembered.
pub fn coordinator_config() -> CoordinatorConfig {
    CoordinatorConfig {
        processors_fingerprint: 0,
        health_checked: ProcessorSet::PAIR,
        ledger: LedgerConfig {
            open_len_max: 100,
            known_len_max: 4,
            bucket_bytes_max: 1 << 20,
            members_bytes_max: 1 << 20,
            processors: ProcessorSet::PAIR,
            hash_seed: 1,
        },
        health_interval_us: [INTERVAL_US; PROCESSORS_LEN_MAX],
        claim_grace_us: GRACE_US,
        incarnation: 1,
    }
}

pub fn hello(instance: u8) -> Hello {
    Hello {
        protocol_version: PROTOCOL_VERSION,
        role: Role::Gateway,
        instance,
        thread: 0,
        processors: 0,
        incarnation: u64::from(instance),
    }
}

/// Connects a gateway that is ready for work.
pub fn join(coordinator: &mut Coordinator, instance: u8) -> SessionId {
    let session = coordinator.connect(hello(instance)).unwrap();
    tell(coordinator, session, Ready { held_len_max: u64::MAX });
    session
}

/// Tells, and returns what is sent to whom in answer.
pub fn tell(
    coordinator: &mut Coordinator,
    from: SessionId,
    message: impl Into<Message>,
) -> Vec<(SessionId, Message)> {
    coordinator.handle(from, message.into(), at(LATER)).unwrap();
    coordinator.messages().drain(..).collect()
}

/// Likewise, without whom: of a coordinator that has one gateway to speak to.
pub fn told(coordinator: &mut Coordinator, from: SessionId, message: impl Into<Message>) -> Vec<Message> {
    tell(coordinator, from, message).into_iter().map(|(_, message)| message).collect()
}

/// A POST, and the ledger's answer.
pub fn accept(
    coordinator: &mut Coordinator,
    from: SessionId,
    number: u8,
    amount_cents: u64,
    stage: Stage,
) -> Admission {
    let accept = Accept {
        slot: 1,
        correlation_id: id(number),
        amount_cents,
        decided_at_ms: STORED_MS,
        expires_at_us: LATER,
        stage,
        reason: if stage == Stage::Waiting { Reason::AwaitsAny } else { Reason::Cheaper },
    };
    match tell(coordinator, from, accept)[..] {
        [(to, Message::Grant(Grant { slot: 1, correlation_id, admission }))] => {
            assert_eq!((to, correlation_id), (from, id(number)));
            admission
        }
        ref other => panic!("expected one grant, got {other:?}"),
    }
}

/// The end of the attempt that an [`accept`] planned.
pub fn completion(number: u8, processor: Processor, outcome: Outcome) -> Completion {
    let (correlation_id, requested_at_ms) = (id(number), STORED_MS);
    Completion { sequence: 1, correlation_id, requested_at_ms, processor, outcome, status: 0 }
}
