//! The link to an aggregator that misbehaves, against a model of one on a real socket.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;

use galo_engine::CorrelationId;
use galo_engine::money::AmountCents;
use galo_gateway::config::Config;
use galo_gateway::core::{Core, Front};
use galo_gateway::driver::{self, Driver};
use galo_gateway::http::Service;
use galo_gateway::http::service::Accepted;
use galo_gateway::link;
use galo_gateway::metrics::{Board, Identity};
use galo_shell::clock::Clock;
use galo_shell::env::Env;
use galo_wire::record::{Grant, Hello, Role, Verdict};
use galo_wire::{FrameWriter, Message, PROTOCOL_VERSION, decode_frames};

fn hello(role: Role, instance: u8) -> Hello {
    Hello { protocol_version: PROTOCOL_VERSION, role, instance, thread: 0, reserved: 0, incarnation: 1 }
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
                grants.push(Grant { slot, correlation_id, verdict: Verdict::Granted }.into());
            }
        });
        bytes.drain(..used.unwrap());
        if stream.write_all(&frames(&grants)).is_err() {
            return;
        }
    }
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
    // Nobody listens at the processors: what becomes of the payments is not the question here.
    let env = Env::of_list(&[
        ("PROCESSOR_DEFAULT_URL", "http://127.0.0.1:1"),
        ("PROCESSOR_FALLBACK_URL", "http://127.0.0.1:1"),
    ]);
    let config = Config::read(&env, 1).unwrap();
    let identity = Identity { instance: 1, driver: "epoll", start_us: 0 };
    let board = Board::for_threads(identity, 1).into_iter().next().unwrap();
    driver::run(Driver::Epoll, async {
        let core = Core::start(&config, config.resolve().unwrap(), Clock, board.plant());
        monoio::spawn(Rc::clone(&core).keep_time());
        let (link_core, socket) = (Rc::clone(&core), path.clone());
        monoio::spawn(async move { link::maintain(link_core, &socket, hello(Role::Gateway, 1)).await });
        let front = Front(core);
        for number in 1..=5 {
            let accepted = front.accept(CorrelationId([number; 16]), AmountCents::new(1990).unwrap()).await;
            assert_eq!(accepted, Accepted::Granted, "payment {number}");
        }
    })
    .unwrap();
    std::fs::remove_file(path).unwrap();
}
