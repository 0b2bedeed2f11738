//! Snapshots keep the folder small; a start finds the same ledger whichever step of the switch-over a kill came after.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Aggregator, Folder, Gateway, NOON_MS, PATIENCE, amount_cents, id};
use galo_wire::record::{Admission, Standing};

const KEEP_ALL: &[(&str, &str)] = &[("SEGMENT_BYTES", "16384"), ("SNAPSHOT_EVERY_BYTES", "1000000000")];
const SNAPSHOT_NOW: &[(&str, &str)] = &[("SEGMENT_BYTES", "16384"), ("SNAPSHOT_EVERY_BYTES", "4096")];

const COUNT: u64 = 1_600;

/// The status of a journal that is refused.
const JOURNAL: Option<i32> = Some(74);

/// Accepts so many payments and processes all but every tenth.
fn fill(gateway: &mut Gateway, numbers: std::ops::Range<u64>) {
    gateway.fill(numbers, |number| (number % 10 != 0).then_some(NOON_MS + number));
}

fn check(gateway: &mut Gateway, count: u64) {
    for number in 0..count {
        let found = gateway.lookup(id(number));
        let expected = if number % 10 == 0 { Standing::Open } else { Standing::Processed };
        assert_eq!(
            (found.standing, found.amount_cents),
            (expected, amount_cents(number)),
            "payment {number}"
        );
    }
    for (from, to) in [(0, u64::MAX), (NOON_MS + 13, NOON_MS + 517)] {
        let summary = gateway.summary(from, to);
        let counted = (0..count).filter(|number| number % 10 != 0);
        let within: Vec<_> = counted.filter(|number| (from..=to).contains(&(NOON_MS + number))).collect();
        assert_eq!(summary.requests[0], within.len() as u64);
        assert_eq!(summary.amount_cents[0], within.iter().map(|number| amount_cents(*number)).sum::<u64>());
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

/// A switch-over from one snapshot to the next: what was there before the first one, what is there from it on, and what from the second one on.
struct SwitchOver {
    folder: Folder,
    kept: Folder,
    oldest: Vec<String>,
    older: Vec<String>,
    newest: [String; 2],
}

impl SwitchOver {
    /// Real ones, each of another process.
    fn new(name: &str) -> Self {
        let (folder, kept) = (Folder::new(name), Folder::new(&format!("{name}-kept")));
        let more = |numbers: std::ops::Range<u64>| {
            let aggregator = folder.start(KEEP_ALL);
            let mut gateway = folder.connect(1);
            numbers.step_by(100).for_each(|number| fill(&mut gateway, number..number + 100));
            aggregator.kill();
            let names = folder.names();
            copy(&folder.journal(), &names, &kept.0);
            names
        };
        let snapshot = |count: usize| {
            let aggregator = folder.start(SNAPSHOT_NOW);
            // As soon as it listens.
            drop(folder.connect(1));
            wait_until("a snapshot is there", || {
                folder.metric("galo_snapshots_total") > 0.0 && folder.files(".snapshot").len() == count
            });
            aggregator.kill();
            copy(&folder.journal(), &folder.names(), &kept.0);
            folder.names()
        };
        let oldest = more(0..COUNT / 2);
        assert!(oldest.len() > 2 && oldest.iter().all(|name| name.ends_with(".journal")), "{oldest:?}");
        let names = snapshot(1);
        assert!(oldest.iter().all(|name| names.contains(name)), "what came before the first one is kept");
        let names = more(COUNT / 2..COUNT);
        let older: Vec<_> = names.into_iter().filter(|name| !oldest.contains(name)).collect();
        let names = snapshot(2);
        assert!(older.iter().all(|name| names.contains(name)), "the one before is kept with its segments");
        assert!(oldest.iter().all(|name| !names.contains(name)), "nothing needs these: {names:?}");
        let newest: Vec<_> = names.into_iter().filter(|name| !older.contains(name)).collect();
        let newest = newest.try_into().expect("a segment and a snapshot");
        Self { folder, kept, oldest, older, newest }
    }

    /// A folder with these files, which a start is to be tried from.
    fn lay_out(&self, names: &[&[String]]) {
        for name in self.folder.names() {
            std::fs::remove_file(self.folder.journal().join(name)).unwrap();
        }
        names.iter().for_each(|names| copy(&self.kept.0, names, &self.folder.journal()));
    }

    /// Starts, looks whether everything is there, and says what the folder holds then.
    fn start(&self) -> Vec<String> {
        let aggregator = self.folder.start(KEEP_ALL);
        check(&mut self.folder.connect(1), COUNT);
        aggregator.kill();
        self.folder.names()
    }
}

#[test]
fn a_kill_after_any_step_of_the_switch_over_loses_nothing() {
    let it = SwitchOver::new("steps");
    let [segment, snapshot] = it.newest.clone();
    let bytes = std::fs::read(it.kept.0.join(&snapshot)).unwrap();
    let unfinished = format!("{snapshot}.unfinished");
    let (segment, snapshot) = ([segment], [snapshot]);
    // 1. The new segment is begun.
    it.lay_out(&[&it.oldest, &it.older, &segment]);
    it.start();
    // 2. and 3. The snapshot is not finished, or not renamed.
    for part in [0, 1, 47, 48, bytes.len() / 2, bytes.len() - 1, bytes.len()] {
        it.lay_out(&[&it.oldest, &it.older, &segment]);
        std::fs::write(it.folder.journal().join(&unfinished), &bytes[..part]).unwrap();
        assert!(!it.start().contains(&unfinished), "left over");
    }
    // 4. and 5. It is renamed, everything else is still there.
    it.lay_out(&[&it.oldest, &it.older, &segment, &snapshot]);
    let names = it.start();
    assert!(it.oldest.iter().all(|name| !names.contains(name)), "left over: {names:?}");
    assert!(it.older.iter().all(|name| names.contains(name)), "the generation before: {names:?}");
    // 6. Some older files are gone, in any order.
    for gone in 0..it.oldest.len() {
        let some: Vec<_> = it.oldest.iter().filter(|name| **name != it.oldest[gone]).cloned().collect();
        it.lay_out(&[&some, &it.older, &segment, &snapshot]);
        it.start();
        it.lay_out(&[&it.oldest[gone..=gone], &it.older, &segment, &snapshot]);
        it.start();
    }
    it.lay_out(&[&it.older, &segment, &snapshot]);
    let names = it.start();
    assert_eq!(names.iter().filter(|name| name.ends_with(".snapshot")).count(), 2);
    // A folder of a version that kept one alone.
    it.lay_out(&[&segment, &snapshot]);
    it.start();
}

/// A loss of power between two syncs leaves a name without bytes, and a segment behind it. The start is refused for the gap; what it says to do is enough.
#[test]
fn a_segment_that_was_never_begun_stays_for_the_snapshot_that_rests_on_it() {
    let it = SwitchOver::new("unborn");
    let [segment, snapshot] = it.newest.clone();
    let sequence: u64 = segment.trim_end_matches(".journal").parse().unwrap();
    let later = format!("{:020}.journal", sequence + 1);
    let path = |name: &str| it.folder.journal().join(name);
    for unborn in [&[][..], &[0; 20]] {
        it.lay_out(&[&it.older, std::slice::from_ref(&snapshot)]);
        std::fs::write(path(&segment), unborn).unwrap();
        std::fs::copy(it.kept.0.join(&segment), path(&later)).unwrap();
        let (status, said) = it.folder.refusal(KEEP_ALL);
        assert_eq!(status.code(), JOURNAL);
        assert!(said.contains(&format!("move {later} and later files away")), "{said}");
        assert_eq!(std::fs::read(path(&segment)).unwrap(), unborn, "a start that is refused changes nothing");
        std::fs::remove_file(path(&later)).unwrap();
        assert!(it.start().contains(&segment), "begun anew");
    }
}

/// One bit of the newest snapshot, wherever it is: the one before it is read with its segments, loudly, and a new one is written at once.
#[test]
fn a_snapshot_with_a_flipped_bit_costs_a_generation_and_nothing_else() {
    let it = SwitchOver::new("flipped");
    let [segment, snapshot] = it.newest.clone();
    let path = it.folder.journal().join(&snapshot);
    let bytes = std::fs::read(it.kept.0.join(&snapshot)).unwrap();
    let damaged = format!("{snapshot}.damaged");
    // In the magic, the version, the header, a record, a page, the end; and a cut.
    for place in [3, 9, 20, 60, bytes.len() / 2, bytes.len() - 40, bytes.len()] {
        it.lay_out(&[&it.older, &[segment.clone(), snapshot.clone()]]);
        let mut bytes = bytes.clone();
        match bytes.get_mut(place) {
            Some(byte) => *byte ^= 4,
            None => bytes.truncate(place - 1),
        }
        std::fs::write(&path, bytes).unwrap();
        let child = it.folder.command(KEEP_ALL).env("LOG", "error").spawn().unwrap();
        let mut gateway = it.folder.connect(1);
        check(&mut gateway, COUNT);
        assert_eq!(it.folder.metric("galo_journal_damaged_files_total"), 1.0);
        wait_until("a new one is written", || it.folder.metric("galo_snapshots_total") > 0.0);
        let names = it.folder.names();
        // Nothing was written since, so the new one has the old one's name.
        assert!(names.contains(&damaged) && names.contains(&snapshot), "{names:?}");
        drop(gateway);
        let mut aggregator = Aggregator(child);
        let log = aggregator.0.stderr.take().unwrap();
        aggregator.kill();
        let log = std::io::read_to_string(log).unwrap();
        assert!(log.contains("ERROR") && log.contains(&snapshot), "{log}");
        // From now on as ever, and without it once nothing of its time is left.
        let aggregator = it.folder.start(SNAPSHOT_NOW);
        check(&mut it.folder.connect(1), COUNT);
        assert_eq!(it.folder.metric("galo_journal_damaged_files_total"), 0.0);
        aggregator.kill();
    }
    // The one before is damaged too, or lacks a segment: refused, and nothing is touched.
    for gone in [false, true] {
        it.lay_out(&[&it.older, &[segment.clone(), snapshot.clone()]]);
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let older = it.older.iter().find(|name| name.ends_with(".snapshot")).unwrap();
        if gone {
            let segment = it.older.iter().rfind(|name| name.ends_with(".journal")).unwrap();
            std::fs::remove_file(it.folder.journal().join(segment)).unwrap();
        } else {
            std::fs::write(it.folder.journal().join(older), &bytes[..100]).unwrap();
        }
        let names = it.folder.names();
        let (status, said) = it.folder.refusal(&[]);
        assert_eq!((status.code(), said.lines().count()), (Some(74), 1), "{said}");
        assert!(said.contains(&snapshot) && said.contains("what came before it does not help"), "{said}");
        assert_eq!(it.folder.names(), names);
    }
}

#[test]
fn a_scrub_finds_what_rots_at_rest_and_has_it_written_anew() {
    let it = SwitchOver::new("scrub");
    it.lay_out(&[&it.older, &it.newest]);
    let scrubbed = [KEEP_ALL[0], KEEP_ALL[1], ("SCRUB_EVERY_S", "1")];
    let aggregator = it.folder.start(&scrubbed);
    let mut gateway = it.folder.connect(1);
    wait_until("a scrub is done", || it.folder.metric("galo_scrubs_total") > 0.0);
    assert!(it.folder.metric("galo_scrub_age_seconds") >= 0.0, "it has found nothing");
    assert_eq!(it.folder.metric("galo_journal_damaged_files_total"), 0.0);
    fill(&mut gateway, COUNT..COUNT + 100);
    // One bit of the newest snapshot, and later one of a segment that nobody writes any more.
    let snapshots = || it.folder.metric("galo_snapshots_total");
    let segment = it.older.iter().find(|name| name.ends_with(".journal")).unwrap();
    let snapshot = &it.newest[1];
    for (name, place) in [(snapshot, 100), (segment, 200)] {
        let (before, found) = (snapshots(), it.folder.metric("galo_journal_damaged_files_total"));
        let path = it.folder.journal().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[place] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        wait_until("it is found", || it.folder.metric("galo_journal_damaged_files_total") > found);
        wait_until("a snapshot is taken", || snapshots() > before);
    }
    assert!(!it.folder.names().contains(snapshot), "it is not read any more");
    aggregator.kill();
    let aggregator = it.folder.start(KEEP_ALL);
    check(&mut it.folder.connect(1), COUNT + 100);
    drop(aggregator);
}

/// `docs/durability.md` says how to copy the folder of a running aggregator. What stands there is what is run here.
#[test]
fn a_backup_of_a_running_journal_is_one_to_start_from() {
    let guide = include_str!("../../docs/durability.md");
    let (_, block) = guide.split_once("```sh\n").expect("a block of commands");
    let (script, _) = block.split_once("```").expect("it ends");
    let folder = Folder::new("backup");
    let aggregator = folder.start(SNAPSHOT_NOW);
    let mut gateway = folder.connect(1);
    let (mut count, mut snapshots) = (0, 0.0);
    for round in 0..3 {
        // Among them some while files come and go.
        while folder.metric("galo_snapshots_total") <= snapshots {
            fill(&mut gateway, count..count + 50);
            count += 50;
        }
        snapshots = folder.metric("galo_snapshots_total");
        let backup = Folder::new(&format!("backup-{round}"));
        let mut command = Command::new("sh");
        command.args(["-euc", script]).env("from", folder.journal()).env("to", backup.journal());
        let mut copying = command.spawn().unwrap();
        let first = count;
        while copying.try_wait().unwrap().is_none() {
            // On a busy machine it begins anew again and again: no more than are remembered meanwhile.
            if count < first + 300_000 {
                fill(&mut gateway, count..count + 50);
                count += 50;
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        assert!(copying.wait().unwrap().success());
        let restored = backup.start(KEEP_ALL);
        let mut other = backup.connect(1);
        // There may be many, and beyond 800,000 that have ended the first are forgotten.
        for number in (first.saturating_sub(100_000)..first).step_by(7) {
            let expected = if number % 10 == 0 { Standing::Open } else { Standing::Processed };
            let found = other.lookup(id(number));
            assert_eq!(
                (found.standing, found.amount_cents),
                (expected, amount_cents(number)),
                "payment {number}"
            );
        }
        restored.kill();
    }
    drop(aggregator);
}

#[test]
fn the_folder_stays_small_and_restarts_find_everything() {
    let folder = Folder::new("small");
    let mut count = 0;
    let mut snapshot_size = 0.0_f64;
    for _ in 0..3 {
        let aggregator = folder.start(SNAPSHOT_NOW);
        let mut gateway = folder.connect(1);
        check(&mut gateway, count);
        while folder.metric("galo_snapshots_total") == 0.0 {
            fill(&mut gateway, count..count + 100);
            count += 100;
        }
        // A start would not read more than twice as much journal as snapshot.
        wait_until("the journal is short", || {
            snapshot_size = folder.metric("galo_snapshot_bytes");
            folder.metric("galo_journal_bytes") < 2.0 * snapshot_size.max(4_096.0)
        });
        check(&mut gateway, count);
        aggregator.kill();
    }
    let aggregator = folder.start(SNAPSHOT_NOW);
    check(&mut folder.connect(1), count);
    let sizes = folder.names().into_iter().map(|name| folder.journal().join(name).metadata().unwrap().len());
    let size: u64 = sizes.sum();
    // Two snapshots, the journal of both, and of what came while they were written.
    assert!((size as f64) < 6.0 * snapshot_size + 65_536.0, "{size} beside {snapshot_size}");
    drop(aggregator);
}

/// Each is at least as much journal apart as the one before is long: what is written for snapshots is bounded by what is written for payments.
#[test]
fn snapshots_that_grow_come_less_often() {
    let folder = Folder::new("seldom");
    // So that a segment begins with each snapshot alone.
    let aggregator = folder.start(&[("SEGMENT_BYTES", "1000000000"), SNAPSHOT_NOW[1]]);
    let mut gateway = folder.connect(1);
    for number in (0..4_000).step_by(50) {
        fill(&mut gateway, number..number + 50);
        wait_until("the one that has begun is done", || {
            folder.metric("galo_journal_segments_total") <= folder.metric("galo_snapshots_total")
        });
    }
    let (snapshots, written) =
        (folder.metric("galo_snapshots_total"), folder.metric("galo_journal_written_bytes_total"));
    // Each time that 4 KiB had come would have been eighty times; half as much again as the time before is a dozen.
    assert!(written > 80.0 * 4_096.0 && (3.0..30.0).contains(&snapshots), "{snapshots} in {written} bytes");
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
