//! Every shipped profile against the program that speaks the provider's public API: `processor --profile NAME`.
//!
//! For each: two of these processors, both gateways and the aggregator, 200 payments, and what a provider does on bad days. Answers
//! are lost before and after the payment is stored, some come after the gateway's patience, payments are taken and decided on
//! later, some are refused by one processor or declined by both, and each gateway is killed once. Then everything must settle, and
//! id by id each payment must be charged once, where Galo says, with its cents, or nowhere and declined; and the summary must be what
//! the processors' own books say.
//!
//! The profiles run side by side: their payments mostly wait.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::authority::Authority;
use crate::client::{Connection, Way};
use crate::faults::view;
use crate::galo::{Galo, Plan, Programs, Recipe, folder_of, free_port, metrics, sum};
use crate::tally::Tally;
use crate::world::payment_json;

const GROUP: &str = "providers";

/// The processors of each case: what they are called, and what they keep in basis points.
const PROCESSORS: [(&str, u32); 2] = [("cheap", 100), ("dear", 300)];

const PAYMENTS: u64 = 200;

/// Between two payments.
const GAP: Duration = Duration::from_millis(20);

/// By when everything must be settled, on a machine that is busy with the other profiles too.
const SETTLE_LIMIT: Duration = Duration::from_secs(45);

/// What the way of a payment may take that nobody loses, and then some.
const ROUND: Duration = Duration::from_millis(1_500);

/// By then whatever ends by itself has ended, or was tried again.
const BY_HAND_AFTER: Duration = Duration::from_secs(10);

/// Payments whose ids end so are declined by both processors, or refused as malformed by the cheaper one, or taken and decided on
/// later.
const DECLINED: char = '0';
const REFUSED: char = '1';
const LATER: [char; 2] = ['4', '5'];

/// Credentials, the same ones everywhere.
const CREDENTIAL: &str = "sk_test_galo";
const CLIENT: &str = "galo";

/// Flags of a processor that wants to see certificates, and their files.
const MUTUAL: [(&str, &str); 3] =
    [("--tls-certificate", "server.pem"), ("--tls-key", "server.key"), ("--tls-client-ca", "ca.pem")];

/// A shipped profile, and what is special about it.
struct Profile {
    name: &'static str,
    /// What the profile leaves to whoever uses it, and shorter times, in TOML.
    own: &'static str,
    /// The provider has declines, and malformed requests.
    declines: bool,
    /// It can take a payment and decide on it later.
    pending: bool,
    /// Nothing but a charge ends a doubt there: what is in doubt and charged nowhere is for people.
    is_settled_by_hand: bool,
    /// It wants to see a certificate of who calls.
    is_mutual: bool,
}

const PROFILES: [Profile; 6] = [
    Profile {
        name: "contest",
        own: "lookup.not_found_after_ms = 2_000\n",
        declines: false,
        pending: false,
        is_settled_by_hand: false,
        is_mutual: false,
    },
    Profile {
        name: "stripe",
        own: "auth.token_file = \"credential\"\nrequest.body.payment_method = \"pm_card_visa\"\n\
              lookup.every_ms = 200\nlookup.not_found_after_ms = 2_000\n",
        declines: true,
        pending: true,
        is_settled_by_hand: false,
        is_mutual: false,
    },
    Profile {
        name: "adyen",
        own: "auth.value_file = \"credential\"\nrequest.body.merchantAccount = \"Galo\"\n\
              request.body.paymentMethod = { type = \"scheme\" }\n",
        declines: true,
        // It has no look-up: what is taken and decided on later is told by a notification alone.
        pending: false,
        is_settled_by_hand: true,
        is_mutual: false,
    },
    Profile {
        name: "mercadopago",
        own: "auth.token_file = \"credential\"\nrequest.body.payment_method_id = \"pix\"\n\
              request.body.payer = { email = \"payer@example.com\" }\nlookup.every_ms = 200\n",
        declines: true,
        pending: true,
        is_settled_by_hand: true,
        is_mutual: false,
    },
    Profile {
        name: "pix",
        own: "auth.token_url = \"https://127.0.0.1:{port}/oauth/token\"\nauth.client_id = \"galo\"\n\
              tls.ca_file = \"ca.pem\"\ntls.client_cert_file = \"client.pem\"\ntls.client_key_file = \"client.key\"\n\
              auth.client_secret_file = \"credential\"\nrequest.body.chave = \"galo@example.com\"\n\
              lookup.every_ms = 200\nlookup.not_found_after_ms = 2_000\n",
        declines: true,
        pending: true,
        is_settled_by_hand: false,
        is_mutual: true,
    },
    Profile {
        name: "localstripe",
        own: "auth.token_file = \"credential\"\nrequest.body.payment_method = \"pm_card_visa\"\n\
              lookup.every_ms = 200\nlookup.not_found_after_ms = 2_000\n",
        declines: true,
        pending: true,
        is_settled_by_hand: false,
        is_mutual: false,
    },
];

/// Runs the group.
pub(crate) fn run(programs: &Programs, tally: &mut Tally) {
    if !tally.begin(GROUP) {
        return;
    }
    let results: Vec<_> = thread::scope(|scope| {
        // Each starts, plays and stops in its own thread, since a process dies with the thread that started it.
        let threads: Vec<_> = PROFILES
            .iter()
            .map(|profile| (profile.name, scope.spawn(|| Case::perform(programs, profile))))
            .collect();
        let join = |(name, thread): (_, thread::ScopedJoinHandle<'_, Result<String, String>>)| {
            (name, thread.join().unwrap_or_else(|_| Err("the thread panicked".to_owned())))
        };
        threads.into_iter().map(join).collect()
    });
    for (name, result) in results {
        tally.figures(name, result);
    }
}

/// A profile with all its processes, and what was accepted.
struct Case<'a> {
    profile: &'a Profile,
    /// Of those that are called over TLS.
    authority: Option<Authority>,
    galo: Galo,
    addresses: [SocketAddr; 2],
    /// Cents by id.
    accepted: BTreeMap<String, u64>,
    /// Which gateways run.
    alive: [bool; 2],
    /// Ids that an operator settled as declined.
    by_hand: BTreeSet<String>,
    /// How attempts ended, in the lives of gateways that were counted.
    verdicts: BTreeMap<&'static str, u64>,
}

/// A payment in a processor's own books.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Booked {
    pub(crate) correlation_id: String,
    pub(crate) amount_cents: u64,
    /// The contest's have none: what they have is charged.
    state: Option<String>,
}

impl Booked {
    /// A line of the listing.
    pub(crate) fn read(line: &str) -> Result<Self, String> {
        serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))
    }
}

/// What the aggregator lists.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Doubt {
    correlation_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statistics {
    posts: u64,
    #[serde(default)]
    replays: u64,
    duplicates: u64,
}

impl Case<'_> {
    fn perform(programs: &Programs, profile: &Profile) -> Result<String, String> {
        let mut case = Case::start(programs, profile)?;
        let figures = case.play()?;
        case.galo.check_alive()?;
        // One that failed is killed, and its folder with the logs stays.
        case.galo.stop()?;
        Ok(figures)
    }

    fn start<'a>(programs: &Programs, profile: &'a Profile) -> Result<Case<'a>, String> {
        let name = format!("{GROUP}-{}", profile.name);
        let folder = folder_of(&name);
        let ports = [free_port()?, free_port()?];
        let write = |file: &str, text: &str| {
            let path = folder.join(file);
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok::<_, String>(path.display().to_string())
        };
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        write("credential", &format!("{CREDENTIAL}\n"))?;
        let authority = profile.is_mutual.then(|| Authority::in_folder(&folder)).transpose()?;
        let file = write("processors.toml", &processors_toml(profile, ports))?;
        let environment = vec![("GALO_PROCESSORS", file)];
        let plan = Plan { name: &name, environment, ..Plan::default() };
        // The file says where they are; these variables do nothing beside it.
        let mut galo = Galo::start(programs, &plan, [String::new(), String::new()])?;
        for ((name, _), port) in PROCESSORS.into_iter().zip(ports) {
            let mut arguments = processor_flags(profile, name, port);
            if profile.is_mutual {
                for (flag, file) in MUTUAL {
                    arguments.extend([flag.to_owned(), folder.join(file).display().to_string()]);
                }
            }
            galo.spawn(name, Recipe::new(programs.folder.join("processor"), arguments))?;
            galo.until_said(name, 0, "listening on")?;
        }
        let addresses = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Ok(Case {
            profile,
            authority,
            galo,
            addresses,
            accepted: BTreeMap::new(),
            alive: [true; 2],
            by_hand: BTreeSet::new(),
            verdicts: BTreeMap::new(),
        })
    }

    fn play(&mut self) -> Result<String, String> {
        let started = Instant::now();
        for number in 0..PAYMENTS {
            match number {
                60 => self.kill(0)?,
                90 => self.bring_back(0)?,
                120 => self.kill(1)?,
                150 => self.bring_back(1)?,
                _ => {}
            }
            self.pay()?;
            let due = started + GAP * u32::try_from(number).unwrap_or(u32::MAX);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let settled = Instant::now();
        self.settle()?;
        let settled = settled.elapsed();
        let books = self.check_each()?;
        self.check_summary(&books)?;
        let figures = self.check_faults()?;
        Ok(format!("{} payments, settled {settled:.1?} after the last; {figures}", self.accepted.len()))
    }

    /// Adds what this life of a gateway has counted.
    fn count_verdicts(&mut self, gateway: usize) -> Result<(), String> {
        let page = metrics(&self.galo.straight(gateway))?;
        for verdict in ["unknown", "pending", "declined"] {
            for (name, _) in PROCESSORS {
                let labels = format!("{{processor=\"{name}\",verdict=\"{verdict}\"}}");
                let count = sum(&page, &format!("galo_attempt_verdicts_total{labels}"));
                *self.verdicts.entry(verdict).or_insert(0) += count;
            }
        }
        Ok(())
    }

    fn kill(&mut self, gateway: usize) -> Result<(), String> {
        self.count_verdicts(gateway)?;
        self.alive[gateway] = false;
        self.galo.kill(&format!("gateway-{}", gateway + 1))
    }

    fn bring_back(&mut self, gateway: usize) -> Result<(), String> {
        self.galo.respawn(&format!("gateway-{}", gateway + 1))?;
        let way = self.galo.straight(gateway);
        self.galo.until("ready", || {
            let answer = way.ask("GET", "/ready", "");
            Ok(answer.is_ok_and(|answer| answer.status == 200).then_some(()))
        })?;
        self.alive[gateway] = true;
        Ok(())
    }

    /// A payment, to the gateways in turn; it must be accepted.
    fn pay(&mut self) -> Result<(), String> {
        let count = self.accepted.len();
        let gateway = if self.alive[count % 2] { count % 2 } else { (count + 1) % 2 };
        let (id, cents) = (self.galo.fresh_id(), 1_000 + count as u64);
        let answer = self.galo.straight(gateway).ask("POST", "/payments", &payment_json(&id, cents))?;
        if answer.status != 202 {
            return Err(format!("{id} is answered {} {}", answer.status, answer.text()));
        }
        self.accepted.insert(id, cents);
        Ok(())
    }

    /// Nothing is open any more. A decline is final only where others were taken in between, so others come meanwhile.
    fn settle(&mut self) -> Result<(), String> {
        let started = Instant::now();
        let way = self.galo.aggregator();
        let mut looked = started;
        loop {
            let page = metrics(&way)?;
            let open = sum(&page, "galo_payments_open");
            if open == 0 {
                return Ok(());
            }
            if started.elapsed() > SETTLE_LIMIT {
                let list = way.ask("GET", "/payments?state=open&limit=5", "")?.text();
                return Err(format!("{open} are open after {SETTLE_LIMIT:?}: {list}"));
            }
            self.galo.check_alive()?;
            if looked.elapsed() > ROUND {
                looked = Instant::now();
                if self.profile.is_settled_by_hand && started.elapsed() > BY_HAND_AFTER {
                    self.settle_by_hand()?;
                }
                // Both processors may have to prove that they take others: two, since one may be declined.
                self.pay()?;
                self.pay()?;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// An operator settles what is in doubt and, as the processors' books say, charged nowhere.
    fn settle_by_hand(&mut self) -> Result<(), String> {
        let way = self.galo.aggregator();
        let text = way.ask("GET", "/payments?state=in_doubt&limit=100", "")?.text();
        let doubts: Vec<Doubt> = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        let books = [0, 1].map(|processor| self.admin(processor, "/admin/payments"));
        for Doubt { correlation_id: id } in doubts {
            let mut had = false;
            for book in &books {
                let book = book.as_ref().map_err(Clone::clone)?;
                had |= book.lines().any(|line| line.contains(&id) && !line.contains(r#""state":"declined""#));
            }
            if had {
                continue;
            }
            let said = r#"{"as":"declined","reason":"the provider's own books have no charge"}"#;
            let answer = way.ask("POST", &format!("/payments/{id}/settle"), said)?;
            match answer.status {
                200 => drop(self.by_hand.insert(id)),
                // Under way just now, or it has ended.
                409 | 503 => {}
                status => return Err(format!("settling {id} is answered {status} {}", answer.text())),
            }
        }
        Ok(())
    }

    /// An answer of a processor's own paths.
    fn admin(&self, processor: usize, path: &str) -> Result<String, String> {
        let address = self.addresses[processor];
        // HTTP/1.0: an answer that ends with its connection.
        let request = format!("GET {path} HTTP/1.0\r\nX-Rinha-Token: 123\r\n\r\n");
        let (status, body) = match &self.authority {
            Some(authority) => authority.ask(address, &request)?,
            None => {
                let mut connection = Connection::open(&Way::Front(address))?;
                connection.send(request.as_bytes());
                let answer = connection.answer(false)?;
                (answer.status, answer.text())
            }
        };
        if status == 200 { Ok(body) } else { Err(format!("{path} says {status}")) }
    }

    /// Each id is charged once, where Galo says and with its cents, or nowhere and declined; nothing else is charged. Gives what
    /// each processor has charged: how many, and cents.
    fn check_each(&self) -> Result<[(u64, u64); 2], String> {
        let mut charged: BTreeMap<String, Vec<(usize, u64)>> = BTreeMap::new();
        for processor in 0..PROCESSORS.len() {
            for line in self.admin(processor, "/admin/payments")?.lines() {
                let booked = Booked::read(line)?;
                match booked.state.as_deref() {
                    None | Some("paid") => {
                        let of_id = charged.entry(booked.correlation_id).or_default();
                        of_id.push((processor, booked.amount_cents));
                    }
                    Some("declined") => {}
                    Some(state) => return Err(format!("{} is {state} at the end", booked.correlation_id)),
                }
            }
        }
        let mut wrong = Vec::new();
        let mut books = [(0, 0); 2];
        for (id, cents) in &self.accepted {
            let seen = view(&self.galo.straight(0), id)?;
            let found = charged.remove(id).unwrap_or_default();
            let is_declined = (self.profile.declines && id.ends_with(DECLINED)) || self.by_hand.contains(id);
            let place = PROCESSORS.iter().position(|(name, _)| seen.processor.as_deref() == Some(*name));
            let is_right = match found[..] {
                [] => is_declined && seen.state == "declined",
                [(processor, had)] => {
                    books[processor] = (books[processor].0 + 1, books[processor].1 + had);
                    let may_be_there = processor != 0 || !self.profile.declines || !id.ends_with(REFUSED);
                    let is_processed = seen.state == "processed" && place == Some(processor);
                    !is_declined && had == *cents && is_processed && may_be_there
                }
                _ => false,
            };
            if !is_right {
                wrong.push(format!("{id} of {cents} cents is charged {found:?}, and Galo says {seen:?}"));
            }
        }
        wrong.extend(charged.keys().map(|id| format!("{id} was never accepted and is charged")));
        match wrong.len() {
            0 => Ok(books),
            count => Err(format!("{count} differences, first {}", wrong[..count.min(3)].join("; "))),
        }
    }

    /// The summary is what the processors say of themselves.
    fn check_summary(&self, books: &[(u64, u64); 2]) -> Result<(), String> {
        let mut expected = String::new();
        for (index, ((name, _), (count, cents))) in PROCESSORS.iter().zip(books).enumerate() {
            let amount = format!("{}.{:02}", cents / 100, cents % 100);
            let own = self.admin(index, "/admin/payments-summary")?;
            let said = format!(r#"{{"totalAmount":{amount},"totalRequests":{count},"#);
            if !own.starts_with(&said) {
                return Err(format!("{name} says {own} of itself, its payments are {said}"));
            }
            let comma = if index == 0 { "{" } else { "," };
            let side = format!(r#"{comma}"{name}":{{"totalRequests":{count},"totalAmount":{amount}}}"#);
            expected.push_str(&side);
        }
        expected.push('}');
        for gateway in 0..2 {
            let said = self.galo.straight(gateway).ask("GET", "/payments-summary", "")?.text();
            if said != expected {
                return Err(format!("the summary is {said}, the books say {expected}"));
            }
        }
        Ok(())
    }

    /// What was to go wrong went wrong, and the ledger's sums balance.
    fn check_faults(&mut self) -> Result<String, String> {
        let page = metrics(&self.galo.aggregator())?;
        let total = |name: &str| sum(&page, &format!("galo_payments_{name}_total"));
        let [accepted, processed, declined] = ["accepted", "processed", "declined"].map(total);
        if accepted != processed + declined || accepted != self.accepted.len() as u64 {
            return Err(format!("accepted {accepted} is not {processed} processed and {declined} declined"));
        }
        let contradictions = sum(&page, "galo_contradictions_total");
        if contradictions > 0 {
            return Err(format!("{contradictions} contradictions"));
        }
        (0..2).try_for_each(|gateway| self.count_verdicts(gateway))?;
        let verdicts = &self.verdicts;
        let mut wanted = vec!["unknown"];
        wanted.extend(self.profile.pending.then_some("pending"));
        wanted.extend(self.profile.declines.then_some("declined"));
        if let Some(missing) = wanted.iter().find(|verdict| verdicts[**verdict] == 0) {
            return Err(format!("no attempt ended {missing}: that was not tried"));
        }
        let by_hand = self.by_hand.len();
        let mut figures =
            format!("{processed} processed, {declined} declined ({by_hand} by hand); attempts {verdicts:?}");
        for (index, (name, _)) in PROCESSORS.iter().enumerate() {
            let text = self.admin(index, "/admin/statistics")?;
            let it: Statistics = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
            write!(figures, "; {name} {} POSTs, {} again", it.posts, it.replays + it.duplicates)
                .map_err(|error| error.to_string())?;
        }
        Ok(figures)
    }
}

fn processors_toml(profile: &Profile, ports: [u16; 2]) -> String {
    let mut text = "[routing]\nprofile = \"steady\"\n".to_owned();
    for ((name, basis_points), port) in PROCESSORS.into_iter().zip(ports) {
        let own = profile.own.replace("{port}", &port.to_string());
        let scheme = if profile.is_mutual { "https" } else { "http" };
        text.push_str(&format!(
            "\n[[processor]]\nname = \"{name}\"\nprofile = \"{}\"\nurl = \"{scheme}://127.0.0.1:{port}\"\n\
             cost.basis_points = {basis_points}\nconnect_timeout_ms = 500\nattempt_timeout_ms = 1_000\n{own}",
            profile.name
        ));
    }
    text
}

fn processor_flags(profile: &Profile, name: &str, port: u16) -> Vec<String> {
    let mut flags = format!(
        "--profile {} --name {name} --listen 127.0.0.1:{port} --delay-ms 5 --seed {port} --random429 0.01 \
         --close-before-insert 0.04 --close-after-insert 0.04 --hang-after-insert 0.02 --hang-ms 1500",
        profile.name
    );
    if profile.declines {
        flags.push_str(&format!(" --decline ends:{DECLINED}"));
        if name == PROCESSORS[0].0 {
            flags.push_str(&format!(" --refuse ends:{REFUSED}"));
        }
    }
    if profile.pending {
        flags.push_str(&format!(" --later ends:{} --later-ms 400", LATER.iter().collect::<String>()));
    }
    let mut flags: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
    if profile.name != "contest" {
        let client = format!("{CLIENT}:{CREDENTIAL}");
        let credential = if profile.name == "pix" { client } else { CREDENTIAL.to_owned() };
        flags.extend(["--credential".to_owned(), credential]);
    }
    flags
}
