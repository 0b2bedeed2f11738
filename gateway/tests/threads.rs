//! A gateway has all of its threads, or it is not there.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const THREAD_COUNT: usize = 32;

/// A process whose threads have not changed for this long has those threads. A start takes a few milliseconds.
const SETTLED: Duration = Duration::from_millis(500);

/// How a start ended.
#[derive(Debug)]
enum Start {
    Whole,
    Refused(ExitStatus),
    /// It lives, with fewer threads than it should have.
    Lame(usize),
}

/// Looks until the process has ended, or has stood as it is for a while.
fn watch(gateway: &mut Child) -> Start {
    let tasks = format!("/proc/{}/task", gateway.id());
    let (mut count, mut since) = (0, Instant::now());
    while since.elapsed() < SETTLED {
        if let Some(status) = gateway.try_wait().unwrap() {
            return Start::Refused(status);
        }
        let names = std::fs::read_dir(&tasks).into_iter().flatten().flatten();
        let serving = names
            .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
            .filter(|name| name.starts_with("gateway-") || name.starts_with("galo-gateway"))
            .count();
        if serving != count {
            (count, since) = (serving, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    if count == THREAD_COUNT { Start::Whole } else { Start::Lame(count) }
}

/// Each has a listener of its own, so that HAProxy can give each its turn; a stop removes them all.
#[test]
fn each_thread_answers_on_its_own_socket() {
    let folder = std::env::temp_dir().join(format!("galo-listeners-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_galo-gateway"))
        .env("GATEWAY_THREADS", "3")
        .env("GATEWAY_SOCKET", folder.join("gateway.sock"))
        .env("AGGREGATOR_SOCKET", folder.join("aggregator.sock"))
        .env("PROCESSOR_DEFAULT_URL", "http://127.0.0.1:1")
        .env("PROCESSOR_FALLBACK_URL", "http://127.0.0.1:1")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for name in ["gateway.sock", "gateway.2.sock", "gateway.3.sock"] {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut connection = loop {
            match UnixStream::connect(folder.join(name)) {
                Ok(connection) => break connection,
                Err(error) => assert!(Instant::now() < deadline, "{name}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        connection.write_all(b"GET /health HTTP/1.1\r\nHost: galo\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{name}: {answer}");
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(gateway.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(gateway.wait().unwrap().success());
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    std::fs::remove_dir_all(folder).unwrap();
}

/// With too few descriptors for all of its rings, whichever thread is the one that cannot begin.
#[test]
fn a_thread_that_cannot_begin_ends_the_process() {
    let folder = std::env::temp_dir().join(format!("galo-threads-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let start = |open_files_max: usize| {
        let socket = |name: &str| Path::new(&folder).join(name);
        let mut gateway = Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -n {open_files_max}; exec \"$0\""))
            .arg(env!("CARGO_BIN_EXE_galo-gateway"))
            .env("GATEWAY_THREADS", THREAD_COUNT.to_string())
            .env("GATEWAY_SOCKET", socket("gateway.sock"))
            .env("AGGREGATOR_SOCKET", socket("aggregator.sock"))
            .env("PROCESSOR_DEFAULT_URL", "http://127.0.0.1:1")
            .env("PROCESSOR_FALLBACK_URL", "http://127.0.0.1:1")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = watch(&mut gateway);
        gateway.kill().unwrap();
        gateway.wait().unwrap();
        start
    };
    let (mut refused, mut whole) = (0, 0);
    for open_files_max in (132..=332).step_by(5) {
        match start(open_files_max) {
            Start::Whole => whole += 1,
            Start::Refused(status) => {
                assert_eq!(status.code(), Some(71), "with {open_files_max} descriptors");
                refused += 1;
            }
            Start::Lame(count) => panic!("{count} threads serve with {open_files_max} descriptors"),
        }
    }
    assert!(refused > 0 && whole > 0, "{refused} refused, {whole} whole: the limits tried miss the point");
    std::fs::remove_dir_all(folder).unwrap();
}
