//! Peers on the aggregator's socket that are no gateways, or gateways of no good will; and gateways whose aggregator is none.
//!
//! What breaks the protocol must be refused, with a line in the log that says what it was. What the protocol allows and the
//! ledger does not believe (claims on another's payments, completions of none) must change nothing, as the other gateway sees. In
//! between, ordinary payments are taken, and at the end the books agree.
//!
//! What is not tried, since the protocol believes it (docs/protocol.md, "Completions", "Claim"): whoever may connect to the
//! socket may say that a payment is processed, claim one that nobody knows, or purge. The socket's mode is the boundary.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Connection, Way};
use crate::faults::view;
use crate::galo::{Plan, Programs, metrics, sum};
use crate::peer::{
    ACCEPT, ACKNOWLEDGEMENT, ASSIGNMENT, CLAIM, COMPLETION, GRANT, HEALTH_REPORT, INTENT, LOOKUP_QUERY,
    LOOKUP_REPLY, OF_AGGREGATOR, PART, Peer, READY, RELEASE, SUMMARY_QUERY, SUMMARY_REPLY, VERSION,
    WITHDRAWAL, fingerprint, frame, header, hello, hello_of, id_bytes,
};
use crate::processor::{Act, Then, plain, processed};
use crate::resources::descriptors;
use crate::tally::Tally;
use crate::world::{World, payment_json};

/// Of no gateway that was started.
const INSTANCE: u8 = 99;

/// So long an attempt takes during which others speak of its payment.
const ATTEMPT: Duration = Duration::from_secs(2);

/// What may wait for a peer that does not read is 24 MiB, in a buffer that doubles: 32, the 16 before, and what malloc keeps of those
/// before that. Without the bound it would be 120 MB and what doubling adds.
const UNREAD_KIB_MAX: u64 = 96 << 10;

/// How long clients of a gateway with a false aggregator wait, ms; two seconds more for the machine.
const ACCEPT_WAIT_MS_MAX: u64 = 300;
const REFUSED: Duration = Duration::from_millis(ACCEPT_WAIT_MS_MAX + 2_000);

/// A gateway's word for the end of its link. Whether it was the read or the write that found out is chance.
const BROKE: &str = "the link to the aggregator broke";

/// Runs both groups.
pub(crate) fn run(programs: &Programs, tally: &mut Tally) -> Result<(), String> {
    if tally.begin("peers of the aggregator") {
        let mut world = World::start(programs, &Plan { name: "peers", ..Plan::default() })?;
        let socket = world.galo.socket("aggregator");
        for (name, is_greeted, bytes, line) in broken() {
            let result = refused(&mut world, &socket, is_greeted, &bytes, &line);
            tally.case(&name, result);
        }
        for (name, case) in TALKS {
            let result =
                case(&mut world, &socket, tally).and_then(|()| world.check_well(&world.galo.straight(0)));
            tally.case(name, result);
        }
        world.reconcile(tally);
        world.stop(tally);
    }
    if tally.begin("aggregators that are none") {
        false_aggregators(programs, tally)?;
    }
    Ok(())
}

/// Name, whether a good hello goes before, bytes, what the log must say.
fn broken() -> Vec<(String, bool, Vec<u8>, String)> {
    let lookup = frame(LOOKUP_QUERY, &[&[0; 20]]);
    let mut cases: Vec<(String, bool, Vec<u8>, String)> = Vec::new();
    let mut add = |name: &str, is_greeted: bool, bytes: Vec<u8>, line: &str| {
        cases.push((name.to_owned(), is_greeted, bytes, line.to_owned()));
    };
    for version in [0, VERSION - 1, VERSION + 1, u16::MAX] {
        let line = format!("refused: protocol version {version}, expected {VERSION}");
        add(&format!("version {version}"), false, hello(version, 0, INSTANCE), &line);
    }
    let others = hello_of(VERSION, 0, INSTANCE, fingerprint(&["fallback", "default"]));
    add("other processors", false, others, "it knows other processors than this aggregator");
    add("an aggregator", false, hello(VERSION, 1, 0), "refused: a peer with role Aggregator");
    add("a role that is none", false, hello(VERSION, 2, 0), "record 0 of kind Hello is invalid");
    add("HTTP", false, b"GET / HTTP/1.1\r\n\r\n".to_vec(), "unknown record kind 47");
    add("zeros", false, vec![0; 64], "unknown record kind 0");
    add("ones", false, vec![0xff; 64], "unknown record kind 255");
    add("no hello but a question", false, lookup.clone(), "refused: an unexpected record: LookupQuery");
    add("nothing at all", false, Vec::new(), "no hello within 1s");
    add("half a hello, for ever", false, hello(VERSION, 0, INSTANCE)[..11].to_vec(), "no hello within 1s");
    add("hello twice", true, hello(VERSION, 0, INSTANCE), "refused: an unexpected record: Hello");
    for (kind, name, size) in OF_AGGREGATOR {
        let line = format!("refused: an unexpected record: {name}");
        add(&format!("what only an aggregator says: {name}"), true, frame(kind, &[&vec![0; size]]), &line);
    }
    let size = "do not make a body of";
    add("a body beyond its bound", true, header(65_540, LOOKUP_QUERY, 0, 3_277), size);
    add("a body of 4 GB", true, header(u32::MAX, LOOKUP_QUERY, 0, 1), size);
    add("a count of 0", true, header(0, LOOKUP_QUERY, 0, 0), size);
    add("a count that does not fit", true, header(20, LOOKUP_QUERY, 0, 2), size);
    add("a size that does not fit", true, header(21, LOOKUP_QUERY, 0, 1), size);
    add("a reserved byte", true, header(20, LOOKUP_QUERY, 1, 1), "reserved header byte is 1");
    for kind in [0, 31, 32, 63, 255] {
        add(&format!("kind {kind}"), true, header(20, kind, 0, 1), &format!("unknown record kind {kind}"));
    }
    add("a good frame, then garbage", true, [lookup, vec![0xee; 9]].concat(), "unknown record kind 238");
    for (name, kind, record) in [
        ("Accept", ACCEPT, accept(&[3; 16], 100, 9)),
        ("Intent", INTENT, intent(&[3; 16], 8)),
        ("Completion", COMPLETION, completion(&[3; 16], 0, 5)),
        ("Claim", CLAIM, claim(&[3; 16], 100, 9)),
    ] {
        let line = format!("record 0 of kind {name} is invalid");
        add(&format!("{name} with a value of no meaning"), true, frame(kind, &[&record]), &line);
    }
    let part = |attachment: u8, size: u8, text: u8| frame(PART, &[&[attachment, size], &[text; 48]]);
    let release = frame(RELEASE, &[&[3; 16]]);
    let line = "a text that belongs to nothing";
    add("a text before what takes none", true, [part(0, 48, b'a'), release.clone()].concat(), line);
    add("a text of no byte", true, part(1, 0, b'a'), line);
    add("a text of more bytes than there are", true, part(1, 49, b'a'), line);
    add("a text without an end", true, part(0, 48, b'a').repeat(43), line);
    add(
        "a text that is none",
        true,
        [part(0, 48, 0xff), frame(CLAIM, &[&claim(&[3; 16], 100, 0)])].concat(),
        line,
    );
    add("a text of no kind", true, part(2, 1, b'a'), "record 0 of kind Part is invalid");
    for cents in [0, 100_000_000_000, u64::MAX] {
        for (name, kind, record) in
            [("Accept", ACCEPT, accept(&[3; 16], cents, 0)), ("Claim", CLAIM, claim(&[3; 16], cents, 0))]
        {
            let line = format!("refused: an unexpected record: {name}");
            add(&format!("{name} of {cents} cents"), true, frame(kind, &[&record]), &line);
        }
    }
    cases
}

fn accept(id: &[u8], cents: u64, stage: u8) -> Vec<u8> {
    // Reason 1, "cheaper".
    [&[0; 4], id, &cents.to_le_bytes(), &[0; 8], &[0xff; 8], &[stage, 1]].concat()
}

fn intent(id: &[u8], processor: u8) -> Vec<u8> {
    [&[0; 4], id, &1_u64.to_le_bytes(), &[processor, 1], &[0; 4]].concat()
}

fn completion(id: &[u8], processor: u8, outcome: u8) -> Vec<u8> {
    [&1_u64.to_le_bytes(), id, &1_u64.to_le_bytes(), &[processor, outcome], &[0; 2]].concat()
}

fn claim(id: &[u8], cents: u64, stage: u8) -> Vec<u8> {
    [&[0; 4], id, &cents.to_le_bytes(), &1_u64.to_le_bytes(), &[stage, 0]].concat()
}

/// The connection ends, the log says why, and everybody else goes on.
fn refused(
    world: &mut World,
    socket: &Path,
    is_greeted: bool,
    bytes: &[u8],
    line: &str,
) -> Result<(), String> {
    let from = world.galo.said("aggregator").len();
    let mut peer = if is_greeted { Peer::greeted(socket, INSTANCE)? } else { Peer::connect(socket)? };
    peer.send(bytes)?;
    let said = peer.until_closed()?;
    world.galo.until_said("aggregator", from, line)?;
    if line.contains("protocol version") {
        // It is told what would have been right.
        let right = hello(VERSION, 1, 0);
        match &said[..] {
            [(1, theirs)] if theirs[..3] == right[8..11] => {}
            other => return Err(format!("a peer of another version is told {other:?}")),
        }
    }
    world.check_well(&world.galo.straight(0))
}

type Talk = fn(&mut World, &Path, &Tally) -> Result<(), String>;

const TALKS: [(&str, Talk); 10] = [
    ("a hello byte by byte", |_, socket, _| {
        let mut peer = Peer::connect(socket)?;
        for byte in hello(VERSION, 0, INSTANCE) {
            peer.send(&[byte])?;
            thread::sleep(Duration::from_millis(2));
        }
        peer.until(crate::peer::HELLO).map(drop)
    }),
    ("a hundred gateways that stop in the middle of a frame", |world, socket, _| {
        let mut peers = Vec::new();
        for _ in 0..100 {
            let mut peer = Peer::greeted(socket, INSTANCE)?;
            peer.send(&[header(60_000, LOOKUP_QUERY, 0, 3_000), vec![0; 59_000]].concat())?;
            peers.push(peer);
        }
        world.check_well(&world.galo.straight(0))?;
        world.check_well(&world.galo.straight(1))
    }),
    ("more gateways than there may be", too_many),
    ("questions with slots of no meaning, about ids of nobody", |_, socket, _| {
        let mut peer = Peer::greeted(socket, INSTANCE)?;
        for slot in [0, 1, u32::MAX] {
            peer.send(&frame(LOOKUP_QUERY, &[&slot.to_le_bytes(), &[0xab; 16]]))?;
            let reply = peer.until(LOOKUP_REPLY)?;
            if reply[..4] != slot.to_le_bytes() || reply[20] != 0 {
                return Err(format!("nobody's payment is {reply:?}"));
            }
            peer.send(&frame(SUMMARY_QUERY, &[&slot.to_le_bytes(), &[0xff; 8], &[0; 8]]))?;
            let reply = peer.until(SUMMARY_REPLY)?;
            if reply[..4] != slot.to_le_bytes() || reply[8..].iter().any(|byte| *byte != 0) {
                return Err(format!("a summary that ends before it begins is {reply:?}"));
            }
        }
        Ok(())
    }),
    ("another's payment: claimed, intended, refused, released, accepted", meddle),
    ("another's payment: said to be in doubt", doubt),
    ("completions and releases of payments that nobody knows", |world, socket, _| {
        let way = Way::Straight(world.galo.socket("aggregator-http"));
        let stale = |page: &str| sum(page, "galo_completions_stale_total");
        let before = stale(&metrics(&way)?);
        let mut peer = Peer::greeted(socket, INSTANCE)?;
        for outcome in [0, 1, 2, 3, 4] {
            peer.send(&frame(COMPLETION, &[&completion(&[0xcd; 16], 0, outcome)]))?;
            peer.until(ACKNOWLEDGEMENT)?;
            peer.send(&frame(RELEASE, &[&[0xcd; 16]]))?;
        }
        let id = "cdcdcdcd-cdcd-cdcd-cdcd-cdcdcdcdcdcd";
        let answer = world.galo.straight(1).ask("GET", &format!("/payments/{id}"), "")?;
        let counted = stale(&metrics(&way)?) - before;
        match (answer.status, counted) {
            (404, 5) => Ok(()),
            other => Err(format!("(status, counted as stale) is {other:?}")),
        }
    }),
    ("a gateway that takes over work and does nothing", idle_heir),
    ("a flood of questions whose answers nobody reads", flood),
    ("silent connections to the aggregator's own HTTP", |world, _, _| {
        let socket = world.galo.socket("aggregator-http");
        let before = descriptors(world, "aggregator")?;
        let silent = (0..SILENT_COUNT).map(|_| Peer::connect(&socket)).collect::<Result<Vec<_>, _>>()?;
        world.check_well(&world.galo.straight(1))?;
        let taken = descriptors(world, "aggregator")? - before;
        if taken > HTTP_CONNECTIONS_MAX {
            return Err(format!("{SILENT_COUNT} silent connections take {taken} descriptors"));
        }
        // They are thrown out one after the other, and who came behind them has his turn.
        metrics(&Way::Straight(socket))?;
        drop(silent);
        Ok(())
    }),
];

/// Beyond what the aggregator's HTTP takes at once; the rest wait in the listener's backlog.
const SILENT_COUNT: usize = 100;

/// The aggregator's own bound.
const HTTP_CONNECTIONS_MAX: u64 = 64;

fn too_many(world: &mut World, socket: &Path, _: &Tally) -> Result<(), String> {
    let from = world.galo.said("aggregator").len();
    let mut peers = Vec::new();
    for number in 0..1_100 {
        let mut peer = Peer::connect(socket)?;
        peer.send(&hello(VERSION, 0, INSTANCE)).map_err(|error| format!("peer {number}: {error}"))?;
        peers.push(peer);
    }
    world.galo.until_said("aggregator", from, "refused: already 1024 connections")?;
    world.check_well(&world.galo.straight(1))?;
    drop(peers);
    // There is room again.
    let socket = socket.to_owned();
    world.galo.until("room for one more", || Ok(Peer::greeted(&socket, INSTANCE).is_ok().then_some(())))
}

/// A payment that gateway-1 has on its way, for a while.
fn under_way(world: &mut World) -> Result<(String, Vec<u8>), String> {
    let id = world.galo.fresh_id();
    let slow = Act::new(true, processed(), Then::Stay).in_pieces(usize::MAX, ATTEMPT);
    world.default.script(&id, [slow.clone()]);
    world.fallback.script(&id, [slow]);
    world.pay(&world.galo.straight(0), &id, 4_200)?;
    let bytes = id_bytes(&id);
    Ok((id, bytes))
}

fn meddle(world: &mut World, socket: &Path, _: &Tally) -> Result<(), String> {
    let (id, bytes) = under_way(world)?;
    let other = world.galo.straight(1);
    let before = view(&other, &id)?;
    let from = world.galo.said("aggregator").len();
    let mut peer = Peer::greeted(socket, INSTANCE)?;
    let withdrawn = |peer: &mut Peer, what: &str, bytes: Vec<u8>| -> Result<(), String> {
        peer.send(&bytes)?;
        match peer.next()? {
            Some((WITHDRAWAL, _)) => Ok(()),
            reply => Err(format!("{what} is answered with {reply:?}")),
        }
    };
    for stage in [0, 1, 2] {
        withdrawn(&mut peer, "a claim", frame(CLAIM, &[&claim(&bytes, 4_200, stage)]))?;
        withdrawn(&mut peer, "a claim of another amount", frame(CLAIM, &[&claim(&bytes, 1, stage)]))?;
    }
    for processor in [0, 1] {
        withdrawn(&mut peer, "an intent", frame(INTENT, &[&intent(&bytes, processor)]))?;
        peer.send(&frame(COMPLETION, &[&completion(&bytes, processor, 1)]))?;
        peer.until(ACKNOWLEDGEMENT)?;
    }
    peer.send(&frame(RELEASE, &[&bytes]))?;
    for (cents, verdict) in [(4_200, 1), (4_201, 2)] {
        peer.send(&frame(ACCEPT, &[&accept(&bytes, cents, 0)]))?;
        let grant = peer.until(GRANT)?;
        if grant[20] != verdict {
            return Err(format!("an accept of {cents} cents is answered with verdict {}", grant[20]));
        }
    }
    world.galo.until_said("aggregator", from, "it named payments that are not its own")?;
    let after = view(&other, &id)?;
    if before.state != "open" || format!("{before:?}") != format!("{after:?}") {
        return Err(format!("the ledger said {before:?}, and then {after:?}"));
    }
    drop(peer);
    world.galo.settle()
}

fn doubt(world: &mut World, socket: &Path, _: &Tally) -> Result<(), String> {
    let (id, bytes) = under_way(world)?;
    let other = world.galo.straight(1);
    let mut peer = Peer::greeted(socket, INSTANCE)?;
    for processor in [0, 1] {
        peer.send(&frame(COMPLETION, &[&completion(&bytes, processor, 2)]))?;
        peer.until(ACKNOWLEDGEMENT)?;
    }
    // The worst that it can do: the payment stays where it is.
    if !view(&other, &id)?.in_doubt {
        return Err("in doubt for nobody".to_owned());
    }
    world.galo.settle()?;
    let posts = [world.default.posts(&id).len(), world.fallback.posts(&id).len()];
    if posts.contains(&0) { Ok(()) } else { Err(format!("it crossed over: {posts:?} attempts")) }
}

/// A gateway dies, and this one is given a share of its payments. It keeps them until it goes.
fn idle_heir(world: &mut World, socket: &Path, _: &Tally) -> Result<(), String> {
    let down = Act::new(false, plain(500, "X", ""), Then::Stay);
    for processor in [&world.default, &world.fallback] {
        processor.set_mood(Some(down.clone()));
    }
    let mut peer = Peer::greeted(socket, INSTANCE)?;
    peer.send(&frame(READY, &[&[0xff; 8]]))?;
    // And it lies about the processors, in both directions.
    for failing in [1, 0, 1] {
        for processor in [0, 1] {
            peer.send(&frame(
                HEALTH_REPORT,
                &[&[processor, 0, failing], &[0xff, 0xff, 0xff, 0x7f], &[0; 4]],
            ))?;
        }
    }
    let paid: Result<(), String> = (0..40).try_for_each(|number| {
        let id = world.galo.fresh_id();
        world.pay(&world.galo.straight(1), &id, 800 + number).map(drop)
    });
    let given = paid.and_then(|()| world.galo.kill("gateway-2")).and_then(|()| peer.until(ASSIGNMENT));
    for processor in [&world.default, &world.fallback] {
        processor.set_mood(None);
    }
    world.galo.respawn("gateway-2")?;
    given?;
    drop(peer);
    world.galo.settle()
}

fn flood(world: &mut World, socket: &Path, tally: &Tally) -> Result<(), String> {
    let before_kib = world.galo.rss_kib("aggregator").unwrap_or_default();
    let from = world.galo.said("aggregator").len();
    let mut peer = Peer::greeted(socket, INSTANCE)?;
    peer.limit_writes(Duration::from_secs(2))?;
    let questions = [header(60_000, LOOKUP_QUERY, 0, 3_000), vec![0xab; 60_000]].concat();
    let (mut most_kib, mut sent) = (before_kib, 0);
    // A bounded aggregator lets go after some 13 MB; one that is not would have 120 MB of answers by then.
    while sent < 60 << 20 && peer.send(&questions).is_ok() {
        sent += questions.len();
        most_kib = most_kib.max(world.galo.rss_kib("aggregator").unwrap_or_default());
    }
    tally.note(&format!(
        "a flood is let go after {sent} bytes of questions; the aggregator took {before_kib} KiB before, {most_kib} at most"
    ));
    world.galo.until_said("aggregator", from, "it does not read what it is sent")?;
    world.check_well(&world.galo.straight(1))?;
    if most_kib > before_kib + UNREAD_KIB_MAX {
        return Err(format!("{most_kib} KiB for a peer that does not read, {before_kib} before"));
    }
    Ok(())
}

/// What a false aggregator does with whoever connects.
#[derive(Clone, Debug, Default)]
struct Manner {
    bytes: Vec<u8>,
    /// It keeps the connection, and reads nothing.
    is_kept: bool,
}

/// Listens where the aggregator should.
struct FalseAggregator {
    manner: Arc<Mutex<Manner>>,
    /// Connections that it had.
    met: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    socket: PathBuf,
}

impl FalseAggregator {
    fn start(socket: PathBuf) -> Result<Self, String> {
        let listener = UnixListener::bind(&socket).map_err(|error| error.to_string())?;
        let manner = Arc::new(Mutex::new(Manner::default()));
        let is_over = Arc::new(AtomicBool::new(false));
        let met = Arc::new(AtomicUsize::new(0));
        let (theirs, over, counted) = (Arc::clone(&manner), Arc::clone(&is_over), Arc::clone(&met));
        thread::spawn(move || {
            let mut kept: Vec<UnixStream> = Vec::new();
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                counted.fetch_add(1, Ordering::Relaxed);
                let manner = theirs.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // A gateway that has gone meanwhile comes again.
                if stream.write_all(&manner.bytes).is_ok() && manner.is_kept {
                    kept.push(stream);
                } else {
                    kept.clear();
                }
            }
        });
        Ok(Self { manner, met, is_over, socket })
    }

    fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
        // Whoever was kept is let go with the first connection that is not.
    }

    fn end(self) -> Result<(), String> {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread, which then drops everybody; if it cannot be reached it has gone already.
        drop(UnixStream::connect(&self.socket));
        std::fs::remove_file(&self.socket).map_err(|error| error.to_string())
    }
}

/// Connections after which both gateways have met a false aggregator more than once.
const VISITS: usize = 12;

/// Name, bytes, kept, what both gateways say, if anything.
fn manners() -> Vec<(&'static str, Vec<u8>, bool, &'static str)> {
    let greeting = hello(VERSION, 1, 0);
    let and = |bytes: &[u8]| [&greeting[..], bytes].concat();
    let mut nonsense = Vec::new();
    for (kind, _, size) in OF_AGGREGATOR {
        for fill in [0, 0xff] {
            // A value that is none would be refused: here the values are good and mean nothing.
            let mut record = vec![fill; size];
            match kind {
                GRANT => record[20] = 0,
                ASSIGNMENT => record[32..].fill(0),
                LOOKUP_REPLY => (record[20], record[37], record[38], record[40]) = (2, 1, 1, 1),
                42 => record[0] = 1,
                43 => record[..3].fill(1),
                48 => record[12..].fill(1),
                49 => record[0] = 1,
                _ => {}
            }
            nonsense.extend(frame(kind, &[&record]).repeat(50));
        }
    }
    vec![
        ("hangs up", Vec::new(), false, BROKE),
        ("another version", hello(VERSION + 1, 1, 0), false, "the aggregator speaks protocol version"),
        ("another gateway", hello(VERSION, 0, 1), false, "speaks protocol version"),
        ("garbage", vec![0xee; 64], false, "a bad frame: unknown record kind 238"),
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), false, "a bad frame"),
        ("a grant before the hello", frame(GRANT, &[&[0; 21]]), false, "did not say hello first"),
        ("hello, and the end", greeting.clone(), false, BROKE),
        ("hello, and garbage", and(&[0xee; 64]), false, "a bad frame: unknown record kind 238"),
        ("hello, and half a frame", and(&header(21, GRANT, 0, 1)), false, BROKE),
        (
            "hello, and a frame beyond the bound",
            and(&header(u32::MAX, GRANT, 0, 9)),
            false,
            "do not make a body",
        ),
        (
            "hello, and a verdict that is none",
            and(&frame(GRANT, &[&[9; 21]])),
            false,
            "kind Grant is invalid",
        ),
        ("hello, and records out of nowhere", and(&nonsense), false, BROKE),
        ("records out of nowhere, and then silence", and(&nonsense), true, ""),
        ("half a hello, and then silence", greeting[..9].to_vec(), true, ""),
        ("silence", Vec::new(), true, ""),
    ]
}

fn false_aggregators(programs: &Programs, tally: &mut Tally) -> Result<(), String> {
    let environment = vec![("ACCEPT_WAIT_MS_MAX", ACCEPT_WAIT_MS_MAX.to_string())];
    let mut world = World::start(programs, &Plan { name: "false", environment, ..Plan::default() })?;
    world.check_well(&world.galo.straight(0))?;
    for (name, bytes, is_kept, line) in manners() {
        let result = false_aggregator(&mut world, Manner { bytes, is_kept }, line);
        tally.case(name, result);
    }
    world.reconcile(tally);
    world.stop(tally);
    Ok(())
}

/// Both gateways meet it, refuse it, refuse their clients within the bound, live, and are well as soon as the real one is back.
fn false_aggregator(world: &mut World, manner: Manner, line: &str) -> Result<(), String> {
    let names = ["gateway-1", "gateway-2"];
    let ways = [world.galo.straight(0), world.galo.straight(1)];
    world.galo.kill("aggregator")?;
    std::fs::remove_file(world.galo.socket("aggregator")).map_err(|error| error.to_string())?;
    let pretender = FalseAggregator::start(world.galo.socket("aggregator"))?;
    pretender.behave(manner);
    let result = (|| {
        let mut refused = Vec::new();
        if !line.is_empty() {
            // They come again and again. What they say of it they may have said of another case already, and then not again for a minute.
            world.galo.until("gateways that come again", || {
                Ok((pretender.met.load(Ordering::Relaxed) >= VISITS).then_some(()))
            })?;
        }
        for (name, way) in names.into_iter().zip(&ways) {
            world.galo.until_said(name, 0, line)?;
            let id = world.galo.fresh_id();
            let started = Instant::now();
            let answer = Connection::open(way)?.request("POST", "/payments", &payment_json(&id, 900))?;
            if answer.status != 503 || answer.header("retry-after").is_none() || started.elapsed() > REFUSED {
                return Err(format!("{name} says {} after {:.1?}", answer.status, started.elapsed()));
            }
            refused.push(id);
        }
        world.galo.check_alive()?;
        Ok(refused)
    })();
    pretender.end()?;
    world.galo.respawn("aggregator")?;
    for way in &ways {
        world.galo.until("ready again", || {
            Ok(way.ask("GET", "/ready", "").is_ok_and(|answer| answer.status == 200).then_some(()))
        })?;
    }
    for (way, id) in ways.iter().zip(result?) {
        let answer = world.pay(way, &id, 900)?;
        if answer.header("idempotent-replayed").is_some() {
            return Err(format!("{id} was refused and counts as a replay"));
        }
        world.check_well(way)?;
    }
    Ok(())
}
