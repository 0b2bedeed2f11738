//! What a gateway granted in the admission table is the ledger's after any SIGKILL, and a table that cannot be believed is refused.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::{Folder, Gateway, NOON_MS, id};
use galo_admission::{Claimed, Claimer, Grant, Memory, Ring, Table};
use galo_shell::admission::{self, Mapping};
use galo_wire::record::{Opened, Ready, Standing};
use galo_wire::{Message, Processor, Reason, Stage};

/// Exit status: the journal, or what goes with it, cannot be believed.
const JOURNAL: Option<i32> = Some(74);

struct Host {
    folder: Folder,
    table: PathBuf,
}

impl Host {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let table = folder.0.join("table");
        Self { folder, table }
    }

    fn variables(&self) -> [(&str, &str); 2] {
        [("ADMISSION_TABLE", self.table.to_str().unwrap()), ("LOG", "error")]
    }

    /// A gateway whose claims are in; its ring, if it was told of one.
    fn join(&self, instance: u8) -> (Gateway, Option<Opened>) {
        let mut gateway = self.folder.connect(instance);
        gateway.push(Ready { held_len_max: 1_000 });
        gateway.flush().unwrap();
        let mut opened = None;
        loop {
            match gateway.next().unwrap() {
                Message::Opened(it) => opened = Some(it),
                Message::Acknowledgement(_) => return (gateway, opened),
                _ => {}
            }
        }
    }

    /// Maps the file as a gateway does. The lock lives as long as what is returned with the claimer.
    fn claimer(&self, opened: Opened) -> (Claimer, std::fs::File) {
        let file = admission::open(&self.table).unwrap();
        let table = Table::open(Arc::new(Mapping::of(&file).unwrap())).unwrap();
        assert_eq!(table.identity().region, opened.region);
        assert!(admission::lock_ring(&file, opened.ring.into()).unwrap());
        (Claimer::new(table, ring(opened)), file)
    }
}

fn ring(opened: Opened) -> Ring {
    Ring { number: opened.ring.into(), opening: opened.opening }
}

fn grant(number: u64) -> Grant {
    Grant {
        correlation_id: id(number),
        amount_cents: 100 + number,
        decided_at_ms: NOON_MS,
        stage: Stage::at(Processor::DEFAULT),
        reason: Reason::Cheaper,
    }
}

#[test]
fn what_was_granted_survives_any_kill_of_the_aggregator() {
    let host = Host::new("admission-kills");
    let mut aggregator = host.folder.start(&host.variables());
    let (mut gateway, opened) = host.join(1);
    let (mut claimer, _lock) = host.claimer(opened.unwrap());
    let mut granted = 0;
    for round in 0..30 {
        for _ in 0..50 {
            granted += 1;
            assert_eq!(claimer.claim(&grant(granted)), Claimed::Granted);
            assert_eq!(claimer.claim(&grant(granted)), Claimed::Replayed);
        }
        match round % 3 {
            // Nobody has looked yet.
            0 => {}
            // Taken in, and written or not.
            1 => {
                gateway.push(Ready { held_len_max: 1_000 });
                gateway.flush().unwrap();
            }
            _ => assert_eq!(gateway.lookup(id(granted)).standing, Standing::Open),
        }
        aggregator.kill();
        granted += 1;
        assert_eq!(claimer.claim(&grant(granted)), Claimed::Granted, "while it is away");
        aggregator = host.folder.start(&host.variables());
        let (again, opened) = host.join(1);
        gateway = again;
        claimer.reopened(ring(opened.unwrap()));
    }
    for number in 1..=granted {
        let found = gateway.lookup(id(number));
        assert_eq!((found.standing, found.amount_cents), (Standing::Open, 100 + number), "{number}");
    }
    assert!(host.folder.metrics().contains(&format!("galo_payments_accepted_total {granted}\n")));
    assert!(host.folder.metric("galo_admission_taken_total") < 100.0, "of this life alone");
    aggregator.terminate();
    // Without the file the journal has all of it.
    std::fs::remove_file(&host.table).unwrap();
    let aggregator = host.folder.start(&[]);
    assert_eq!(host.folder.connect(2).lookup(id(granted)).standing, Standing::Open);
    aggregator.terminate();
}

#[test]
fn a_table_is_refused_that_is_damaged_or_holds_payments_for_another_journal() {
    let host = Host::new("admission-refused");
    let aggregator = host.folder.start(&host.variables());
    let (_gateway, opened) = host.join(1);
    let (mut claimer, _lock) = host.claimer(opened.unwrap());
    aggregator.kill();
    let other = host.folder.0.join("other").display().to_string();
    let [table, log] = host.variables();
    let elsewhere = [table, log, ("JOURNAL_DIR", other.as_str())];
    assert_eq!(claimer.claim(&grant(1)), Claimed::Granted);
    let (status, said) = host.folder.refusal(&elsewhere);
    assert_eq!(status.code(), JOURNAL, "{said}");
    assert!(said.contains("it holds 1 accepted payments for another journal"), "{said}");

    // Its own journal takes that over; afterwards the other one makes a table of its own.
    let aggregator = host.folder.start(&host.variables());
    let (mut gateway, _) = host.join(1);
    assert_eq!(gateway.lookup(id(1)).standing, Standing::Open);
    drop(gateway);
    aggregator.terminate();

    let file = admission::open(&host.table).unwrap();
    let mapping = Mapping::of(&file).unwrap();
    let flip = |word: usize| {
        mapping.words()[word].fetch_xor(1 << 20, std::sync::atomic::Ordering::SeqCst);
    };
    for (word, expected) in [(0, "no admission table"), (1, "version"), (4, "its head is damaged")] {
        flip(word);
        let (status, said) = host.folder.refusal(&host.variables());
        assert_eq!(status.code(), JOURNAL, "{said}");
        assert!(said.contains("ADMISSION_TABLE=") && said.contains(expected), "word {word}: {said}");
        flip(word);
    }
    file.set_len(64).unwrap();
    let (status, said) = host.folder.refusal(&host.variables());
    assert_eq!(status.code(), JOURNAL, "{said}");
}

#[test]
fn a_stop_takes_all_that_was_granted_and_lets_nobody_grant_any_more() {
    let host = Host::new("admission-stop");
    let aggregator = host.folder.start(&host.variables());
    let (_gateway, opened) = host.join(1);
    let (mut claimer, _lock) = host.claimer(opened.unwrap());
    assert_eq!(claimer.claim(&grant(1)), Claimed::Granted);
    // Another aggregator, with another journal, by mistake.
    let other = host.folder.0.join("other").display().to_string();
    let [table, log] = host.variables();
    let (status, said) = host.folder.refusal(&[table, log, ("JOURNAL_DIR", other.as_str())]);
    assert_eq!(status.code(), JOURNAL, "{said}");
    assert!(said.contains("in use by another aggregator"), "{said}");
    assert_eq!(claimer.claim(&grant(2)), Claimed::Granted, "nothing has changed for this one");
    aggregator.terminate();
    assert_eq!(claimer.claim(&grant(3)), Claimed::Unclear);
    let aggregator = host.folder.start(&[]);
    let mut gateway = host.folder.connect(2);
    for (number, expected) in [(1, Standing::Open), (2, Standing::Open), (3, Standing::Absent)] {
        assert_eq!(gateway.lookup(id(number)).standing, expected, "{number}");
    }
    aggregator.terminate();
}

#[test]
fn a_start_without_the_table_is_refused_while_that_holds_payments() {
    let host = Host::new("admission-left");
    let aggregator = host.folder.start(&host.variables());
    let (_gateway, opened) = host.join(1);
    let (mut claimer, _lock) = host.claimer(opened.unwrap());
    aggregator.kill();
    assert_eq!(claimer.claim(&grant(1)), Claimed::Granted);
    let [table, log] = host.variables();
    for variables in [&[log][..], &[table, log, ("JOURNAL_SYNC", "always")]] {
        let (status, said) = host.folder.refusal(variables);
        assert_eq!(status.code(), JOURNAL, "{said}");
        assert!(said.contains("holds 1 accepted payments: start with ADMISSION_TABLE="), "{said}");
        assert_eq!(claimer.claim(&grant(2)), Claimed::Unclear, "nobody would take it");
    }
    let away = host.folder.0.join("away");
    std::fs::rename(&host.table, &away).unwrap();
    let (status, said) = host.folder.refusal(&host.variables());
    assert_eq!(status.code(), JOURNAL, "{said}");
    assert!(said.contains("is gone, and gateways may go on accepting payments in it"), "{said}");
    std::fs::rename(&away, &host.table).unwrap();
    let aggregator = host.folder.start(&host.variables());
    drop(host.join(3));
    aggregator.terminate();
    let aggregator = host.folder.start(&[log]);
    assert_eq!(host.folder.connect(2).lookup(id(1)).standing, Standing::Open);
    aggregator.terminate();
}

/// A machine that was shut down in order wrote the file as it was; the power may have taken a part of it.
#[test]
fn after_a_boot_what_can_be_read_is_taken_and_what_is_damaged_is_left_out() {
    let host = Host::new("admission-boot");
    let aggregator = host.folder.start(&host.variables());
    let (_gateway, opened) = host.join(1);
    let (mut claimer, lock) = host.claimer(opened.unwrap());
    aggregator.kill();
    for number in 1..=3 {
        assert_eq!(claimer.claim(&grant(number)), Claimed::Granted);
    }
    drop((claimer, lock));
    let name = host.folder.journal().join("admission-table");
    let text = std::fs::read_to_string(&name).unwrap();
    let mut words: Vec<&str> = text.split(' ').collect();
    words[1] = "1";
    std::fs::write(&name, words.join(" ")).unwrap();
    // The second one's amount.
    let file = admission::open(&host.table).unwrap();
    let mapping = Mapping::of(&file).unwrap();
    let amount =
        mapping.words().iter().find(|it| it.load(std::sync::atomic::Ordering::SeqCst) == 102).unwrap();
    amount.store(103, std::sync::atomic::Ordering::SeqCst);
    drop(mapping);
    let aggregator = host.folder.start(&host.variables());
    let (mut gateway, opened) = host.join(2);
    for (number, expected) in [(1, Standing::Open), (2, Standing::Absent), (3, Standing::Open)] {
        assert_eq!(gateway.lookup(id(number)).standing, expected, "{number}");
    }
    let (mut claimer, _lock) = host.claimer(opened.unwrap());
    assert_eq!(claimer.claim(&grant(4)), Claimed::Granted);
    assert_eq!(claimer.claim(&grant(1)), Claimed::LikelyReplayed);
    aggregator.terminate();
}

#[test]
fn a_policy_that_survives_the_loss_of_power_has_no_table() {
    let host = Host::new("admission-synced");
    let [table, log] = host.variables();
    let aggregator = host.folder.start(&[table, log, ("JOURNAL_SYNC", "always")]);
    assert_eq!(host.join(1).1, None);
    assert!(!host.table.exists());
    aggregator.terminate();
}
