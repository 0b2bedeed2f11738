//! What the real process has answered is still so after SIGKILL, and it does not serve on a journal that it cannot believe.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Aggregator, Folder, Gateway, NOON_MS, PATIENCE, id, outcome};
use galo_wire::record::{Admission, Claim, Standing};
use galo_wire::{AttemptState, Message, Outcome, PastDecision, Processor, Reason, Stage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Exit status: the journal could not be written, or not be believed.
const JOURNAL: Option<i32> = Some(74);

const SMALL: &[(&str, &str)] = &[("SEGMENT_BYTES", "16384"), ("SNAPSHOT_EVERY_BYTES", "65536")];

/// Whatever it does before it serves: here it reads a segment that never comes to its end, since it is a pipe.
#[test]
fn a_start_is_broken_off_at_once() {
    let folder = Folder::new("stopped-start");
    let first = folder.start(&[]);
    drop(folder.connect(1));
    first.terminate();
    let segment = folder.files(".journal").pop().expect("a journal has a segment");
    std::fs::remove_file(&segment).unwrap();
    let made = Command::new("mkfifo").arg(&segment).status().unwrap();
    assert!(made.success());
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut child = folder.command(&[]).spawn().unwrap();
        // It opens the pipe, which returns as soon as both have it open.
        let writer = std::fs::File::options().write(true).open(&segment).unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{signal}: {status}");
        drop(writer);
    }
}

/// Everything that a gateway was told, and must find again.
#[derive(Default)]
struct Promises {
    granted: HashMap<u64, u64>,
    processed: HashMap<u64, u64>,
}

impl Promises {
    fn check(&self, gateway: &mut Gateway) {
        for (&number, &amount_cents) in &self.granted {
            let found = gateway.lookup(id(number));
            assert_ne!(found.standing, Standing::Absent, "payment {number} was granted and is lost");
            assert_eq!(found.amount_cents, amount_cents);
        }
        for (&number, &requested_at_ms) in &self.processed {
            let found = gateway.lookup(id(number));
            assert_eq!(found.standing, Standing::Processed, "payment {number} was acknowledged");
            assert_eq!((found.requested_at_ms, found.stage), (requested_at_ms, Stage::At0));
        }
    }
}

/// Accepts and completes payments until the aggregator is gone. Returns the next free number.
fn work(gateway: &mut Gateway, promises: &mut Promises, mut number: u64, batch: u64) -> u64 {
    loop {
        let first = number;
        for number in first..first + batch {
            gateway.push_accept(id(number), 1 + number % 1_000);
        }
        number += batch;
        if gateway.flush().is_err() {
            return number;
        }
        for granted in first..number {
            let Some(grant) = gateway.next_grant() else { return number };
            assert_eq!((grant.correlation_id, grant.admission), (id(granted), Admission::Granted));
            promises.granted.insert(granted, 1 + granted % 1_000);
        }
        // Every second one is processed.
        let mut sequences = Vec::new();
        for number in (first..number).step_by(2) {
            sequences
                .push((number, gateway.push_completion(id(number), NOON_MS + number, Outcome::Processed)));
        }
        if gateway.flush().is_err() {
            return number;
        }
        for (number, sequence) in sequences {
            // One acknowledgement stands for all before it; the last one comes last.
            if sequence % batch.div_ceil(2) == 0 || batch == 1 {
                let Some(()) = gateway.acknowledged(sequence) else { return number + batch };
                promises.processed.insert(number, NOON_MS + number);
            }
        }
    }
}

fn kill_at_random_moments(name: &str, variables: &[(&str, &str)]) {
    let folder = Folder::new(name);
    let mut promises = Promises::default();
    let mut number = 0;
    for round in 0..12_u64 {
        let aggregator = folder.start(variables);
        let mut gateway = folder.connect(1);
        promises.check(&mut gateway);
        let pause = Duration::from_micros(500 + round * round * 700);
        let killer = std::thread::spawn(move || {
            // The moment of the kill; nothing waits for this.
            std::thread::sleep(pause);
            aggregator.kill();
        });
        number = work(&mut gateway, &mut promises, number, [1, 7, 64][usize::try_from(round % 3).unwrap()]);
        killer.join().unwrap();
    }
    let aggregator = folder.start(variables);
    let mut gateway = folder.connect(1);
    promises.check(&mut gateway);
    assert!(promises.granted.len() > 100, "only {} grants", promises.granted.len());
    assert!(promises.processed.len() > 10, "only {} acknowledgements", promises.processed.len());
    let processed = gateway.summary(0, u64::MAX).requests[0];
    assert!(processed >= promises.processed.len() as u64);
    drop(aggregator);
}

#[test]
fn grants_and_acknowledgements_survive_sigkill() {
    kill_at_random_moments("kill-never", &[]);
}

#[test]
fn they_survive_it_among_rotations_and_snapshots() {
    kill_at_random_moments("kill-small", SMALL);
}

#[test]
fn they_survive_it_when_everything_is_synced() {
    kill_at_random_moments("kill-always", &[("JOURNAL_SYNC", "always"), SMALL[0], SMALL[1]]);
}

#[test]
fn they_survive_it_when_it_is_synced_now_and_then() {
    kill_at_random_moments("kill-interval", &[("JOURNAL_SYNC", "interval:5"), SMALL[0], SMALL[1]]);
}

#[test]
fn duplicates_and_conflicts_are_known_across_restarts() {
    let folder = Folder::new("duplicates");
    let aggregator = folder.start(&[]);
    let mut gateway = folder.connect(1);
    assert_eq!(gateway.accept(id(1), 500), Admission::Granted);
    assert_eq!(gateway.accept(id(2), 600), Admission::Granted);
    let sequence = gateway.push_completion(id(2), NOON_MS, Outcome::Processed);
    gateway.flush().unwrap();
    gateway.acknowledged(sequence).unwrap();
    aggregator.kill();

    let aggregator = folder.start(&[]);
    let mut gateway = folder.connect(1);
    for (number, amount_cents) in [(1, 500), (2, 600)] {
        assert_eq!(gateway.accept(id(number), amount_cents), Admission::Replayed);
        assert_eq!(gateway.accept(id(number), 1), Admission::Conflict);
    }
    assert_eq!(gateway.accept(id(3), 1), Admission::Granted);
    // What it says it has processed, it has: not twice after another restart either.
    assert_eq!(aggregator.terminate().code(), Some(0));
    let aggregator = folder.start(&[]);
    let mut gateway = folder.connect(1);
    let summary = gateway.summary(0, u64::MAX);
    assert_eq!((summary.requests[0], summary.amount_cents[0]), (1, 600));
    assert_eq!(gateway.lookup(id(1)).standing, Standing::Open);
    drop(aggregator);
}

#[test]
fn recorded_attempts_and_doubt_survive_and_orphans_are_handed_over() {
    let folder = Folder::new("doubt");
    let aggregator = folder.start(&[]);
    let mut gateway = folder.connect(1);
    assert_eq!(gateway.accept(id(1), 500), Admission::Granted);
    gateway.push_completion(id(1), NOON_MS + 500, Outcome::Refused);
    gateway.push_intent(id(1), NOON_MS + 999, Processor::FALLBACK);
    gateway.flush().unwrap();
    gateway.wait(|message| matches!(message, Message::IntentRecorded(_)).then_some(())).unwrap();
    aggregator.kill();

    let aggregator = folder.start(&[]);
    let mut gateway = folder.connect(2);
    gateway.ready();
    gateway.flush().unwrap();
    let assignment = gateway
        .wait(|message| if let Message::Assignment(assignment) = message { Some(assignment) } else { None })
        .unwrap();
    assert_eq!(assignment.correlation_id, id(1));
    assert_eq!((assignment.stage, assignment.requested_at_ms), (Stage::At1, NOON_MS + 999));
    assert!(assignment.in_doubt, "the gateway that is gone may have sent it");
    aggregator.kill();

    // The doubt was written down before the assignment left.
    let aggregator = folder.start(&[]);
    let mut gateway = folder.connect(1);
    assert!(gateway.lookup(id(1)).in_doubt);
    // So were the decisions, with their reasons.
    let first = PastDecision {
        at_ms: NOON_MS + 500,
        waited_for_ms: 0,
        stage: Stage::At0,
        reason: Reason::Cheaper,
        attempt: AttemptState::Refused,
        was_in_doubt: false,
    };
    let second = PastDecision {
        at_ms: NOON_MS + 999,
        waited_for_ms: 1_234,
        stage: Stage::At1,
        reason: Reason::PatienceOver,
        attempt: AttemptState::InDoubt,
        was_in_doubt: true,
    };
    let history = gateway.history(id(1));
    assert_eq!((history.decisions(), history.forgotten), (&[first, second][..], false));
    drop(aggregator);
}

#[test]
fn a_purge_survives_and_leaves_little_behind() {
    let folder = Folder::new("purge");
    let aggregator = folder.start(&[]);
    let mut gateway = folder.connect(1);
    for number in 0..5_000 {
        gateway.push_accept(id(number), 5);
    }
    gateway.flush().unwrap();
    (0..5_000).for_each(|_| assert_eq!(gateway.next_grant().unwrap().admission, Admission::Granted));
    gateway.purge();
    assert_eq!(gateway.accept(id(1), 6), Admission::Granted);
    wait_until("older segments go with what was purged", || folder.metric("galo_journal_bytes") < 10_000.0);
    aggregator.kill();
    let aggregator = folder.start(&[]);
    let mut gateway = folder.connect(1);
    assert_eq!(gateway.lookup(id(1)).amount_cents, 6);
    assert_eq!(gateway.lookup(id(2)).standing, Standing::Absent);
    // Nor does a gateway bring back what it was not told of: the snapshot knows that there was a purge.
    let (requested_at_ms, stage, in_doubt) = (NOON_MS, Stage::At0, false);
    gateway.push_claim(Claim {
        slot: 1,
        correlation_id: id(3),
        amount_cents: 5,
        requested_at_ms,
        stage,
        in_doubt,
    });
    gateway.flush().unwrap();
    gateway.wait(|message| matches!(message, Message::Withdrawal(_)).then_some(())).unwrap();
    assert_eq!(gateway.lookup(id(3)).standing, Standing::Absent);
    drop(aggregator);
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// A journal of a hundred grants, and the aggregator gone.
fn hundred(folder: &Folder) {
    let aggregator = folder.start(&[]);
    let mut gateway = folder.connect(1);
    for number in 0..100 {
        assert_eq!(gateway.accept(id(number), 5), Admission::Granted);
    }
    aggregator.kill();
}

#[test]
fn a_torn_tail_is_cut_and_the_journal_goes_on() {
    let folder = Folder::new("torn");
    hundred(&folder);
    let segment = &folder.files(".journal")[0];
    let bytes = std::fs::read(segment).unwrap();
    // The last record lost one byte, as if the write had not come to its end.
    std::fs::write(segment, &bytes[..bytes.len() - 1]).unwrap();
    for _ in 0..2 {
        let aggregator = folder.start(&[]);
        let mut gateway = folder.connect(1);
        assert_eq!(gateway.lookup(id(98)).standing, Standing::Open);
        gateway.accept(id(99), 5);
        aggregator.kill();
    }
    assert_eq!(std::fs::read(segment).unwrap(), bytes[..bytes.len() - 48]);
}

#[test]
fn damage_in_the_middle_stops_the_start_and_says_what_to_do() {
    let folder = Folder::new("damage");
    hundred(&folder);
    let segment = &folder.files(".journal")[0];
    let mut bytes = std::fs::read(segment).unwrap();
    // Behind the header and the names of two processors.
    let offset = 48 * 33;
    bytes[offset + 20] ^= 1;
    std::fs::write(segment, &bytes).unwrap();
    let (status, said) = folder.refusal(&[]);
    assert_eq!(status.code(), JOURNAL);
    assert_eq!(said.lines().count(), 1, "{said}");
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(&format!("{name} is damaged at offset {offset}")), "{said}");
    assert_eq!(std::fs::read(segment).unwrap(), bytes, "nothing is changed by that");
    // What it says to do works.
    let advice = format!("truncate -s {offset} {name}");
    assert!(said.contains(&advice), "{said}");
    let status = Command::new("sh").args(["-c", &advice]).current_dir(folder.journal()).status().unwrap();
    assert!(status.success());
    let aggregator = folder.start(&[]);
    let mut gateway = folder.connect(1);
    assert_eq!(gateway.lookup(id(29)).standing, Standing::Open);
    assert_eq!(gateway.lookup(id(30)).standing, Standing::Absent);
    drop(aggregator);
}

#[test]
fn a_second_aggregator_on_the_same_journal_is_refused() {
    let folder = Folder::new("second");
    let aggregator = folder.start(&[]);
    let mut gateway = folder.connect(1);
    let other = folder.0.join("other.sock");
    let (status, said) = folder.refusal(&[("AGGREGATOR_SOCKET", other.to_str().unwrap())]);
    assert_eq!(status.code(), Some(71));
    assert!(said.contains("is in use by another aggregator"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(gateway.accept(id(1), 5), Admission::Granted);
    drop(aggregator);
}

#[test]
fn a_write_that_fails_ends_the_process_and_nothing_is_granted_any_more() {
    let folder = Folder::new("full");
    // No file beyond 16 KiB; the signal that comes with it is ignored, so that the write fails.
    let mut command = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f 16; exec {}", env!("CARGO_BIN_EXE_galo-aggregator"));
    command.args(["-c", &script]);
    folder.configure(&mut command, &[("LOG", "error")]);
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut gateway = folder.connect(1);
    let mut granted = 0;
    loop {
        gateway.push_accept(id(granted), 5);
        if gateway.flush().is_err() || gateway.next_grant().is_none() {
            break;
        }
        granted += 1;
    }
    let (status, said) = outcome(child);
    assert_eq!(status.code(), JOURNAL, "{said}");
    assert!(said.contains("the journal: cannot write"), "{said}");
    // 16 KiB (or, where the unit is 512 bytes, 8) hold a header, two names and so many records.
    assert!([16_384 / 48 - 3, 8_192 / 48 - 3].contains(&granted), "{granted} were granted");
    let aggregator = folder.start(&[]);
    let mut gateway = folder.connect(1);
    assert_eq!(gateway.lookup(id(granted - 1)).standing, Standing::Open);
    assert_eq!(gateway.lookup(id(granted)).standing, Standing::Absent);
    drop(aggregator);
}

#[test]
fn files_are_private_and_a_stop_is_clean() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new("private");
    let aggregator = folder.start(SMALL);
    let mut gateway = folder.connect(1);
    assert_eq!(gateway.accept(id(1), 5), Admission::Granted);
    assert_eq!(aggregator.terminate().code(), Some(0));
    for entry in std::fs::read_dir(folder.journal()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    assert_eq!(std::fs::metadata(folder.journal()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn without_a_journal_nothing_is_kept() {
    let folder = Folder::new("memory");
    let aggregator: Aggregator = folder.start(&[("JOURNAL_SYNC", "memory")]);
    let mut gateway = folder.connect(1);
    assert_eq!(gateway.accept(id(1), 5), Admission::Granted);
    assert!(!folder.journal().exists());
    aggregator.kill();
    let aggregator = folder.start(&[("JOURNAL_SYNC", "memory")]);
    assert_eq!(folder.connect(1).lookup(id(1)).standing, Standing::Absent);
    drop(aggregator);
}
