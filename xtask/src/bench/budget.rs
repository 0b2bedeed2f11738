//! Where a payment's CPU goes: samples of each process's stacks (`perf record -g`), each put into one [`Part`].
//!
//! perf looks at the services' processors every [`INTERVAL_US`]; samples of others than the services are dropped. The obvious way, each task's own
//! clock (`task-clock`), starts and stops a timer at each switch, which a hypervisor makes dear: at 1,000/s a payment then took 260 instead of
//! 170 µs of CPU, and a quarter of that was switching, where it is a twentieth without. A stack is complete in the kernel. Programs are
//! built without frame pointers, so of them only the innermost function's file is believed. The rule:
//!
//! 1. Innermost function outside of the kernel: own code, or library if its file is one (`lib….so`, `ld-….so`, the vdso).
//! 2. Scheduler (`__schedule`) on the stack: the process gives the processor away or has just got it back. The first function of [`SWITCHES`]
//!    outwards says why; one that does not stand there is a wait.
//! 3. Otherwise the first function outwards that [`KNOWN`] has. If that is a wake-up, the next one that is none says
//!    below which send.
//! 4. Nothing known: the rest of the kernel.
//!
//! So a send's part is what it does besides waking; and a loopback delivery, which the kernel does within the send, is the
//! sender's, as the CPU is. A hypervisor's timer fires late where interrupts are off: such time is counted at the function that lets them in again,
//! `_raw_spin_unlock_irqrestore` or `finish_task_switch`, which is why those two decide nothing themselves. Names are those of
//! Linux on x86-64, 5.11 to 6.18; a renamed one falls into the rest, which is in the table. Must never drop a sample of a process that is asked
//! for: rows have to add up.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use galo_bench::budget::Part;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::repo::Fallible;
use crate::{tools, up};

/// From one look to the next. A prime, so that it keeps step neither with the load nor with ticks and shifts.
pub(super) const INTERVAL_US: u64 = 433;

/// Who called the scheduler. A name that ends with `*` is a beginning.
const SWITCHES: [(Part, &[&str]); 2] = [
    (Part::Rest, &["do_nanosleep"]),
    (
        Part::Preemption,
        &[
            "exit_to_user_mode*",
            "irqentry_exit*",
            "raw_irqentry_exit*",
            "preempt_schedule*",
            "__cond_resched",
        ],
    ),
];

/// Functions that decide. The first line that fits counts.
const KNOWN: [(Part, &[&str]); 13] = [
    (
        Part::WakeOther,
        &[
            "sock_def_readable",
            "sock_def_write_space*",
            "sk_stream_write_space",
            "unix_write_space",
            "try_to_wake_up",
            "ttwu_*",
            "wake_up_*",
            "__wake_up*",
            "default_wake_function",
            "autoremove_wake_function",
            "ep_poll_callback",
            "ep_autoremove_wake_function",
            "io_poll_wake",
            "eventfd_*",
        ],
    ),
    (Part::TcpSend, &["tcp_sendmsg*", "inet_sendmsg", "inet6_sendmsg"]),
    (Part::TcpReceive, &["tcp_recvmsg*", "inet_recvmsg", "inet6_recvmsg"]),
    (Part::UnixSend, &["unix_stream_sendmsg"]),
    (Part::UnixReceive, &["unix_stream_recvmsg", "unix_stream_read_generic"]),
    (Part::File, &["vfs_*", "ksys_pwrite64", "__x64_sys_pwrite64", "io_write", "io_fsync", "do_fsync"]),
    (Part::Sleep, &["schedule", "schedule_hrtimeout*", "schedule_timeout"]),
    (Part::Rest, &["do_nanosleep", "hrtimer_nanosleep", "common_nsleep*", "__x64_sys_clock_nanosleep"]),
    (Part::Epoll, &["do_epoll_*", "ep_*", "__x64_sys_epoll_*"]),
    (Part::Ring, &["io_*", "__io_*", "__do_sys_io_uring*", "__x64_sys_io_uring*"]),
    (Part::Clock, &["__x64_sys_clock_gettime", "posix_cpu_clock_get", "timerfd_*"]),
    (
        Part::Interrupt,
        &[
            "asm_sysvec_*",
            "sysvec_*",
            "asm_common_interrupt",
            "common_interrupt",
            "irqentry_*",
            "__irq_exit*",
            "irq_exit*",
            "asm_exc_*",
            "exc_*",
        ],
    ),
    (
        Part::Call,
        &[
            "do_syscall_64",
            "entry_SYSCALL_64*",
            "__x64_sys_*",
            "__sys_*",
            "syscall_*",
            "exit_to_user_mode*",
            "__rseq_*",
        ],
    ),
];

/// A line of a stack.
#[derive(Debug, Eq, PartialEq)]
struct Frame {
    in_kernel: bool,
    function: String,
    file: String,
}

impl Frame {
    /// `address function (file)`; functions may hold spaces.
    fn parse(line: &str) -> Option<Self> {
        let (address, rest) = line.trim().split_once(' ')?;
        let (function, file) = rest.rsplit_once(" (")?;
        Some(Self {
            // The upper half of the addresses is the kernel's.
            in_kernel: address.len() == 16 && address.starts_with("ffff"),
            // Compilers add what they have done to a function: `finish_task_switch.isra.0`.
            function: function.split('.').next().unwrap_or_default().to_owned(),
            file: file.strip_suffix(')')?.to_owned(),
        })
    }

    fn is_of_library(&self) -> bool {
        let name = self.file.rsplit('/').next().unwrap_or_default();
        name.starts_with("lib") || name.starts_with("ld-") || name == "[vdso]"
    }
}

fn find(table: &[(Part, &[&str])], function: &str) -> Option<Part> {
    let fits = |name: &&str| match name.strip_suffix('*') {
        Some(beginning) => function.starts_with(beginning),
        None => function == *name,
    };
    table.iter().find(|(_, names)| names.iter().any(fits)).map(|(part, _)| *part)
}

/// The one part of a sample, whose stack begins with its innermost function.
fn part_of(stack: &[Frame]) -> Part {
    let Some(innermost) = stack.first() else { return Part::Other };
    if !innermost.in_kernel {
        return if innermost.is_of_library() { Part::Library } else { Part::OwnCode };
    }
    let kernel = stack.iter().take_while(|frame| frame.in_kernel).map(|frame| frame.function.as_str());
    if kernel.clone().any(|function| function == "__schedule") {
        return kernel.clone().find_map(|function| find(&SWITCHES, function)).unwrap_or(Part::Sleep);
    }
    let mut known = kernel.filter_map(|function| find(&KNOWN, function));
    match known.next() {
        Some(Part::WakeOther) => match known.find(|part| *part != Part::WakeOther) {
            Some(Part::TcpSend) => Part::WakeByTcp,
            Some(Part::UnixSend) => Part::WakeByUnix,
            _ => Part::WakeOther,
        },
        Some(part) => part,
        None => Part::Other,
    }
}

/// Reads what `perf script -F pid,ip,sym,dso` prints: for each sample its pid, its stack, an empty line.
fn read(output: impl BufRead, mut take: impl FnMut(i32, Part)) -> Fallible<()> {
    let mut pid = None;
    let mut stack = Vec::new();
    // An empty line more, should the last one be missing.
    for line in output.lines().chain([Ok(String::new())]) {
        let line = line.map_err(|error| format!("perf's output: {error}"))?;
        if line.trim().is_empty() {
            if let Some(pid) = pid.take() {
                take(pid, part_of(&stack));
            }
            stack.clear();
        } else if pid.is_none() {
            let number = line.trim().parse::<i32>();
            pid = Some(number.map_err(|_| format!("perf said {line:?} where a pid belongs"))?);
        } else {
            stack.push(
                Frame::parse(&line).ok_or_else(|| format!("perf said {line:?} where a frame belongs"))?,
            );
        }
    }
    Ok(())
}

/// `perf record` with what follows; its complaint if it fails.
fn perf_record(file: &Path, interval_us: u64, arguments: &[&str]) -> Fallible<()> {
    let perf = tools::find("perf").ok_or("there is no `perf` on this machine")?;
    let output = Command::new(perf)
        // `I` leaves idle processors out.
        .args(["record", "-e", "cpu-clock:I", "-c", &(interval_us * 1_000).to_string(), "-g", "-o"])
        .arg(file)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run perf: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
    Err(format!("`perf record` failed: {line}"))
}

/// Reads a file of samples, those of some pids if there are any, and removes it.
fn perf_script(file: &Path, pids: &[String], take: impl FnMut(i32, Part)) -> Fallible<()> {
    let perf = tools::find("perf").ok_or("perf is gone")?;
    let mut command = Command::new(perf);
    command.args(["script", "-F", "pid,ip,sym,dso", "--no-inline", "-i"]).arg(file);
    if !pids.is_empty() {
        command.args(["--pid", &pids.join(",")]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot run perf: {error}"))?;
    let output = child.stdout.take().ok_or("perf has no output")?;
    let result = read(BufReader::new(output), take);
    let status = child.wait().map_err(|error| format!("perf: {error}"))?;
    fs::remove_file(file).map_err(|error| format!("cannot remove {}: {error}", file.display()))?;
    result?;
    if status.success() { Ok(()) } else { Err(format!("`perf script` ended with {status}")) }
}

/// Why no samples can be taken here, if they cannot: tried, since who may see the kernel's stacks and names depends on much.
pub(super) fn obstacle(file: &Path) -> Option<String> {
    let mut in_kernel_count = 0_u64;
    let tried = perf_record(file, 20, &["-a", "true"]).and_then(|()| {
        perf_script(file, &[], |_, part| {
            if !matches!(part, Part::OwnCode | Part::Library | Part::Other) {
                in_kernel_count += 1;
            }
        })
    });
    match tried {
        Ok(()) if in_kernel_count > 0 => None,
        Ok(()) => Some("perf does not show the kernel's stacks here".to_owned()),
        Err(error) => Some(error),
    }
}

fn limited(processes: &[up::Process]) -> BTreeMap<i32, &str> {
    let limited = processes.iter().filter(|process| !process.name.starts_with("processor"));
    limited.filter_map(|process| Some((process.identity.as_ref()?.pid, process.name.as_str()))).collect()
}

/// The processors that they may run on, as perf wants them.
fn processors(pids: impl Iterator<Item = i32>) -> String {
    let sets: Vec<CpuSet> = pids.filter_map(|pid| sched_getaffinity(Pid::from_raw(pid)).ok()).collect();
    let any = |cpu: &usize| sets.iter().any(|set| set.is_set(*cpu) == Ok(true));
    let numbers: Vec<String> = (0..CpuSet::count()).filter(any).map(|cpu| cpu.to_string()).collect();
    numbers.join(",")
}

/// Takes samples of all limited processes, and of whoever else runs where they do, into a file.
pub(super) fn record(processes: &[up::Process], seconds: u32, file: &Path) -> Fallible<()> {
    let processors = processors(limited(processes).into_keys());
    perf_record(file, INTERVAL_US, &["-C", &processors, "--", "sleep", &seconds.to_string()])
}

/// Counts the file's samples, by process and part.
pub(super) fn samples(
    processes: &[up::Process],
    file: &Path,
) -> Fallible<BTreeMap<String, BTreeMap<Part, u64>>> {
    let names = limited(processes);
    let pids: Vec<String> = names.keys().map(i32::to_string).collect();
    let mut found: BTreeMap<String, BTreeMap<Part, u64>> = BTreeMap::new();
    perf_script(file, &pids, |pid, part| {
        if let Some(name) = names.get(&pid) {
            *found.entry((*name).to_owned()).or_default().entry(part).or_default() += 1;
        }
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of one stack, innermost first: the kernel's functions by name, others as `function @ file`.
    fn part(frames: &str) -> Part {
        let lines = frames.lines().map(str::trim).filter(|line| !line.is_empty());
        let lines = lines.flat_map(|line| line.split(" < ")).map(|frame| match frame.split_once(" @ ") {
            None => format!("\tffffffff81f39ae7 {frame} ([kernel.kallsyms])\n"),
            Some((function, file)) => format!("\t           5a42f {function} ({file})\n"),
        });
        let text = format!("  4711 \n{}\n", lines.collect::<String>());
        let mut found = Vec::new();
        read(text.as_bytes(), |pid, part| found.push((pid, part))).expect("what perf prints");
        assert_eq!(found.len(), 1, "{text}");
        assert_eq!(found[0].0, 4711);
        found[0].1
    }

    const EXIT: &str = "do_syscall_64 < entry_SYSCALL_64_after_hwframe < syscall @ /usr/lib/libc.so.6";
    const LOOPBACK: &str = "tcp_rcv_established < tcp_v4_do_rcv < tcp_v4_rcv < ip_local_deliver_finish < process_backlog < \
                            net_rx_action < handle_softirqs < do_softirq.part.0 < __local_bh_enable_ip < __dev_queue_xmit < \
                            ip_finish_output2 < __ip_queue_xmit < __tcp_transmit_skb < tcp_write_xmit < tcp_sendmsg_locked < tcp_sendmsg";

    #[test]
    fn outside_of_the_kernel_the_file_decides() {
        let galo = "<tokio::runtime::Readiness as core::future::Future>::poll @ /srv/galo-aggregator";
        assert_eq!(part(galo), Part::OwnCode);
        assert_eq!(part("main @ /srv/lib/haproxy"), Part::OwnCode);
        assert_eq!(part("__memmove_avx @ /usr/lib/x86_64-linux-gnu/libc.so.6"), Part::Library);
        assert_eq!(part("_dl_fixup @ /usr/lib/ld-linux-x86-64.so.2"), Part::Library);
        assert_eq!(part("__vdso_clock_gettime @ [vdso]"), Part::Library);
        // What the program was in the middle of is not what it does.
        assert_eq!(part("send @ /usr/lib/libc.so.6 < main @ /srv/galo-gateway"), Part::Library);
    }

    #[test]
    fn a_switch_is_a_sleep_a_rest_or_making_way_by_its_caller() {
        let switch = |caller: &str| {
            part(&format!("finish_task_switch.isra.0 < __schedule < schedule < {caller} < {EXIT}"))
        };
        assert_eq!(switch("schedule_hrtimeout_range_clock < do_epoll_wait"), Part::Sleep);
        assert_eq!(switch("io_cqring_wait < __do_sys_io_uring_enter"), Part::Sleep);
        assert_eq!(switch("do_nanosleep < hrtimer_nanosleep < __x64_sys_clock_nanosleep"), Part::Rest);
        assert_eq!(switch("exit_to_user_mode_loop"), Part::Preemption);
        assert_eq!(
            part(
                "finish_task_switch < __schedule < schedule < irqentry_exit_to_user_mode < asm_sysvec_apic_timer_interrupt"
            ),
            Part::Preemption
        );
        // Given away in the middle of a send: still no send.
        assert_eq!(
            switch(
                "preempt_schedule_common < __cond_resched < tcp_sendmsg_locked < tcp_sendmsg < __sys_sendto"
            ),
            Part::Preemption
        );
        // Setting the timer of a sleep belongs to it.
        assert_eq!(
            part(&format!(
                "_raw_spin_unlock_irqrestore < schedule_hrtimeout_range_clock < do_epoll_wait < {EXIT}"
            )),
            Part::Sleep
        );
    }

    #[test]
    fn a_wake_up_is_told_from_the_send_above_it() {
        let unlock = "_raw_spin_unlock_irqrestore < sock_def_readable";
        assert_eq!(part(&format!("{unlock} < {LOOPBACK} < __sys_sendto < {EXIT}")), Part::WakeByTcp);
        assert_eq!(part(&format!("{LOOPBACK} < __sys_sendto < {EXIT}")), Part::TcpSend);
        let uring = format!("io_send < io_issue_sqe < io_submit_sqes < __do_sys_io_uring_enter < {EXIT}");
        assert_eq!(
            part(&format!("{unlock} < unix_stream_sendmsg < sock_sendmsg < {uring}")),
            Part::WakeByUnix
        );
        assert_eq!(
            part(&format!(
                "try_to_wake_up < ep_poll_callback < __wake_up_common < {unlock} < {LOOPBACK} < {uring}"
            )),
            Part::WakeByTcp
        );
        assert_eq!(
            part(&format!(
                "_copy_from_iter < skb_copy_datagram_from_iter < unix_stream_sendmsg < sock_sendmsg < {uring}"
            )),
            Part::UnixSend
        );
        assert_eq!(
            part(&format!(
                "_raw_spin_unlock_irqrestore < unix_write_space < sock_wfree < unix_stream_read_generic < {uring}"
            )),
            Part::WakeOther
        );
    }

    #[test]
    fn whatever_else_the_kernel_does_is_named_by_its_innermost_known_function() {
        let cases = [
            ("tcp_recvmsg_locked < tcp_recvmsg < sock_recvmsg < io_recv < io_submit_sqes", Part::TcpReceive),
            ("mutex_lock < unix_stream_read_generic < unix_stream_recvmsg < io_recv", Part::UnixReceive),
            ("xas_load < ext4_da_write_begin < vfs_write < __x64_sys_pwrite64", Part::File),
            ("tcp_poll < sock_poll < ep_item_poll.isra.0 < ep_send_events < do_epoll_wait", Part::Epoll),
            ("unix_poll < sock_poll < __io_arm_poll_handler < io_submit_sqes", Part::Ring),
            ("sock_sendmsg < io_send < io_submit_sqes", Part::Ring),
            ("task_sched_runtime < posix_cpu_clock_get < __x64_sys_clock_gettime", Part::Clock),
            ("fdget < __sys_recvfrom < __x64_sys_recvfrom", Part::Call),
            ("__get_user_8 < __rseq_handle_notify_resume < exit_to_user_mode_loop", Part::Call),
            ("clear_page < exc_page_fault < asm_exc_page_fault < tcp_sendmsg_locked", Part::Interrupt),
        ];
        for (frames, expected) in cases {
            assert_eq!(part(&format!("{frames} < {EXIT}")), expected, "{frames}");
        }
        assert_eq!(
            part("tcp_delack_timer < handle_softirqs < __irq_exit_rcu < sysvec_apic_timer_interrupt"),
            Part::Interrupt
        );
        assert_eq!(part("__x86_indirect_thunk_rax"), Part::Other);
    }

    #[test]
    fn every_sample_is_counted_and_nonsense_is_an_error() {
        let text = "  1 \n\tffffffff81f39ae7 do_syscall_64 ([kernel.kallsyms])\n\n  2 \n\n  1 \n\t  5a42f [unknown] (/srv/galo)";
        let mut found = Vec::new();
        read(text.as_bytes(), |pid, part| found.push((pid, part))).expect("what perf prints");
        assert_eq!(found, [(1, Part::Call), (2, Part::Other), (1, Part::OwnCode)]);
        for nonsense in ["haproxy 7 \n", " 1 \n\tffffffff81f39ae7\n"] {
            assert!(read(nonsense.as_bytes(), |_, _| ()).is_err(), "{nonsense:?}");
        }
    }
}
