//! Where a benchmark ran and with what: the lines without which a figure is a rumour.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use galo_bench::results::Machine;
use nix::sched::CpuSet;

use crate::repo::{self, Fallible};
use crate::{limits, tools, up};

/// Reads it all; what cannot be read is left empty.
pub(super) fn describe(profile: up::Profile, limited: bool) -> Fallible<Machine> {
    let haproxy = tools::haproxy()?;
    let version = output(haproxy.to_str().unwrap_or("haproxy"), &["-v"]);
    let version: Vec<&str> = version.split(' ').take(3).collect();
    Ok(Machine {
        haproxy: version.join(" "),
        limits: if limited { read_limits(&up::compose_file())? } else { BTreeMap::new() },
        ..describe_host(profile)
    })
}

/// Likewise, where neither HAProxy nor limits take part.
pub(crate) fn describe_host(profile: up::Profile) -> Machine {
    let status = output("git", &["status", "--porcelain", "--untracked-files=no"]);
    let dirty = if status.is_empty() { "" } else { "-dirty" };
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = values(&cpuinfo, "model name").collect();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory =
        values(&meminfo, "MemTotal").next().and_then(|text| text.trim_end_matches(" kB").parse().ok());
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    Machine {
        date: output("date", &["-u", "+%-d %B %Y, %H:%M UTC"]),
        commit: format!("{}{dirty}", output("git", &["rev-parse", "--short", "HEAD"])),
        kernel: output("uname", &["-r"]),
        processor: models.first().map(|name| (*name).to_owned()).unwrap_or_default(),
        processor_count: models.len(),
        memory_bytes: memory.unwrap_or(0_u64) * 1024,
        haproxy: String::new(),
        profile: profile.name().to_owned(),
        command: format!("cargo xtask {}", arguments.join(" ")),
        limits: BTreeMap::new(),
    }
}

fn read_limits(compose: &Path) -> Fallible<BTreeMap<String, String>> {
    let found = limits::read_compose(compose)?.into_iter().map(|(service, limits)| {
        let centi = limits.quota_us / 1_000;
        let mebibytes = limits.memory_bytes >> 20;
        let place = limits.cpus.map(|cpus| format!(", processors {},", list(&cpus))).unwrap_or_default();
        (service, format!("{}.{:02} CPU{place} and {mebibytes} MiB", centi / 100, centi % 100))
    });
    Ok(found.collect())
}

fn list(cpus: &CpuSet) -> String {
    let numbers = (0..CpuSet::count()).filter(|cpu| cpus.is_set(*cpu) == Ok(true));
    numbers.map(|cpu| cpu.to_string()).collect::<Vec<_>>().join("+")
}

/// The values of lines `key : value`.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| Some(line.strip_prefix(key)?.trim_start().strip_prefix(':')?.trim()))
}

/// The first line that a program prints.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(repo::root()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}
