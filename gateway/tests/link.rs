//! The link to an aggregator that misbehaves, against a model of one on a real socket.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::time::Duration;

use galo_engine::money::AmountCents;
use galo_engine::{CorrelationId, Stage};
use galo_gateway::config::{Config, DriverChoice};
use galo_gateway::core::{Core, Front};
use galo_gateway::driver::{self, Driver, RingFlags};
use galo_gateway::http::Service;
use galo_gateway::http::service::Accepted;
use galo_gateway::link;
use galo_gateway::metrics::{Board, BoardSeed, Identity};
use galo_gateway::reload::Reloads;
use galo_shell::clock::Clock;
use galo_shell::env::Env;
use galo_shell::processors::Names;
use galo_wire::record::{Accept, Admission, Flush, Grant, Hello, Intent, IntentRecorded, Role};
use galo_wire::{FrameWriter, Message, PROTOCOL_VERSION, decode_frames};

fn hello(role: Role, instance: u8) -> Hello {
    Hello { protocol_version: PROTOCOL_VERSION, role, instance, thread: 0, processors: 0, incarnation: 1 }
}

fn frames(messages: &[Message]) -> Vec<u8> {
    let mut writer = FrameWriter::default();
    messages.iter().for_each(|message| writer.push(*message));
    writer.take(Vec::new())
}

/// Reads what there is, and answers each accept with a grant, until the peer has gone.
fn grant_all(mut stream: UnixStream) {
    stream.write_all(&frames(&[hello(Role::Aggregator, 0).into()])).unwrap();
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(more @ 1..) = stream.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..more]);
        let mut grants = Vec::new();
        let used = decode_frames(&bytes, |message| {
            if let Message::Accept(accept) = message {
                let (slot, correlation_id) = (accept.slot, accept.correlation_id);
                grants.push(Grant { slot, correlation_id, admission: Admission::Granted }.into());
            }
        });
        bytes.drain(..used.unwrap());
        if stream.write_all(&frames(&grants)).is_err() {
            return;
        }
    }
}

/// Nobody listens at the processors: what becomes of the payments is not the question.
const NOBODY: &str = "http://127.0.0.1:1";

fn configured(default_url: &'static str) -> (Config, BoardSeed) {
    let list = [
        ("PROCESSOR_DEFAULT_URL", default_url),
        ("PROCESSOR_FALLBACK_URL", NOBODY),
        ("ACCEPT_WAIT_MS_MAX", "200"),
    ];
    let env = Env::of_list(Box::leak(Box::new(list)));
    let names = Arc::new(Names::pair());
    let identity = Identity { instance: 1, driver: "test", start_us: 0, names };
    (Config::read(&env, 1).unwrap(), Board::for_threads(identity, 1).into_iter().next().unwrap())
}

/// Needs a running runtime.
fn start(config: &Config, board: BoardSeed, path: &Path) -> Front {
    let core = Core::start(config, config.resolve().unwrap(), Clock, board.plant()).unwrap();
    monoio::spawn(Rc::clone(&core).keep_time());
    let (link_core, socket) = (Rc::clone(&core), path.to_owned());
    monoio::spawn(async move { link::maintain(link_core, &socket, hello(Role::Gateway, 1)).await });
    Front(core)
}

/// An aggregator that breaks off right behind its hello leaves no writer behind that would take the next link's frames.
#[test]
fn a_link_that_breaks_at_once_takes_nothing_from_the_next_one() {
    let path = std::env::temp_dir().join(format!("galo-link-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    // Ends with the process: the gateway's socket may outlive its runtime.
    std::thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        let mut broken = frames(&[hello(Role::Aggregator, 0).into()]);
        broken.extend([0xff; 8]);
        first.write_all(&broken).unwrap();
        grant_all(listener.accept().unwrap().0);
    });
    let (config, board) = configured(NOBODY);
    driver::run(Driver::Epoll, async {
        let front = start(&config, board, &path);
        for number in 1..=5 {
            let accepted =
                front.accept(CorrelationId([number; 16]), AmountCents::new(1990).unwrap(), None).await;
            assert_eq!(accepted, Accepted::Granted, "payment {number}");
        }
    })
    .unwrap();
    std::fs::remove_file(path).unwrap();
}

/// What waits for an aggregator that says hello and then reads nothing is bounded: the link is cut, and the next one serves. On
/// either driver, since a write waits differently on each.
#[test]
fn an_aggregator_that_does_not_read_is_let_go() {
    let drivers = [Driver::Epoll, Driver::Uring(RingFlags::Plain)];
    for (number, driver) in
        drivers.into_iter().take(if monoio::utils::detect_uring() { 2 } else { 1 }).enumerate()
    {
        let path = std::env::temp_dir().join(format!("galo-deaf-{}-{number}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let (took, taken) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut deaf, _) = listener.accept().unwrap();
            deaf.write_all(&frames(&[hello(Role::Aggregator, 0).into()])).unwrap();
            let (next, _) = listener.accept().unwrap();
            // What the deaf one was sent and never read: a socket's buffer.
            let mut unread = Vec::new();
            deaf.read_to_end(&mut unread).unwrap();
            took.send(unread.len()).unwrap();
            grant_all(next);
        });
        let (config, board) = configured(NOBODY);
        driver::run(driver, async {
            let front = start(&config, board, &path);
            // Questions of 20 bytes, far more than may wait. Each is asked, and nobody waits for its answer.
            for _ in 0..400 {
                for _ in 0..1_000 {
                    let mut asking = std::pin::pin!(front.lookup(CorrelationId([9; 16])));
                    let is_asked =
                        poll_fn(|context| Poll::Ready(asking.as_mut().poll(context).is_pending())).await;
                    assert!(is_asked, "nobody answers");
                }
                monoio::time::sleep(Duration::from_millis(1)).await;
                if taken.try_recv().is_ok_and(|size| size < 4 << 20) {
                    let accepted =
                        front.accept(CorrelationId([1; 16]), AmountCents::new(1990).unwrap(), None).await;
                    assert_eq!(accepted, Accepted::Granted, "the next link serves");
                    return;
                }
            }
            panic!("8 MB of questions wait for an aggregator that reads nothing, on {driver:?}");
        })
        .unwrap();
        std::fs::remove_file(path).unwrap();
    }
}

/// A processor that says 200 to everybody, and tells of each payment when it has.
fn processor(answered: mpsc::Sender<()>) -> &'static str {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answered) = (stream.unwrap(), answered.clone());
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                while let Ok(1..) = stream.read(&mut request) {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
                    if request.starts_with(b"POST") {
                        answered.send(()).unwrap();
                    }
                }
            });
        }
    });
    url.leak()
}

/// Answers that lie in sockets when a summary is asked for are told before the flush is answered, although no turn has come by to read them.
#[test]
fn what_processors_have_answered_is_told_before_a_flush_is_answered() {
    const ROUNDS: u8 = 20;
    const AT_ONCE: u8 = 4;
    let mut drivers = vec![Driver::Epoll];
    if let Ok(best) = driver::choose(DriverChoice::Uring) {
        drivers.extend([Driver::Uring(RingFlags::Plain), best]);
    }
    for driver in drivers {
        let path = std::env::temp_dir().join(format!("galo-flush-{}-{driver:?}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let (answered, has_answered) = mpsc::channel();
        let (config, board) = configured(processor(answered));
        let round_count = Arc::new(AtomicU8::new(0));
        let counter = Arc::clone(&round_count);
        let aggregator = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&frames(&[hello(Role::Aggregator, 0).into()])).unwrap();
            let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
            for round in 1..=ROUNDS {
                let (mut attempted_count, mut told_count, mut is_flushed) = (0, 0, false);
                while !is_flushed {
                    let more = stream.read(&mut chunk).unwrap();
                    assert!(more > 0, "the gateway has gone");
                    bytes.extend_from_slice(&chunk[..more]);
                    let mut replies: Vec<Message> = Vec::new();
                    let used = decode_frames(&bytes, |message| match message {
                        Message::Accept(Accept { slot, correlation_id, stage, .. }) => {
                            replies
                                .push(Grant { slot, correlation_id, admission: Admission::Granted }.into());
                            attempted_count += u8::from(stage != Stage::Waiting);
                        }
                        Message::Intent(Intent { slot, correlation_id, .. }) => {
                            replies.push(IntentRecorded { slot, correlation_id }.into());
                            attempted_count += 1;
                        }
                        Message::Completion(_) => told_count += 1,
                        Message::Flushed(flushed) => is_flushed = flushed.number == u32::from(round),
                        _ => {}
                    });
                    bytes.drain(..used.unwrap());
                    stream.write_all(&frames(&replies)).unwrap();
                    if !replies.is_empty() && attempted_count == AT_ONCE {
                        (0..AT_ONCE).for_each(|_| has_answered.recv().unwrap());
                        stream.write_all(&frames(&[Flush { number: round.into() }.into()])).unwrap();
                    }
                }
                assert_eq!(told_count, AT_ONCE, "round {round} on {driver:?}");
                counter.store(round, Ordering::Relaxed);
            }
        });
        driver::run(driver, async {
            let front = Rc::new(start(&config, board, &path));
            for round in 1..=ROUNDS {
                for number in 0..AT_ONCE {
                    let front = Rc::clone(&front);
                    monoio::spawn(async move {
                        let id = CorrelationId([round * AT_ONCE + number; 16]);
                        let accepted = front.accept(id, AmountCents::new(1990).unwrap(), None).await;
                        assert_eq!(accepted, Accepted::Granted);
                    });
                }
                while round_count.load(Ordering::Relaxed) < round && !aggregator.is_finished() {
                    monoio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        })
        .unwrap();
        aggregator.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }
}

/// A processor that takes everything, and what it was sent.
fn bank() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, tell) = (stream.unwrap(), tell.clone());
            std::thread::spawn(move || {
                let mut chunk = [0; 4096];
                while let Ok(more @ 1..) = stream.read(&mut chunk) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    let request = String::from_utf8(chunk[..more].to_vec()).unwrap();
                    if stream.write_all(answer).is_err() || tell.send(request).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, told)
}

/// SIGHUP's work: the next payment goes to the new address with the new key; a file with a mistake, or other names, changes nothing.
#[test]
fn the_processors_are_read_again_as_a_whole_or_not_at_all() {
    let folder = std::env::temp_dir().join(format!("galo-reload-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (path, key, socket) = (folder.join("p.toml"), folder.join("key"), folder.join("a.sock"));
    let ((old, at_old), (new, at_new)) = (bank(), bank());
    let write = |url: &str, secret: &str, more: &str| {
        std::fs::write(&key, secret).unwrap();
        let text = format!(
            "[[processor]]\nname = \"bank\"\nprofile = \"contest\"\nurl = \"{url}\"\nauth = {{ kind = \"bearer\", token_file = \"key\" }}\n{more}"
        );
        std::fs::write(&path, text).unwrap();
    };
    write(&old, "old-key", "");
    let list = [("GALO_PROCESSORS", &*path.to_str().unwrap().to_owned().leak())];
    let env = Env::of_list(Box::leak(Box::new(list)));
    let config = Config::read(&env, 1).unwrap();
    let identity = Identity { instance: 1, driver: "test", start_us: 0, names: Arc::clone(&config.names) };
    let board = Board::for_threads(identity, 1).into_iter().next().unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || grant_all(listener.accept().unwrap().0));
    let reloads = Reloads::new(&config);
    driver::run(Driver::Epoll, async {
        let front = start(&config, board, &socket);
        let woken = reloads.subscribe().unwrap();
        woken.set_nonblocking(true).unwrap();
        let woken = monoio::net::UnixStream::from_std(woken).unwrap();
        monoio::spawn(Arc::clone(&reloads).follow(woken, Rc::clone(&front.0)));
        let pay = async |number: u8| {
            let accepted =
                front.accept(CorrelationId([number; 16]), AmountCents::new(1990).unwrap(), None).await;
            assert_eq!(accepted, Accepted::Granted, "payment {number}");
        };
        let sent = async |at: &mpsc::Receiver<String>| loop {
            match at.try_recv() {
                Ok(request) => return request,
                Err(_) => monoio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        // A payment that comes before the link stands waits for an answer that this model does not give.
        while front.ready().is_err() {
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
        pay(1).await;
        assert!(sent(&at_old).await.contains("Authorization: Bearer old-key\r\n"));
        let mistakes = [
            (new.as_str(), "limits = { concurrency = 0 }\n"),
            (new.as_str(), "limits = { concurrency = 7 }\n"),
            (new.as_str(), "health = { every_ms = 900 }\n"),
            (new.as_str(), "health = { path = \"none\" }\n"),
            (
                new.as_str(),
                "[[processor]]\nname = \"other\"\nprofile = \"contest\"\nurl = \"http://127.0.0.1:1\"\n",
            ),
            ("gopher://bank", ""),
        ];
        for (url, more) in mistakes {
            write(url, "wrong-key", more);
            reloads.read_again(&env);
            assert!(reloads.latest().is_none(), "{url} {more}");
        }
        write(&new, "new-key", "cost = { basis_points = 7 }\n");
        reloads.read_again(&env);
        // Until the thread has read its byte, payments go where they went.
        let mut number = 2;
        let first = loop {
            pay(number).await;
            let (old, new) = monoio::select! {
                request = sent(&at_old) => (Some(request), None),
                request = sent(&at_new) => (None, Some(request)),
            };
            assert!(old.is_none_or(|request| request.contains("Bearer old-key\r\n")));
            number += 1;
            if let Some(request) = new {
                break request;
            }
            assert!(number < 200, "the new file is never followed");
        };
        assert!(first.contains("Authorization: Bearer new-key\r\n"));
        pay(number).await;
        sent(&at_new).await;
        assert!(at_old.try_recv().is_err(), "nothing goes where it was");
    })
    .unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}
