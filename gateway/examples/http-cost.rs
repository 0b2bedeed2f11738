//! What the HTTP front costs: requests per second and CPU per request, over a unix socket with keep-alive.
//!
//! `cargo run --release -p galo-gateway --example http-cost [seconds] [connections] [epoll|io_uring]`
//!
//! The server runs alone in its thread, whose CPU time is read from its own clock; blocking clients in other threads
//! send the payment that HAProxy would forward. The service answers at once, so this is the front and nothing else. A
//! ratio to compare with comes from the same run: a bare loop in the place of the server that reads and writes the
//! same 44 bytes, on the same driver.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use galo_engine::money::AmountCents;
use galo_engine::time::UnixMillis;
use galo_engine::{CorrelationId, Processor};
use galo_gateway::http::service::{
    Accepted, Endpoint, NotificationAnswer, PaymentView, PurgeError, Service, Summary, Unreachable,
};
use galo_gateway::http::{HttpConfig, Server};
use galo_shell::processors::Names;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::UnixListener;

const ANSWER: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";

struct Granting;

impl Service for Granting {
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
        Ok(Summary::default())
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
        Ok(())
    }

    fn ready(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn metrics(&self) -> String {
        String::new()
    }

    fn observe(&self, _endpoint: Endpoint, _status: u16, _elapsed_us: u64) {}
}

/// Nanoseconds of CPU that this thread has used.
fn thread_cpu_ns() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `clock_gettime` writes one `timespec`, which outlives the call.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(status, 0, "every thread has a CPU clock");
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// The least that a server on this driver can do.
async fn answer_blindly(listener: UnixListener, done: Arc<AtomicBool>) {
    monoio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            monoio::spawn(async move {
                let mut buffer = vec![0; 4096];
                loop {
                    let (size, returned) = stream.read(buffer).await;
                    buffer = returned;
                    if !matches!(size, Ok(1..)) || stream.write_all(ANSWER).await.0.is_err() {
                        break;
                    }
                }
            });
        }
    });
    while !done.load(Ordering::Relaxed) {
        monoio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn serve(listener: UnixListener, done: Arc<AtomicBool>) {
    let server = Server::new(HttpConfig::default());
    let stopper = Rc::clone(&server);
    monoio::spawn(async move {
        while !done.load(Ordering::Relaxed) {
            monoio::time::sleep(Duration::from_millis(10)).await;
        }
        stopper.stop();
    });
    server.serve(listener, Rc::new(Granting)).await;
}

fn measure(name: &str, driver: &'static str, seconds: u64, connections: usize, is_front: bool) -> f64 {
    let path = std::env::temp_dir().join(format!("galo-http-cost-{}.sock", std::process::id()));
    drop(std::fs::remove_file(&path));
    let listener = StdListener::bind(&path).expect("the temporary directory takes a socket");
    listener.set_nonblocking(true).expect("a socket can be made non-blocking");
    // The clients stop first: a stopping server says so in its last answers.
    let (done, server_done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let server_ends = Arc::clone(&server_done);
    let server = std::thread::spawn(move || {
        let run = async {
            let listener = UnixListener::from_std(listener).expect("a listener can be registered");
            if is_front {
                serve(listener, server_done).await
            } else {
                answer_blindly(listener, server_done).await
            }
        };
        if driver == "epoll" {
            let builder = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new();
            builder.enable_timer().build().expect("epoll").block_on(run);
        } else {
            let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(256);
            builder.enable_timer().build().expect("io_uring").block_on(run);
        }
        thread_cpu_ns()
    });
    let body = r#"{"correlationId":"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3","amount":19.90}"#;
    let request = format!(
        "POST /payments HTTP/1.1\r\nhost: localhost:9999\r\nuser-agent: k6/1.1.0\r\ncontent-length: {}\r\ncontent-type: application/json\r\n\r\n{body}",
        body.len()
    );
    let count = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    // Two threads write to all of their connections before they read from any: the server finds them in batches.
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (path, request, done, count) =
                (path.clone(), request.clone(), Arc::clone(&done), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut streams: Vec<_> = (0..connections.div_ceil(2))
                    .map(|_| StdStream::connect(&path).expect("the server listens"))
                    .collect();
                let mut answer = [0; ANSWER.len()];
                while !done.load(Ordering::Relaxed) {
                    for stream in &mut streams {
                        stream.write_all(request.as_bytes()).expect("the server reads");
                    }
                    for stream in &mut streams {
                        stream.read_exact(&mut answer).expect("the server answers");
                        assert_eq!(answer, ANSWER);
                    }
                    count.fetch_add(streams.len() as u64, Ordering::Relaxed);
                }
            })
        })
        .collect();
    std::thread::sleep(Duration::from_secs(seconds));
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("a client that ends well");
    }
    let elapsed = started.elapsed();
    server_ends.store(true, Ordering::Relaxed);
    let cpu_ns = server.join().expect("a server that ends well");
    drop(std::fs::remove_file(&path));
    let requests = count.load(Ordering::Relaxed);
    #[allow(clippy::cast_precision_loss, clippy::float_arithmetic, reason = "a figure for people")]
    let (rate, cost_us) =
        (requests as f64 / elapsed.as_secs_f64(), cpu_ns as f64 / 1_000.0 / requests as f64);
    println!(
        "{name:>5} {driver:>8}: {rate:>9.0} requests/s, {cost_us:.2} us CPU of the server's thread a request"
    );
    cost_us
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| {
        arguments.get(at).map_or(default, |text| text.parse().expect("seconds and connections are numbers"))
    };
    let (seconds, connections) =
        (number(0, 3), usize::try_from(number(1, 64)).expect("a number of connections"));
    let drivers = match arguments.get(2).map(String::as_str) {
        Some("epoll") => vec!["epoll"],
        Some("io_uring") => vec!["io_uring"],
        _ => vec!["epoll", "io_uring"],
    };
    for driver in drivers {
        let bare = measure("bare", driver, seconds, connections, false);
        let front = measure("front", driver, seconds, connections, true);
        #[allow(clippy::float_arithmetic, reason = "a figure for people")]
        let (more, ratio) = (front - bare, front / bare);
        println!("      {driver:>8}: the front adds {more:.2} us a request, {ratio:.2} times the bare loop");
    }
}
