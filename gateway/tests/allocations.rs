//! What a payment costs the gateway in allocations once it is warm: none.
//!
//! The real process, built with a counting allocator (as every build with debug assertions is), which shows its count among its
//! metrics; around it an aggregator that grants everything, a processor that answers at once, and a client. Reading the
//! metrics allocates too, always the same; that is read off first.

#![cfg(debug_assertions)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use galo_wire::record::{Acknowledgement, Admission, Grant, Hello, Role};
use galo_wire::{FrameWriter, Message, PROTOCOL_VERSION, decode_frames};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of the test's own and the gateway that lives in it; both end with it.
struct Place {
    folder: PathBuf,
    gateway: Option<Child>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(gateway) = &mut self.gateway {
            gateway.kill().unwrap();
            gateway.wait().unwrap();
        }
        if !std::thread::panicking() {
            std::fs::remove_dir_all(&self.folder).unwrap();
        }
    }
}

/// Grants every accept and acknowledges every completion, which it counts.
fn aggregator(listener: &UnixListener, completed: &AtomicU64) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut frames = FrameWriter::default();
    let mut received = Vec::new();
    let mut bytes = vec![0; 65_536];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(count) => received.extend_from_slice(&bytes[..count]),
        }
        let mut completions = 0;
        let used = decode_frames(&received, |message| match message {
            Message::Hello(_) => frames.push(Hello {
                protocol_version: PROTOCOL_VERSION,
                role: Role::Aggregator,
                instance: 0,
                thread: 0,
                processors: 0,
                incarnation: 1,
            }),
            Message::Accept(accept) => frames.push(Grant {
                slot: accept.slot,
                correlation_id: accept.correlation_id,
                admission: Admission::Granted,
            }),
            Message::Completion(completion) => {
                completions += 1;
                frames.push(Acknowledgement { sequence: completion.sequence });
            }
            _ => {}
        })
        .unwrap();
        received.drain(..used);
        if !frames.is_empty() && stream.write_all(&frames.take(Vec::new())).is_err() {
            return;
        }
        completed.fetch_add(completions, Ordering::Release);
    }
}

/// Says 200 to each request, as the real ones do: chunked.
fn processor(listener: &TcpListener) {
    while let Ok((mut stream, _)) = listener.accept() {
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            // A request is one write of less than a segment.
            while matches!(stream.read(&mut bytes), Ok(1..)) {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
                if stream.write_all(answer).is_err() {
                    return;
                }
            }
        });
    }
}

fn connect(socket: &Path) -> UnixStream {
    let begin = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return stream,
            Err(error) => assert!(begin.elapsed() < PATIENCE, "{}: {error}", socket.display()),
        }
        std::thread::yield_now();
    }
}

/// One request, as HAProxy passes it on, and its 202.
fn pay(stream: &mut UnixStream, number: u64) {
    let body = format!(r#"{{"correlationId":"4a7901b8-7d26-4d9d-aa19-{number:012}","amount":19.90}}"#);
    let head = "POST /payments HTTP/1.1\r\nhost: localhost:9999\r\nuser-agent: k6/1.1.0\r\ncontent-type: application/json\r\n";
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut bytes = [0; 1_024];
    let mut size = 0;
    while !bytes[..size].ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut bytes[size..]).unwrap();
        assert!(count > 0, "the gateway hung up");
        size += count;
    }
    assert!(bytes.starts_with(b"HTTP/1.1 202"), "{}", String::from_utf8_lossy(&bytes[..size]));
}

/// A page of the gateway's own, with its status.
fn get(socket: &Path, path: &str) -> String {
    let mut stream = connect(socket);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: galo\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

fn allocations(socket: &Path) -> u64 {
    let page = get(socket, "/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix("galo_allocations_total{gateway=\"1\"} "));
    line.unwrap_or_else(|| panic!("no count in {page}")).parse().unwrap()
}

/// Waits for what another thread or process does.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::yield_now();
    }
}

#[test]
fn a_payment_allocates_nothing() {
    let folder = std::env::temp_dir().join(format!("galo-gateway-allocations-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut place = Place { folder: folder.clone(), gateway: None };
    let socket = folder.join("gateway.sock");
    let ledger = UnixListener::bind(folder.join("aggregator.sock")).unwrap();
    let bank = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", bank.local_addr().unwrap());
    let completed = Arc::new(AtomicU64::new(0));
    std::thread::spawn({
        let completed = Arc::clone(&completed);
        move || aggregator(&ledger, &completed)
    });
    std::thread::spawn(move || processor(&bank));
    let gateway = Command::new(env!("CARGO_BIN_EXE_galo-gateway"))
        .env_clear()
        .env("GATEWAY_SOCKET", &socket)
        .env("AGGREGATOR_SOCKET", folder.join("aggregator.sock"))
        .env("PROCESSOR_DEFAULT_URL", &url)
        .env("PROCESSOR_FALLBACK_URL", &url)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    place.gateway = Some(gateway);
    until("readiness", || get(&socket, "/ready").starts_with("HTTP/1.1 200"));

    let mut client = connect(&socket);
    let mut number = 0;
    let mut pay_many = |count: u64| {
        for _ in 0..count {
            pay(&mut client, number);
            number += 1;
            // To its end, so that none of it falls into another's account.
            until("a completion", || completed.load(Ordering::Acquire) == number);
        }
    };
    pay_many(500);
    allocations(&socket);
    let (first, second) = (allocations(&socket), allocations(&socket));
    pay_many(1_000);
    let of_payments = (allocations(&socket) - second) - (second - first);
    println!("{of_payments} allocations for 1,000 payments");
    // Some that have nothing to do with payments, such as the clock's ticks; one per payment would be a thousand.
    assert!(of_payments < 100, "{of_payments}");
}
