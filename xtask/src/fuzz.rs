//! `cargo xtask fuzz`: the fuzz targets of `fuzz/`, for seconds in CI and for hours by hand.
//!
//! Builds them with cargo-fuzz (installed if it is missing) on the pinned toolchain, runs each over its corpus and on from there, and says how
//! many executions it reached, at what rate, and how much of the code it saw. A target that holds is one test passed.
//!
//! What the fuzzer finds worth keeping goes into `fuzz/found`, which git ignores; an input that breaks a target is left in
//! `fuzz/artifacts`, and its path is printed. `--minimize` makes a small corpus of both, for git. Must never change anything else.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Args;

use crate::cargo::cargo;
use crate::out::outln;
use crate::repo::{self, Fallible};

/// The version that `fuzz/` was tried with.
const CARGO_FUZZ_VERSION: &str = "0.13.2";

/// Bytes of a target's corpus that `--minimize` keeps beside the seeds written by hand: nine targets stay below 300 KB.
const CORPUS_SIZE_MAX: u64 = 20 * 1024;
/// Files, likewise.
const CORPUS_FILES_MAX: usize = 80;
/// What the names of seeds written by hand begin with.
const SEED_PREFIX: &str = "seed-";

/// An input that takes longer has found something.
const INPUT_SECONDS_MAX: u32 = 10;

/// What is fuzzed, and for how long.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["target", "all"]))]
pub(crate) struct Options {
    /// The target: a file's name in fuzz/targets
    target: Option<String>,
    /// Every target, as many at a time as there are cores
    #[arg(long)]
    all: bool,
    /// For so long each
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// So many executions each, however long they take
    #[arg(long, conflicts_with = "seconds")]
    runs: Option<u64>,
    /// Draw the same inputs each time: with --runs and nothing found before, the same executions
    #[arg(long)]
    seed: Option<u32>,
    /// Inputs of up to so many bytes
    #[arg(long, default_value_t = 4096)]
    size_max: u32,
    /// Take the targets as they were built last
    #[arg(long)]
    no_build: bool,
    /// Afterwards make the corpus that git keeps of all that was found
    #[arg(long)]
    minimize: bool,
}

/// `cargo xtask fuzz`.
///
/// # Errors
///
/// When the targets cannot be built, or one fails.
pub(crate) fn fuzz(options: &Options) -> Fallible<()> {
    let known = targets()?;
    let chosen: Vec<&String> = match &options.target {
        Some(name) => vec![known.get(name).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            format!("there is no fuzz target {name}; there are {}", names.join(", "))
        })?],
        None => known.iter().collect(),
    };
    if !options.no_build {
        build()?;
    }
    let left = Mutex::new(chosen.iter());
    let failed = AtomicUsize::new(0);
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let worker = || {
        while let Some(target) = next() {
            match run(target, options) {
                Ok(seen) => outln!("PASS  {target}: {seen}"),
                Err(error) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                    outln!("FAIL  {target}: {error}");
                }
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(worker))));
    if options.minimize {
        for target in &chosen {
            outln!("{target}: {}", minimize(target, options)?);
        }
    }
    let failed = failed.into_inner();
    outln!("{} passed, {failed} failed", chosen.len() - failed);
    if failed == 0 { Ok(()) } else { Err("a fuzz target failed (above)".to_owned()) }
}

fn folder() -> PathBuf {
    repo::root().join("fuzz")
}

/// The names of the targets.
fn targets() -> Fallible<BTreeSet<String>> {
    let path = folder().join("targets");
    let entries = fs::read_dir(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let names = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        is_source.then(|| path.file_stem()?.to_str().map(str::to_owned)).flatten()
    });
    Ok(names.collect())
}

fn build() -> Fallible<()> {
    let by_hand = format!("cargo-fuzz is missing: cargo install --locked cargo-fuzz@{CARGO_FUZZ_VERSION}");
    let version = cargo().args(["fuzz", "--version"]).stderr(Stdio::null()).output();
    if !version.is_ok_and(|output| output.status.success()) {
        outln!("cargo-fuzz is missing; installing it from crates.io");
        let package = format!("cargo-fuzz@{CARGO_FUZZ_VERSION}");
        let status = cargo().args(["install", "--quiet", "--locked", &package]).status();
        if !status.is_ok_and(|status| status.success()) {
            return Err(by_hand);
        }
    }
    let status = cargo()
        // Without a sanitizer: the properties are about values, and it would halve what is reached.
        .args(["fuzz", "build", "--sanitizer", "none"])
        // Coverage's compiler flags are unstable ones, on the toolchain that the programs are built with.
        .env("RUSTC_BOOTSTRAP", "1")
        .status()
        .map_err(|error| format!("{by_hand} ({error})"))?;
    if status.success() { Ok(()) } else { Err("cargo fuzz build failed (above)".to_owned()) }
}

/// The program that cargo-fuzz built of a target.
fn program(target: &str) -> PathBuf {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    folder().join("target").join(triple).join("release").join(target)
}

/// Fuzzes one target: what was reached, or the input that broke it.
fn run(target: &str, options: &Options) -> Fallible<String> {
    let (found, corpus) = (folder().join("found").join(target), folder().join("corpus").join(target));
    let artifacts = folder().join("artifacts").join(target);
    for folder in [&found, &corpus, &artifacts] {
        fs::create_dir_all(folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    }
    let log = artifacts.join("log");
    let output =
        fs::File::create(&log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    let mut command = Command::new(program(target));
    match options.runs {
        Some(runs) => command.arg(format!("-runs={runs}")),
        None => command.arg(format!("-max_total_time={}", options.seconds)),
    };
    if let Some(seed) = options.seed {
        command.arg(format!("-seed={seed}"));
    }
    command.arg(format!("-max_len={}", options.size_max));
    command.arg(format!("-timeout={INPUT_SECONDS_MAX}"));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    // Long inputs early: most of what is here counts in sequences.
    command.args(["-print_final_stats=1", "-rss_limit_mb=1024", "-len_control=20"]);
    // Without this glibc gives memory back to the kernel after each input and asks for it again.
    for variable in ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"] {
        command.env(variable, "1000000000");
    }
    // What is new goes into the first folder; the second is only read.
    command.args([&found, &corpus]);
    let started = Instant::now();
    let status = command
        .current_dir(folder())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output)
        .status()
        .map_err(|error| format!("cannot run {target}: {error}"))?;
    let said = fs::read(&log).map_err(|error| format!("cannot read {}: {error}", log.display()))?;
    let said = String::from_utf8_lossy(&said);
    if !status.success() {
        return Err(explain(&said, &log));
    }
    let reached = Reached::read(&said).ok_or_else(|| format!("{} tells no figures", log.display()))?;
    let seconds = started.elapsed().as_secs_f64();
    let Reached { executions, edges, features, corpus_len } = reached;
    Ok(format!(
        "{executions} executions in {seconds:.0} s ({:.0}/s), {edges} edges, {features} features, {corpus_len} inputs kept",
        per_second(executions, seconds)
    ))
}

#[allow(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "a rate for people")]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// What the fuzzer says at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Reached {
    executions: u64,
    edges: u64,
    features: u64,
    corpus_len: u64,
}

impl Reached {
    fn read(said: &str) -> Option<Self> {
        let executions =
            said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
        let last = said.lines().rev().find(|line| line.contains(" cov: "))?;
        let after = |name: &str| {
            let mut words = last.split_whitespace().skip_while(|word| *word != name);
            words.nth(1)?.split('/').next()?.parse().ok()
        };
        Some(Self {
            executions: executions.trim().parse().ok()?,
            edges: after("cov:")?,
            features: after("ft:")?,
            corpus_len: after("corp:")?,
        })
    }
}

/// The panic's own words, and where the input is.
fn explain(said: &str, log: &Path) -> String {
    let mut lines =
        said.lines().skip_while(|line| !line.contains("panicked at") && !line.contains("ERROR: "));
    let words: Vec<&str> = lines.by_ref().take(3).map(str::trim).collect();
    let input = said.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path);
    format!("{}; input {}, log {}", words.join(" "), input.unwrap_or("not written"), log.display())
}

/// Makes the corpus that git keeps of it and what was found: a choice among the fewest inputs that show the same.
fn minimize(target: &str, options: &Options) -> Fallible<String> {
    let (found, corpus) = (folder().join("found").join(target), folder().join("corpus").join(target));
    let merged = folder().join("artifacts").join(target).join("merged");
    let cannot = |error: std::io::Error| format!("cannot minimise {target}: {error}");
    if merged.exists() {
        fs::remove_dir_all(&merged).map_err(cannot)?;
    }
    fs::create_dir_all(&merged).map_err(cannot)?;
    let status = Command::new(program(target))
        .args(["-set_cover_merge=1", &format!("-max_len={}", options.size_max)])
        .args([&merged, &corpus, &found])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(cannot)?;
    if !status.success() {
        return Err(format!("the fuzzer cannot merge the corpus of {target}"));
    }
    let files = |folder: &Path| -> std::io::Result<Vec<(u64, PathBuf)>> {
        let entries = fs::read_dir(folder)?.map(|entry| {
            let entry = entry?;
            Ok((entry.metadata()?.len(), entry.path()))
        });
        let mut files = entries.collect::<std::io::Result<Vec<_>>>()?;
        files.sort();
        Ok(files)
    };
    let is_seed = |path: &Path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(SEED_PREFIX))
    };
    for (_, path) in files(&corpus).map_err(cannot)?.iter().filter(|(_, path)| !is_seed(path)) {
        fs::remove_file(path).map_err(cannot)?;
    }
    let (mut count, mut kept_size) = (0, 0);
    let merged_files = files(&merged).map_err(cannot)?;
    // Of every size some: the smallest alone would show the least.
    for (size, path) in merged_files.iter().step_by(merged_files.len().div_ceil(CORPUS_FILES_MAX).max(1)) {
        if kept_size + size > CORPUS_SIZE_MAX {
            break;
        }
        let name = path.file_name().expect("a folder's entry has a name");
        fs::copy(path, corpus.join(name)).map_err(cannot)?;
        (count, kept_size) = (count + 1, kept_size + size);
    }
    Ok(format!("{count} of {} inputs, {kept_size} bytes, stand in {}", merged_files.len(), corpus.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_fuzzers_last_words() {
        let said = "#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 30Mb\n\
                    #4096\tpulse  cov: 812 ft: 2043 corp: 321/14Kb lim: 4096 exec/s: 2048 rss: 50Mb\n\
                    Done 5000 runs in 2 second(s)\nstat::number_of_executed_units: 5000\n";
        let expected = Reached { executions: 5000, edges: 812, features: 2043, corpus_len: 321 };
        assert_eq!(Reached::read(said), Some(expected));
        assert_eq!(Reached::read("stat::number_of_executed_units: 5000\n"), None);
    }

    #[test]
    fn a_panic_is_told_with_its_input() {
        let said = "INFO: Seed: 1\n\nthread '<unnamed>' panicked at src/query.rs:14:5:\nassertion failed\n  left: 1\n\
                    artifact_prefix='a/'; Test unit written to a/crash-1\n";
        let told = explain(said, Path::new("log"));
        assert!(told.contains("src/query.rs:14:5: assertion failed") && told.contains("a/crash-1"), "{told}");
        assert!(explain("", Path::new("log")).contains("not written"));
    }
}
