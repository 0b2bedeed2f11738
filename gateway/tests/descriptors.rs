//! Running out of descriptors: the server does not spin, does not stop, and goes on once there are some again.
//!
//! A test binary of its own, because the limit is the process's.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use galo_engine::money::AmountCents;
use galo_engine::time::UnixMillis;
use galo_engine::{CorrelationId, Processor};
use galo_gateway::http::service::{
    Accepted, Endpoint, NotificationAnswer, PaymentView, PurgeError, Service, Summary, Unreachable,
};
use galo_gateway::http::{HttpConfig, Server};
use galo_shell::processors::Names;
use monoio::net::UnixListener;

struct Healthy;

impl Service for Healthy {
    fn names(&self) -> &Names {
        unreachable!("nobody asks for names here")
    }

    fn in_shift(&self, _shift: u64) {}

    async fn accept(&self, _id: CorrelationId, _amount: AmountCents, _members: Option<Arc<str>>) -> Accepted {
        Accepted::Granted
    }

    async fn summarize(
        &self,
        _from: Option<UnixMillis>,
        _to: Option<UnixMillis>,
    ) -> Result<Summary, Unreachable> {
        Err(Unreachable)
    }

    async fn lookup(&self, _id: CorrelationId) -> Result<Option<PaymentView>, Unreachable> {
        Ok(None)
    }

    async fn cancel(&self, _id: CorrelationId) -> Result<Option<PaymentView>, Unreachable> {
        Ok(None)
    }

    fn notifier(&self, _name: &str) -> Option<(Processor, Arc<galo_profile::Processor>)> {
        None
    }

    fn notice(&self, _processor: Processor, _id: CorrelationId) -> Result<(), Unreachable> {
        Err(Unreachable)
    }

    fn count_notification(&self, _end: NotificationAnswer) {}

    async fn purge(&self) -> Result<(), PurgeError> {
        Err(PurgeError::NotAllowed)
    }

    fn ready(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn metrics(&self) -> String {
        String::new()
    }

    fn observe(&self, _endpoint: Endpoint, _status: u16, _elapsed_us: u64) {}
}

async fn serve(listener: StdListener, is_done: Arc<AtomicBool>) {
    let server = Server::new(HttpConfig::default());
    let stopper = Rc::clone(&server);
    monoio::spawn(async move {
        while !is_done.load(Ordering::Relaxed) {
            monoio::time::sleep(Duration::from_millis(10)).await;
        }
        stopper.stop();
    });
    server.serve(UnixListener::from_std(listener).unwrap(), Rc::new(Healthy)).await;
}

/// Microseconds of CPU that this process has used.
fn cpu_us() -> i64 {
    // SAFETY: an all-zero `rusage` is valid, and `getrusage` writes one.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), 0);
        usage
    };
    let micros = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    micros(usage.ru_utime) + micros(usage.ru_stime)
}

fn set_descriptors_max(count: u64) {
    // SAFETY: `getrlimit` writes and `setrlimit` reads a `rlimit` that outlives the call.
    unsafe {
        let mut limit = std::mem::zeroed::<libc::rlimit>();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = count;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
}

/// Whether the server answers this client before its read times out.
fn is_answered(client: &mut StdStream) -> bool {
    let mut answer = [0; 256];
    match client.read(&mut answer) {
        Ok(size) => answer[..size].starts_with(b"HTTP/1.1 200"),
        Err(_) => false,
    }
}

fn starve(name: &str, run: fn(StdListener, Arc<AtomicBool>)) {
    let path = std::env::temp_dir().join(format!("galo-descriptors-{}-{name}.sock", std::process::id()));
    let listener = StdListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let is_done = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&is_done);
    let thread = std::thread::spawn(move || run(listener, done));

    let connect = || {
        let mut client = StdStream::connect(&path).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        client
    };
    let mut first = connect();
    assert!(is_answered(&mut first), "with descriptors to spare");
    // All descriptors are taken but one, which the next client takes: there is none to accept it with.
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    set_descriptors_max(open + 20);
    let mut fillers = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        fillers.push(file);
    }
    fillers.pop().expect("there were some to take");
    let mut last = connect();
    last.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    let before_us = cpu_us();
    assert!(!is_answered(&mut last), "nobody can accept it");
    let used_us = cpu_us() - before_us;
    // Twenty attempts cost a few milliseconds; a loop without a pause costs all that the machine can spare.
    assert!(used_us < 100_000, "it spins: {used_us} us of CPU in 400 ms");

    drop(fillers);
    last.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(is_answered(&mut last), "served as soon as it can be");
    first.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(is_answered(&mut first), "an old connection never noticed");

    is_done.store(true, Ordering::Relaxed);
    drop((first, last));
    thread.join().unwrap();
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn without_descriptors_the_server_waits_and_then_goes_on() {
    starve("epoll", |listener, done| {
        let builder = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new();
        builder.enable_timer().build().unwrap().block_on(serve(listener, done));
    });
    if monoio::utils::detect_uring() {
        starve("io_uring", |listener, done| {
            let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(256);
            builder.enable_timer().build().unwrap().block_on(serve(listener, done));
        });
    }
}
