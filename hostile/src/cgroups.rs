//! A process's limits of CPU and memory, put on it by a cgroup (v1 or v2), and what it has used of them.
//!
//! What a container engine does with the compose file's limits, and no more: a quota over periods of 100 ms, and a bound on memory beyond
//! which the kernel kills. The group's memory includes page cache, which the kernel takes back before it kills anybody: a process that
//! writes much comes to its limit and stays there. So what is judged is the kill, and the process's own peak (`VmHWM`).
//!
//! Must never touch a cgroup that it did not create. Needs root.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

/// Docker's period for `cpus`.
const PERIOD_US: u64 = 100_000;

/// What a process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Of CPU in each period of 100 ms.
    pub(crate) quota_us: u64,
    pub(crate) memory_bytes: u64,
}

/// `aggregator=26000:157286400`: a process's name, its quota and its memory.
pub(crate) fn parse(text: &str) -> Result<(String, Limit), String> {
    let (name, rest) = text.split_once('=').ok_or("no `=`")?;
    let (quota_us, memory_bytes) = rest.split_once(':').ok_or("no `:`")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("`{text}`: {error}"));
    Ok((name.to_owned(), Limit { quota_us: number(quota_us)?, memory_bytes: number(memory_bytes)? }))
}

/// A cgroup of our own.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    /// One for each controller under v1, a single one under v2.
    folders: Vec<PathBuf>,
}

impl Cgroup {
    /// Why there can be none here, if there can be none.
    pub(crate) fn unavailable() -> Option<String> {
        if !nix::unistd::geteuid().is_root() {
            return Some("cgroups need root".to_owned());
        }
        roots().err()
    }

    pub(crate) fn create(group: &str, name: &str, limit: Limit) -> Result<Self, String> {
        let roots = roots()?;
        let folders: Vec<PathBuf> = roots.iter().map(|root| root.join(group).join(name)).collect();
        for (root, folder) in roots.iter().zip(&folders) {
            fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            for parent in [root, &root.join(group)] {
                let control = parent.join("cgroup.subtree_control");
                if control.exists() {
                    put(&control, "+cpu +memory")?;
                }
            }
        }
        let cgroup = Self { folders };
        let Limit { quota_us, memory_bytes } = limit;
        cgroup.set("cpu.cfs_period_us", &PERIOD_US.to_string())?;
        cgroup.set("cpu.cfs_quota_us", &quota_us.to_string())?;
        cgroup.set("cpu.max", &format!("{quota_us} {PERIOD_US}"))?;
        cgroup.set("memory.limit_in_bytes", &memory_bytes.to_string())?;
        cgroup.set("memory.memsw.limit_in_bytes", &memory_bytes.to_string())?;
        cgroup.set("memory.max", &memory_bytes.to_string())?;
        cgroup.set("memory.swap.max", "0")?;
        Ok(cgroup)
    }

    /// Writes to whichever of the folders has such a file.
    fn set(&self, file: &str, value: &str) -> Result<(), String> {
        let paths = self.folders.iter().map(|folder| folder.join(file)).filter(|path| path.exists());
        paths.into_iter().try_for_each(|path| put(&path, value))
    }

    /// The files into which a new process writes `0` to become a member.
    pub(crate) fn doors(&self) -> Result<Vec<File>, String> {
        let open = |folder: &PathBuf| {
            let path = folder.join("cgroup.procs");
            let file = OpenOptions::new().write(true).open(&path);
            file.map_err(|error| format!("{}: {error}", path.display()))
        };
        self.folders.iter().map(open).collect()
    }

    /// Another quota of CPU; `None` for none at all.
    pub(crate) fn set_quota(&self, quota_us: Option<u64>) -> Result<(), String> {
        self.set("cpu.cfs_quota_us", &quota_us.map_or("-1".to_owned(), |quota| quota.to_string()))?;
        let quota = quota_us.map_or("max".to_owned(), |quota| quota.to_string());
        self.set("cpu.max", &format!("{quota} {PERIOD_US}"))
    }

    /// The most memory that it has had at once, page cache included.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.number(&["memory.max_usage_in_bytes", "memory.peak"])
    }

    /// How often the kernel has killed a member for want of memory.
    pub(crate) fn kills(&self) -> u64 {
        let texts = ["memory.oom_control", "memory.events"].iter().filter_map(|file| self.read(file));
        let count =
            |text: String| text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        texts.filter_map(count).next().unwrap_or_default()
    }

    fn read(&self, file: &str) -> Option<String> {
        self.folders.iter().find_map(|folder| fs::read_to_string(folder.join(file)).ok())
    }

    fn number(&self, files: &[&str]) -> u64 {
        let text = files.iter().find_map(|file| self.read(file)).unwrap_or_default();
        text.trim().parse().unwrap_or_default()
    }

    /// Once its members have ended.
    pub(crate) fn remove(&self) {
        for folder in &self.folders {
            if fs::remove_dir(folder).is_ok()
                && let Some(group) = folder.parent()
            {
                // The last one takes the group's folder with it.
                fs::remove_dir(group).unwrap_or_default();
            }
        }
    }
}

fn put(path: &Path, value: &str) -> Result<(), String> {
    fs::write(path, value).map_err(|error| format!("cannot write {value} to {}: {error}", path.display()))
}

/// Where the controllers of CPU and memory are mounted.
fn roots() -> Result<Vec<PathBuf>, String> {
    let mounts = fs::read_to_string("/proc/mounts").map_err(|error| format!("/proc/mounts: {error}"))?;
    find_roots(&mounts).ok_or_else(|| "no cgroups with controllers of CPU and memory are mounted".to_owned())
}

fn find_roots(mounts: &str) -> Option<Vec<PathBuf>> {
    let (mut v1, mut v2) = (Vec::new(), None);
    for line in mounts.lines() {
        let [_, target, kind, options, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            continue;
        };
        let has = |controllers: &[&str]| options.split(',').any(|option| controllers.contains(&option));
        match kind {
            "cgroup2" => v2 = Some(vec![PathBuf::from(target)]),
            "cgroup" if has(&["cpu", "memory"]) => v1.push(PathBuf::from(target)),
            _ => {}
        }
    }
    if v1.is_empty() { v2 } else { Some(v1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_name_a_quota_and_a_size() {
        let limit = Limit { quota_us: 26_000, memory_bytes: 157_286_400 };
        assert_eq!(parse("aggregator=26000:157286400"), Ok(("aggregator".to_owned(), limit)));
        for text in ["aggregator", "aggregator=1", "aggregator=x:1", "aggregator=1:-1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_controllers_are_found_under_either_version() {
        let v1 = "cgroup /c/cpu cgroup rw,cpu 0 0\ncgroup /c/cpuset cgroup rw,cpuset 0 0\n\
                  cgroup /c/memory cgroup rw,memory 0 0\ncgroup2 /c/unified cgroup2 rw 0 0\n";
        assert_eq!(find_roots(v1), Some(vec![PathBuf::from("/c/cpu"), PathBuf::from("/c/memory")]));
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(find_roots(v2), Some(vec![PathBuf::from("/sys/fs/cgroup")]));
        assert_eq!(find_roots("proc /proc proc rw 0 0\n"), None);
    }
}
