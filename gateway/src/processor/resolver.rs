//! Where names point, asked on one thread for the whole process.
//!
//! `getaddrinfo` may block for seconds, so never on a ring's thread; and a thread for each question would be spawned
//! every few seconds for as long as the process lives. Questions come through a channel and carry the one for their
//! answer: neither side ever waits for a lock of the other. Those for the same name that wait at the same time get
//! one answer. They are asked one after the other: a name server that hangs for one name delays the others, which
//! then keep the addresses that they have.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How old an answer grows before the name is asked for again.
const INTERVAL_MS: u64 = 5_000;

/// Addresses known per name. All of them count as the name's, even if fewer are tried.
const ADDRESSES_LEN_MAX: usize = 64;

/// A way to the thread that asks.
#[derive(Clone, Debug)]
pub(super) struct Resolver {
    questions: Sender<Question>,
    /// How old an answer grows before the name is asked for again, while somebody uses it.
    pub(super) interval: Duration,
}

#[derive(Debug)]
struct Question {
    host: Arc<str>,
    port: u16,
    answer: Sender<Vec<SocketAddr>>,
}

impl Resolver {
    /// The process's own, which asks the system.
    ///
    /// # Errors
    /// No thread can be started; another call tries again.
    pub(super) fn shared() -> io::Result<Self> {
        // Locked when a client begins, and no more.
        static SHARED: Mutex<Option<Resolver>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resolver) = &*shared {
            return Ok(resolver.clone());
        }
        let resolver = Self::start(Duration::from_millis(INTERVAL_MS), look_up)?;
        Ok(shared.insert(resolver).clone())
    }

    /// One of its own, which asks `look_up`; its thread ends with the last clone.
    pub(super) fn start(
        interval: Duration,
        look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> io::Result<Self> {
        let (questions, asked) = mpsc::channel();
        thread::Builder::new().name("resolve".to_owned()).spawn(move || answer(&asked, look_up))?;
        Ok(Self { questions, interval })
    }

    /// Asks for a name's addresses. What comes back ends without an answer when there is none.
    pub(super) fn ask(&self, host: &Arc<str>, port: u16) -> Receiver<Vec<SocketAddr>> {
        let (answer, receiver) = mpsc::channel();
        // A thread that has gone drops the question, and its asker sees that no answer comes.
        drop(self.questions.send(Question { host: Arc::clone(host), port, answer }));
        receiver
    }
}

fn answer(asked: &Receiver<Question>, look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>>) {
    while let Ok(question) = asked.recv() {
        let mut questions: Vec<_> = std::iter::once(question).chain(asked.try_iter()).collect();
        while let Some(Question { host, port, .. }) = questions.first() {
            let (host, port) = (Arc::clone(host), *port);
            let found = look_up(&host, port);
            questions.retain(|question| {
                let is_other = (&question.host, question.port) != (&host, port);
                if let Ok(found) = found.as_ref()
                    && !is_other
                {
                    // An asker that has gone wants no answer.
                    question.answer.send(found.clone()).unwrap_or_default();
                }
                is_other
            });
        }
    }
}

/// Asks the system, which may block for seconds. Both families, in its order.
pub(super) fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.take(ADDRESSES_LEN_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// While one question is on its way, those that come are answered together, each name once.
    #[test]
    fn questions_for_one_name_share_an_answer() {
        let (release, gate) = mpsc::channel::<()>();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let resolver = Resolver::start(Duration::ZERO, {
            let asked = Arc::clone(&asked);
            move |host, port| {
                gate.recv().unwrap();
                asked.lock().unwrap().push(host.to_owned());
                if host == "nowhere" {
                    return Err(io::ErrorKind::NotFound.into());
                }
                Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
            }
        })
        .unwrap();
        let (a, b, nowhere): (Arc<str>, Arc<str>, Arc<str>) = ("a".into(), "b".into(), "nowhere".into());
        let first = resolver.ask(&a, 1);
        release.send(()).unwrap();
        assert_eq!(first.recv().unwrap().len(), 1);
        // The thread may take the next one alone; the rest waits behind it and is taken together.
        let blocked = resolver.ask(&a, 1);
        let rest = [resolver.ask(&b, 1), resolver.ask(&nowhere, 1), resolver.ask(&b, 1), resolver.ask(&b, 2)];
        for _ in 0..8 {
            release.send(()).unwrap();
        }
        let addresses = [0, 2, 3].map(|index: usize| rest[index].recv().unwrap()[0].port());
        assert_eq!((blocked.recv().unwrap().len(), addresses), (1, [1, 1, 2]));
        assert!(rest[1].recv().is_err(), "no answer ends without one");
        drop(release);
        let asked = asked.lock().unwrap();
        assert!(asked.len() <= 6 && asked.iter().filter(|host| *host == "b").count() <= 3, "{asked:?}");
    }
}
