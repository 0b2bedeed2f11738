//! Snapshots keep the folder small; a start finds the same ledger whichever step of the switch-over a kill came after.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use common::{Aggregator, Folder, Gateway, NOON_MS, PATIENCE, id};
use galo_wire::record::{Admission, Standing};

const KEEP_ALL: &[(&str, &str)] = &[("SEGMENT_BYTES", "16384"), ("SNAPSHOT_EVERY_BYTES", "1000000000")];
const SNAPSHOT_NOW: &[(&str, &str)] = &[("SEGMENT_BYTES", "16384"), ("SNAPSHOT_EVERY_BYTES", "4096")];

const COUNT: u64 = 1_000;

/// Accepts so many payments and processes all but every tenth.
fn fill(gateway: &mut Gateway, numbers: std::ops::Range<u64>) {
    gateway.fill(numbers, |number| (number % 10 != 0).then_some(NOON_MS + number));
}

fn check(gateway: &mut Gateway, count: u64) {
    for number in 0..count {
        let found = gateway.lookup(id(number));
        let expected = if number % 10 == 0 { Standing::Open } else { Standing::Processed };
        assert_eq!((found.standing, found.amount_cents), (expected, 1 + number), "payment {number}");
    }
    for (from, to) in [(0, u64::MAX), (NOON_MS + 13, NOON_MS + 517)] {
        let summary = gateway.summary(from, to);
        let counted = (0..count).filter(|number| number % 10 != 0);
        let within: Vec<_> = counted.filter(|number| (from..=to).contains(&(NOON_MS + number))).collect();
        assert_eq!(summary.requests[0], within.len() as u64);
        assert_eq!(summary.amount_cents[0], within.iter().map(|number| 1 + number).sum::<u64>());
    }
}

fn copy(from: &Path, names: &[String], to: &Path) {
    for name in names {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_kill_after_any_step_of_the_switch_over_loses_nothing() {
    let folder = Folder::new("steps");
    let aggregator = folder.start(KEEP_ALL);
    let mut gateway = folder.connect(1);
    (0..COUNT).step_by(100).for_each(|number| fill(&mut gateway, number..number + 100));
    aggregator.kill();
    let before = folder.names();
    assert!(before.len() > 3 && before.iter().all(|name| name.ends_with(".journal")), "{before:?}");
    let kept = Folder::new("steps-kept");
    copy(&folder.journal(), &before, &kept.0);

    // The real switch-over, whose result the states in between are made of.
    let aggregator = folder.start(SNAPSHOT_NOW);
    wait_until("the snapshot supersedes all segments", || {
        let names = folder.names();
        names.iter().any(|name| name.ends_with(".snapshot"))
            && before.iter().all(|name| !names.contains(name))
    });
    aggregator.kill();
    let after = folder.names();
    copy(&folder.journal(), &after, &kept.0);
    let snapshot = after.iter().find(|name| name.ends_with(".snapshot")).unwrap().clone();
    let segment = after.iter().find(|name| name.ends_with(".journal")).unwrap().clone();
    let bytes = std::fs::read(kept.0.join(&snapshot)).unwrap();
    let unfinished = format!("{snapshot}.unfinished");

    let start_from = |names: &[&[String]], part: Option<usize>| {
        for name in folder.names() {
            std::fs::remove_file(folder.journal().join(name)).unwrap();
        }
        names.iter().for_each(|names| copy(&kept.0, names, &folder.journal()));
        if let Some(part) = part {
            std::fs::write(folder.journal().join(&unfinished), &bytes[..part]).unwrap();
        }
        let aggregator = folder.start(KEEP_ALL);
        check(&mut folder.connect(1), COUNT);
        aggregator.kill();
        folder.names()
    };
    let (segment, snapshot) = ([segment], [snapshot]);
    // 1. The new segment is begun: with and without its header.
    start_from(&[&before, &segment], None);
    // 2. and 3. The snapshot is not finished, or not renamed.
    for part in [0, 1, 47, 48, bytes.len() / 2, bytes.len() - 1, bytes.len()] {
        let names = start_from(&[&before, &segment], Some(part));
        assert!(!names.contains(&unfinished), "left over");
    }
    // 4. and 5. It is renamed, everything else is still there.
    let names = start_from(&[&before, &segment, &snapshot], None);
    assert!(before.iter().all(|name| !names.contains(name)), "left over: {names:?}");
    // 6. Some older files are gone, in any order.
    for gone in 0..before.len() {
        let some: Vec<_> = before
            .iter()
            .enumerate()
            .filter(|(place, _)| *place != gone)
            .map(|(_, name)| name.clone())
            .collect();
        start_from(&[&some, &segment, &snapshot], None);
        start_from(&[&before[gone..gone + 1], &segment, &snapshot], None);
    }
    let names = start_from(&[&segment, &snapshot], None);
    assert_eq!(names.iter().filter(|name| name.ends_with(".snapshot")).count(), 1);
}

#[test]
fn the_folder_stays_small_and_restarts_find_everything() {
    let folder = Folder::new("small");
    let mut count = 0;
    for _ in 0..4 {
        let aggregator = folder.start(SNAPSHOT_NOW);
        let mut gateway = folder.connect(1);
        check(&mut gateway, count);
        fill(&mut gateway, count..count + 400);
        count += 400;
        wait_until("snapshots are taken", || folder.metric("galo_snapshots_total") > 0.0);
        fill(&mut gateway, count..count + 400);
        count += 400;
        wait_until("the journal is short", || folder.metric("galo_journal_bytes") < 5_000.0);
        check(&mut gateway, count);
        aggregator.kill();
    }
    let aggregator = folder.start(SNAPSHOT_NOW);
    check(&mut folder.connect(1), count);
    drop(aggregator);
}

/// A limit on the size of files is what a full disk is, for one file: segments stay below it, the snapshot does not.
#[test]
fn a_snapshot_that_finds_no_room_loses_nothing_and_is_tried_again() {
    let folder = Folder::new("room");
    let mut command = Command::new("sh");
    // 32 or 64 KiB, whichever the shell's unit is. The signal that comes with it is ignored, so that the write fails.
    let program = env!("CARGO_BIN_EXE_galo-aggregator");
    command.args(["-c", &format!("trap '' XFSZ; ulimit -S -f 64; exec {program}")]);
    let variables = [("SEGMENT_BYTES", "4096"), ("SNAPSHOT_EVERY_BYTES", "100000"), ("LOG", "info")];
    folder.configure(&mut command, &variables);
    let child = command.spawn().unwrap();
    let pid = child.id().to_string();
    let mut gateway = folder.connect(1);
    let mut count = 0;
    // 1,000 payments are too many for a snapshot of 64 KiB: their buckets alone are 16 KB, the ids 48.
    while count < 2_000 || folder.metric("galo_snapshots_failed_total") == 0.0 {
        fill(&mut gateway, count..count + 50);
        count += 50;
    }
    assert_eq!(folder.metric("galo_snapshots_total"), 0.0);
    check(&mut gateway, count);
    wait_until("what was written is removed", || folder.files(".unfinished").is_empty());
    // There is room again, and the next attempt comes by itself.
    assert!(Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status().unwrap().success());
    while folder.metric("galo_snapshots_total") == 0.0 {
        fill(&mut gateway, count..count + 50);
        count += 50;
    }
    check(&mut gateway, count);
    Aggregator(child).kill();
    let aggregator = folder.start(KEEP_ALL);
    check(&mut folder.connect(1), count);
    drop(aggregator);
}

#[test]
fn fewer_ids_are_remembered_when_told_so_and_a_replay_forgets_what_was_forgotten() {
    let folder = Folder::new("known");
    let few = [KEEP_ALL[0], KEEP_ALL[1], ("KNOWN_LEN_MAX", "10")];
    let aggregator = folder.start(&few);
    let mut gateway = folder.connect(1);
    fill(&mut gateway, 1..10);
    fill(&mut gateway, 11..20);
    // Forgotten, and so accepted again.
    assert_eq!(gateway.accept(id(1), 2), Admission::Granted);
    aggregator.kill();
    // A process that remembers more replays the same: with its own bound it would find id 1 accepted twice.
    let aggregator = folder.start(SNAPSHOT_NOW);
    let mut gateway = folder.connect(1);
    assert_eq!(gateway.lookup(id(1)).standing, Standing::Open);
    assert_eq!(gateway.lookup(id(19)).standing, Standing::Processed);
    assert_eq!(gateway.summary(0, u64::MAX).requests[0], 18);
    fill(&mut gateway, 21..60);
    wait_until("a snapshot is taken", || folder.metric("galo_snapshots_total") > 0.0);
    aggregator.kill();
    let aggregator = folder.start(&few);
    let mut gateway = folder.connect(1);
    assert_eq!(gateway.lookup(id(19)).standing, Standing::Absent);
    assert_eq!(gateway.lookup(id(59)).standing, Standing::Processed);
    assert_eq!(gateway.summary(0, u64::MAX).requests[0], 18 + 36);
    assert_eq!(folder.metric("galo_ledger_known_ids"), 10.0);
    drop(aggregator);
}
