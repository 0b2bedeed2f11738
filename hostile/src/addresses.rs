//! Names whose addresses change hands, with the real programs: two `processor`s that exchange theirs, and names alone that are exchanged.
//!
//! The gateways see an `/etc/hosts` of the case's own, in a mount namespace. Every payment is charged once in the end. From when a gateway can
//! know it on, each is charged where Galo says by the names of that moment; what is in doubt is not sent to the other processor that has the
//! address now. What is sent before that (docs/reliability.md says for how long) is charged, at one of them.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Connection, Way};
use crate::faults::{pay, view};
use crate::galo::{Galo, Plan, Programs, Recipe, folder_of, free_port};
use crate::mounts::Bind;
use crate::providers::Booked;
use crate::tally::Tally;

const GROUP: &str = "addresses";

/// Names, the cheaper one first; the processors at their addresses when the case begins are called likewise.
const NAMES: [&str; 2] = ["pay-default", "pay-fallback"];

/// How old a name's address grows in a gateway, and a second for the machine.
const KNOWN_AFTER: Duration = Duration::from_secs(6);

/// For the first attempt of a payment, on a busy machine.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(20);

const GAP: Duration = Duration::from_millis(20);

/// Runs the group.
pub(crate) fn run(programs: &Programs, tally: &mut Tally) {
    if !tally.begin(GROUP) {
        return;
    }
    if let Err(error) = Bind::is_allowed() {
        tally.leave_out(&format!("nothing can be mounted here: {error}"));
        return;
    }
    let cases: [(_, Play, [u8; 2]); 2] = [
        ("processors exchange their addresses", Case::processors_move, [2, 3]),
        ("names are exchanged, and nobody hangs up", Case::names_move, [4, 5]),
    ];
    let results: Vec<_> = thread::scope(|scope| {
        // Each starts, plays and stops in its own thread, since a process dies with the thread that started it.
        let threads = cases
            .map(|(name, play, hosts)| (name, scope.spawn(move || Case::perform(programs, play, hosts))));
        let join = |(name, thread): (_, thread::ScopedJoinHandle<'_, Result<String, String>>)| {
            (name, thread.join().unwrap_or_else(|_| Err("the thread panicked".to_owned())))
        };
        threads.into_iter().map(join).collect()
    });
    for (name, result) in results {
        tally.figures(name, result);
    }
}

type Play = fn(&mut Case) -> Result<String, String>;

struct Case {
    galo: Galo,
    hosts: PathBuf,
    /// Where the processors are that were called so at first.
    addresses: [SocketAddr; 2],
    /// Cents by id.
    accepted: BTreeMap<String, u64>,
}

impl Case {
    fn perform(programs: &Programs, play: Play, hosts: [u8; 2]) -> Result<String, String> {
        let mut case = Case::start(programs, hosts)?;
        let figures = play(&mut case)?;
        case.galo.check_alive()?;
        // One that failed is killed, and its folder with the logs stays.
        case.galo.stop()?;
        Ok(figures)
    }

    fn start(programs: &Programs, [default, fallback]: [u8; 2]) -> Result<Self, String> {
        let name = format!("{GROUP}-{default}");
        let folder = folder_of(&name);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let port = free_port()?;
        let addresses = [default, fallback].map(|last| SocketAddr::from(([127, 0, 0, last], port)));
        let hosts = folder.join("hosts");
        write_hosts(&hosts, addresses)?;
        let plan = Plan { name: &name, hosts: Some(&hosts), ..Plan::default() };
        let mut galo = Galo::start(programs, &plan, NAMES.map(|name| format!("http://{name}:{port}")))?;
        for (name, address) in NAMES.iter().zip(addresses) {
            let listen = address.to_string();
            let arguments = ["--name", name, "--listen", &listen].map(str::to_owned).to_vec();
            galo.spawn(name, Recipe::new(programs.folder.join("processor"), arguments))?;
            galo.until_said(name, 0, "listening on")?;
        }
        Ok(Self { galo, hosts, addresses, accepted: BTreeMap::new() })
    }

    /// Both hang up and exchange their addresses, one payment in doubt at the cheaper one.
    fn processors_move(&mut self) -> Result<String, String> {
        self.pay_for(Duration::from_secs(1))?;
        self.galo.settle()?;
        // Stored, and never answered: closed with the connection, as everything else is.
        let hang = r#"{"hangAfterInsert":1.0,"hangMs":60000}"#;
        self.admin(0, "PUT", "/admin/configurations/faults", hang)?;
        let (doubt, accepted) = (self.pay_one()?, Instant::now());
        while !self.books(0)?.contains_key(&doubt) {
            if accepted.elapsed() > ATTEMPT_LIMIT {
                return Err("no attempt of the one that is to be in doubt".to_owned());
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.admin(0, "PUT", "/admin/configurations/faults", "{}")?;
        write_hosts(&self.hosts, [self.addresses[1], self.addresses[0]])?;
        for side in 0..2 {
            let there = format!(r#"{{"address":"{}"}}"#, self.addresses[1 - side]);
            self.admin(side, "PUT", "/admin/configurations/address", &there)?;
        }
        self.addresses.swap(0, 1);
        let before = self.accepted.clone();
        self.pay_for(Duration::from_secs(3))?;
        self.galo.settle()?;
        // Whoever hung up is asked for at once, so nothing at all went astray.
        let books = self.check_charged_once()?;
        let moved = self.accepted.keys().filter(|id| !before.contains_key(*id)).count();
        for id in self.accepted.keys() {
            self.check_place(&books, id, [0, 1])?;
        }
        if !books[0].contains_key(&doubt) {
            return Err(format!("{doubt} was in doubt and went elsewhere"));
        }
        Ok(format!("{moved} payments afterwards, one in doubt, all where Galo says: {}", lens(&books)))
    }

    /// The names are exchanged alone: what is called `pay-default` now is the process that was the other one.
    fn names_move(&mut self) -> Result<String, String> {
        self.pay_for(Duration::from_secs(1))?;
        self.galo.settle()?;
        write_hosts(&self.hosts, [self.addresses[1], self.addresses[0]])?;
        // Used all the time, so that it is asked for, and connections are kept.
        self.pay_for(KNOWN_AFTER)?;
        self.galo.settle()?;
        let before = self.accepted.clone();
        self.pay_for(Duration::from_secs(3))?;
        self.galo.settle()?;
        let books = self.check_charged_once()?;
        let mut count = 0;
        for id in self.accepted.keys().filter(|id| !before.contains_key(*id)) {
            self.check_place(&books, id, [1, 0])?;
            count += 1;
        }
        if !self.accepted.keys().any(|id| !before.contains_key(id) && books[1].contains_key(id)) {
            return Err("none came to what the cheaper one's name points to".to_owned());
        }
        Ok(format!("{count} payments afterwards, all where Galo says: {}", lens(&books)))
    }

    fn pay_for(&mut self, time: Duration) -> Result<(), String> {
        let started = Instant::now();
        while started.elapsed() < time {
            self.pay_one()?;
            thread::sleep(GAP);
        }
        Ok(())
    }

    fn pay_one(&mut self) -> Result<String, String> {
        let (id, count) = (self.galo.fresh_id(), self.accepted.len());
        let cents = 1_000 + count as u64;
        pay(&self.galo.straight(count % 2), &id, cents).map_err(|error| format!("{id} {error}"))?;
        self.accepted.insert(id.clone(), cents);
        Ok(id)
    }

    /// Asks one of the processors, wherever it is now: it may be about to listen there.
    fn admin(&mut self, side: usize, method: &str, path: &str, body: &str) -> Result<String, String> {
        let way = Way::Front(self.addresses[side]);
        // HTTP/1.0: an answer that ends with its connection.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nX-Rinha-Token: 123\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.galo.until(path, || {
            let Ok(mut connection) = Connection::open(&way) else { return Ok(None) };
            connection.send(request.as_bytes());
            match connection.answer(false) {
                Ok(answer) if answer.status == 200 => Ok(Some(answer.text())),
                Ok(answer) => Err(format!("{path} says {} {}", answer.status, answer.text())),
                // It was the other one's last moment there.
                Err(_) => Ok(None),
            }
        })
    }

    fn books(&mut self, side: usize) -> Result<BTreeMap<String, u64>, String> {
        let text = self.admin(side, "GET", "/admin/payments", "")?;
        let read = |line| Booked::read(line).map(|booked| (booked.correlation_id, booked.amount_cents));
        text.lines().map(read).collect()
    }

    /// Every payment is charged once, with its cents, and nothing else is.
    fn check_charged_once(&mut self) -> Result<[BTreeMap<String, u64>; 2], String> {
        let books = [self.books(0)?, self.books(1)?];
        for (id, cents) in &self.accepted {
            let charged: Vec<_> = books.iter().filter_map(|book| book.get(id)).collect();
            if charged != [cents] {
                return Err(format!("{id} of {cents} cents is charged {charged:?}"));
            }
        }
        let count: usize = books.iter().map(BTreeMap::len).sum();
        if count != self.accepted.len() {
            return Err(format!("{count} are charged, {} accepted", self.accepted.len()));
        }
        Ok(books)
    }

    /// It is charged where Galo says; `processes` says who is called `default` and `fallback`.
    fn check_place(
        &self,
        books: &[BTreeMap<String, u64>; 2],
        id: &str,
        processes: [usize; 2],
    ) -> Result<(), String> {
        let seen = view(&self.galo.straight(0), id)?;
        let place = ["default", "fallback"].iter().position(|name| seen.processor.as_deref() == Some(*name));
        match place {
            Some(place) if books[processes[place]].contains_key(id) => Ok(()),
            _ => Err(format!("{id} is charged elsewhere than Galo says: {seen:?}")),
        }
    }
}

/// Everybody reads it in place: a look-up that comes while it is written finds nothing, and keeps what it had.
fn write_hosts(path: &Path, addresses: [SocketAddr; 2]) -> Result<(), String> {
    let line = |(name, address): (&&str, SocketAddr)| format!("{} {name}\n", address.ip());
    let text: String = NAMES.iter().zip(addresses).map(line).collect();
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn lens(books: &[BTreeMap<String, u64>; 2]) -> String {
    format!("{} and {}", books[0].len(), books[1].len())
}
