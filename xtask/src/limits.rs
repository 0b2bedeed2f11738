//! The compose file's limits, put on plain processes through cgroups (v1 or v2).
//!
//! The compose file stays the only place that says how much each service may use: this module reads its
//! `deploy.resources.limits` and does what Docker does with them: a CPU quota over periods of 100 ms, and a memory limit in which
//! "MB" means MiB. A process enters its cgroup between fork and exec, so that nothing of it ever runs outside. A service's `cpuset` is
//! its affinity from then on, not a cgroup's, which a program could widen again; ours do not.
//!
//! Must never touch a cgroup that it did not create: everything is below one folder named by the caller. It survives
//! cgroups left behind by a killed supervisor (they are taken over). Without root, or without the controllers, creating fails with
//! one line.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use serde_yaml_ng::Value;

use crate::repo::Fallible;

/// Docker's own period for `cpus` (`--cpu-period` in its documentation).
const PERIOD_US: u64 = 100_000;

/// What one service may use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Limits {
    /// Microseconds of CPU in each period of 100 ms; 100,000 is one whole CPU.
    pub(crate) quota_us: u64,
    pub(crate) memory_bytes: u64,
    /// The processors on which it may run, if not on all of them.
    pub(crate) cpus: Option<CpuSet>,
}

/// The limits of each service that has any.
pub(crate) fn read_compose(path: &Path) -> Fallible<BTreeMap<String, Limits>> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    parse_compose(&text, |name| std::env::var(name).ok())
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn parse_compose(
    text: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Fallible<BTreeMap<String, Limits>> {
    let mut document: Value = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    // What is merged in may itself begin with a merge: each pass takes one layer off.
    let mut layered = Value::Null;
    while layered != document {
        layered = document.clone();
        document.apply_merge().map_err(|error| error.to_string())?;
    }
    let services = document.get("services").and_then(Value::as_mapping).ok_or("no `services`")?;
    let mut found = BTreeMap::new();
    for (name, service) in services {
        let name = name.as_str().ok_or("a service's name is not a string")?;
        let limits = ["deploy", "resources", "limits"].iter().try_fold(service, |value, key| value.get(key));
        let Some(limits) = limits else { continue };
        let text = |key: &str| match limits.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            _ => Err(format!("service {name} has limits without `{key}`")),
        };
        let (cpus, memory) = (text("cpus")?, text("memory")?);
        let quota_us = parse_cpus(&cpus)
            .ok_or_else(|| format!("service {name}: cpus `{cpus}` is not a decimal number above 0"))?;
        let memory_bytes = parse_memory(&memory)
            .ok_or_else(|| format!("service {name}: memory `{memory}` is not a size such as 100MB"))?;
        let cpus = match service.get("cpuset").map(Value::as_str) {
            None => None,
            Some(text) => {
                let text = interpolate(text.unwrap_or_default(), &variable);
                Some(parse_cpuset(&text).ok_or_else(|| {
                    format!("service {name}: cpuset `{text}` is not a list of processors such as 0-2,4")
                })?)
            }
        };
        found.insert(name.to_owned(), Limits { quota_us, memory_bytes, cpus });
    }
    Ok(found)
}

/// Compose's `${NAME:-default}`, as a whole value.
fn interpolate(text: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    let inner = text.strip_prefix("${").and_then(|text| text.strip_suffix('}'));
    match inner.and_then(|inner| inner.split_once(":-")) {
        Some((name, default)) => {
            variable(name).filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
        }
        None => text.to_owned(),
    }
}

/// `0-2,4`, as Linux writes lists of processors.
fn parse_cpuset(text: &str) -> Option<CpuSet> {
    let mut cpus = CpuSet::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last {
            return None;
        }
        for cpu in first..=last {
            cpus.set(cpu).ok()?;
        }
    }
    Some(cpus)
}

/// Says so if this process may not run on one of these processors, which Docker refuses too.
pub(crate) fn check_cpus(service: &str, cpus: &CpuSet) -> Fallible<()> {
    let ours = sched_getaffinity(Pid::this()).map_err(|error| format!("sched_getaffinity: {error}"))?;
    let is_missing = |cpu: &usize| cpus.is_set(*cpu) == Ok(true) && ours.is_set(*cpu) != Ok(true);
    match (0..CpuSet::count()).find(is_missing) {
        None => Ok(()),
        Some(cpu) => Err(format!(
            "{service} is to run on processor {cpu}, which there is not: set GALO_CPUSET to some of those that \
             `taskset -cp $$` prints"
        )),
    }
}

/// `0.35` is 35,000 µs of each period. In digits, as a float would turn 0.29 into 28,999.
fn parse_cpus(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 5 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: u64 = format!("{fraction:0<5}").parse().ok()?;
    let quota_us = whole.checked_mul(PERIOD_US)?.checked_add(fraction)?;
    (quota_us > 0).then_some(quota_us)
}

/// Docker's sizes: powers of 1024 whichever way the unit is spelled.
fn parse_memory(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

/// Where the kernel's controllers are.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Hierarchy {
    /// One mount for each controller.
    V1 {
        cpu: PathBuf,
        memory: PathBuf,
        accounting: Option<PathBuf>,
    },
    V2(PathBuf),
}

fn find_hierarchy(mounts: &str) -> Option<Hierarchy> {
    let mut unified = None;
    let (mut cpu, mut memory, mut accounting) = (None, None, None);
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, target, kind, options, ..] = fields[..] else { continue };
        let has = |controller: &str| options.split(',').any(|option| option == controller);
        match kind {
            "cgroup2" => unified = Some(PathBuf::from(target)),
            "cgroup" => {
                for (controller, place) in
                    [("cpu", &mut cpu), ("memory", &mut memory), ("cpuacct", &mut accounting)]
                {
                    if has(controller) {
                        *place = Some(PathBuf::from(target));
                    }
                }
            }
            _ => {}
        }
    }
    match (cpu, memory) {
        // A machine may mount both; whichever holds the controllers counts.
        (Some(cpu), Some(memory)) => {
            Some(Hierarchy::V1 { accounting: accounting.filter(|path| *path != cpu), cpu, memory })
        }
        _ => unified.map(Hierarchy::V2),
    }
}

/// The cgroup of one service, made and limited.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    /// The folders that make it up: one for each controller under v1, a single one under v2.
    folders: Vec<PathBuf>,
}

/// What a cgroup has counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Usage {
    /// Periods in which the quota ran out.
    pub(crate) throttled_count: u64,
    pub(crate) period_count: u64,
    /// How long members stood still because of that, summed over the processors.
    pub(crate) throttled_us: u64,
    pub(crate) cpu_us: u64,
    pub(crate) memory_bytes_max: u64,
}

impl Cgroup {
    /// Makes `<group>/<service>` with these limits.
    pub(crate) fn create(group: &str, service: &str, limits: Limits) -> Fallible<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Err(
                "--limits needs root, since it makes cgroups: run it with sudo, or leave --limits out"
                    .to_owned(),
            );
        }
        let mounts = fs::read_to_string("/proc/mounts")
            .map_err(|error| format!("cannot read /proc/mounts: {error}"))?;
        let hierarchy =
            find_hierarchy(&mounts).ok_or("--limits needs cgroups, and none are mounted on this machine")?;
        let below = |root: &Path| root.join(group).join(service);
        let folders = match &hierarchy {
            Hierarchy::V1 { cpu, memory, accounting } => {
                let folders: Vec<PathBuf> = [Some(cpu), Some(memory), accounting.as_ref()]
                    .into_iter()
                    .flatten()
                    .map(|root| below(root))
                    .collect();
                for folder in &folders {
                    create_folder(folder)?;
                }
                set(&below(cpu), "cpu.cfs_period_us", PERIOD_US)?;
                set(&below(cpu), "cpu.cfs_quota_us", limits.quota_us)?;
                set_memory_v1(&below(memory), limits.memory_bytes)?;
                folders
            }
            Hierarchy::V2(root) => {
                delegate(root)?;
                create_folder(&root.join(group))?;
                delegate(&root.join(group))?;
                let folder = below(root);
                create_folder(&folder)?;
                set(&folder, "cpu.max", format!("{} {PERIOD_US}", limits.quota_us))?;
                set(&folder, "memory.max", limits.memory_bytes)?;
                if folder.join("memory.swap.max").exists() {
                    set(&folder, "memory.swap.max", 0)?;
                }
                vec![folder]
            }
        };
        Ok(Self { folders })
    }

    /// The cgroup that a state file remembers.
    pub(crate) fn at(folders: Vec<PathBuf>) -> Self {
        Self { folders }
    }

    pub(crate) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The files into which a new process writes `0` to become a member.
    pub(crate) fn doors(&self) -> Fallible<Vec<File>> {
        let open = |folder: &PathBuf| {
            let path = folder.join("cgroup.procs");
            OpenOptions::new()
                .write(true)
                .open(&path)
                .map_err(|error| format!("cannot open {}: {error}", path.display()))
        };
        self.folders.iter().map(open).collect()
    }

    pub(crate) fn usage(&self) -> Usage {
        let read =
            |name: &str| self.folders.iter().find_map(|folder| fs::read_to_string(folder.join(name)).ok());
        let stat = read("cpu.stat").unwrap_or_default();
        let field = |key: &str| {
            stat.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok()).unwrap_or(0)
        };
        let number = |text: String| text.trim().parse::<u64>().ok();
        let peak = read("memory.max_usage_in_bytes").or_else(|| read("memory.peak"));
        // v1 accounts in nanoseconds, and in a file of its own.
        let cpu_us = read("cpuacct.usage").and_then(number).map(|nanos| nanos / 1_000);
        Usage {
            throttled_count: field("nr_throttled "),
            period_count: field("nr_periods "),
            throttled_us: (field("throttled_time ") / 1_000).max(field("throttled_usec ")),
            cpu_us: cpu_us.unwrap_or_else(|| field("usage_usec ")),
            memory_bytes_max: peak.and_then(number).unwrap_or(0),
        }
    }

    /// Another quota of CPU; `None` for none at all.
    pub(crate) fn set_quota(&self, quota_us: Option<u64>) -> Fallible<()> {
        for folder in &self.folders {
            if folder.join("cpu.cfs_quota_us").exists() {
                set(folder, "cpu.cfs_quota_us", quota_us.map_or("-1".to_owned(), |quota| quota.to_string()))?;
            } else if folder.join("cpu.max").exists() {
                let quota = quota_us.map_or("max".to_owned(), |quota| quota.to_string());
                set(folder, "cpu.max", format!("{quota} {PERIOD_US}"))?;
            }
        }
        Ok(())
    }

    /// Another limit on memory.
    pub(crate) fn set_memory(&self, bytes: u64) -> Fallible<()> {
        for folder in &self.folders {
            if folder.join("memory.limit_in_bytes").exists() {
                set_memory_v1(folder, bytes)?;
            } else if folder.join("memory.max").exists() {
                set(folder, "memory.max", bytes)?;
            }
        }
        Ok(())
    }

    /// Removes the cgroup, and its group's folder once that is empty. One that still has members stays: the kernel refuses.
    pub(crate) fn remove(&self) {
        for folder in &self.folders {
            if fs::remove_dir(folder).is_ok()
                && let Some(group) = folder.parent()
            {
                // Fails while the group holds other services, which is what we want of it.
                drop(fs::remove_dir(group));
            }
        }
    }
}

fn create_folder(folder: &Path) -> Fallible<()> {
    fs::create_dir_all(folder)
        .map_err(|error| format!("cannot create the cgroup {}: {error}", folder.display()))
}

fn set(folder: &Path, name: &str, value: impl ToString) -> Fallible<()> {
    let path = folder.join(name);
    fs::write(&path, value.to_string()).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// The limit on memory and swap together may never be below that on memory, so a group taken over from a larger limit needs
/// one order and one from a smaller limit the other.
fn set_memory_v1(folder: &Path, bytes: u64) -> Fallible<()> {
    const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
    if !folder.join(WITH_SWAP).exists() {
        return set(folder, "memory.limit_in_bytes", bytes);
    }
    let lowered = set(folder, "memory.limit_in_bytes", bytes);
    set(folder, WITH_SWAP, bytes)?;
    lowered.or_else(|_| set(folder, "memory.limit_in_bytes", bytes))
}

/// Lets the children of a v2 cgroup have CPU and memory limits.
fn delegate(folder: &Path) -> Fallible<()> {
    set(folder, "cgroup.subtree_control", "+cpu +memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPOSE: &str = r#"
x-all: &all
  restart: always
  cpuset: "1"
x-ours: &ours
  <<: *all
  deploy: &deploy
    resources:
      limits: { cpus: "0.30", memory: "70MB" }
services:
  haproxy:
    cpuset: ${GALO_CPUSET:-0}
    deploy: { resources: { limits: { cpus: '0.29', memory: 60M } } }
  gateway-1:
    <<: *ours
    environment: { GATEWAY_INSTANCE: "1" }
  gateway-2:
    <<: *ours
  aggregator:
    <<: *ours
    cpuset: 0-2,4
    deploy:
      resources:
        limits:
          cpus: 0.35
          memory: 1g
  unlimited:
    image: x
"#;

    #[test]
    fn the_compose_file_is_read_through_anchors_and_merge_keys() {
        let limits = parse_compose(COMPOSE, |_| None).unwrap();
        let expected = [
            ("aggregator", 35_000, 1 << 30, Some(cpus(&[0, 1, 2, 4]))),
            ("gateway-1", 30_000, 70 << 20, Some(cpus(&[1]))),
            ("gateway-2", 30_000, 70 << 20, Some(cpus(&[1]))),
            ("haproxy", 29_000, 60 << 20, Some(cpus(&[0]))),
        ];
        let expected: BTreeMap<_, _> = expected
            .map(|(name, quota_us, memory_bytes, cpus)| {
                (name.to_owned(), Limits { quota_us, memory_bytes, cpus })
            })
            .into();
        assert_eq!(limits, expected);
    }

    fn cpus(numbers: &[usize]) -> CpuSet {
        let mut cpus = CpuSet::new();
        numbers.iter().for_each(|number| cpus.set(*number).unwrap());
        cpus
    }

    #[test]
    fn the_processors_can_be_chosen_by_whoever_starts_it() {
        let haproxys = |value: &str| {
            let variable = |name: &str| (name == "GALO_CPUSET").then(|| value.to_owned());
            parse_compose(COMPOSE, variable).map(|limits| limits["haproxy"].cpus)
        };
        assert_eq!(haproxys("1-3").unwrap(), Some(cpus(&[1, 2, 3])));
        assert_eq!(haproxys("").unwrap(), Some(cpus(&[0])), "as Compose has it: empty is unset");
        for mistaken in ["all", "3-1", "0,", "0, 1", "-1", "99999"] {
            let error = haproxys(mistaken).unwrap_err();
            assert!(error.contains("service haproxy") && error.contains(mistaken), "{error}");
        }
    }

    #[test]
    fn processors_that_this_machine_lacks_are_said_to_be_missing() {
        let own = sched_getaffinity(Pid::this()).unwrap();
        check_cpus("haproxy", &own).unwrap();
        let mut lacking = own;
        let cpu = (0..CpuSet::count()).rev().find(|cpu| own.is_set(*cpu) == Ok(false)).unwrap();
        lacking.set(cpu).unwrap();
        let error = check_cpus("haproxy", &lacking).unwrap_err();
        assert!(error.starts_with(&format!("haproxy is to run on processor {cpu},")), "{error}");
    }

    #[test]
    fn a_mistaken_limit_is_named() {
        for (cpus, memory, blamed) in [
            ("many", "1M", "cpus `many`"),
            ("0", "1M", "cpus `0`"),
            ("-1", "1M", "cpus `-1`"),
            ("1", "1X", "memory `1X`"),
            ("1", "M", "memory `M`"),
        ] {
            let text = format!(
                "services: {{ a: {{ deploy: {{ resources: {{ limits: {{ cpus: '{cpus}', memory: '{memory}' }} }} }} }} }}"
            );
            let error = parse_compose(&text, |_| None).unwrap_err();
            assert!(error.contains("service a") && error.contains(blamed), "{error}");
        }
        assert!(
            parse_compose("services: { a: { deploy: { resources: { limits: { cpus: '1' } } } } }", |_| None)
                .unwrap_err()
                .contains("memory")
        );
    }

    #[test]
    fn the_hierarchy_with_the_controllers_is_chosen() {
        let v1 = "cgroup /c/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\ncgroup /c/memory cgroup rw,memory 0 0\ncgroup2 /c/unified cgroup2 rw 0 0\n";
        let expected =
            Hierarchy::V1 { cpu: "/c/cpu,cpuacct".into(), memory: "/c/memory".into(), accounting: None };
        assert_eq!(find_hierarchy(v1), Some(expected));
        assert_eq!(
            find_hierarchy("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"),
            Some(Hierarchy::V2("/sys/fs/cgroup".into()))
        );
        assert_eq!(find_hierarchy("tmpfs / tmpfs rw 0 0\n"), None);
    }

    #[test]
    fn limits_can_be_others_later_in_either_hierarchy() {
        let root = std::env::temp_dir().join(format!("galo-limits-{}", std::process::id()));
        let folders = ["cpu", "memory", "unified"].map(|name| root.join(name));
        let files = ["cpu.cfs_quota_us", "memory.limit_in_bytes", "cpu.max", "memory.max"];
        let paths: Vec<_> =
            files.iter().zip([0, 1, 2, 2]).map(|(name, folder)| folders[folder].join(name)).collect();
        folders.iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
        paths.iter().for_each(|path| fs::write(path, "").unwrap());
        let read = || paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect::<Vec<_>>();
        let cgroup = Cgroup::at(folders.to_vec());
        cgroup.set_quota(None).unwrap();
        cgroup.set_memory(7).unwrap();
        assert_eq!(read(), ["-1", "7", "max 100000", "7"]);
        cgroup.set_quota(Some(26_000)).unwrap();
        assert_eq!(read(), ["26000", "7", "26000 100000", "7"]);
        fs::remove_dir_all(root).unwrap();
    }
}
