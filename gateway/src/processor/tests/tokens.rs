//! A processor that wants a token (OAuth2), and its authorization server: nothing goes out without one, and a 401 has that very one replaced.

use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use super::*;

const UNAUTHORIZED: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

/// The files of a processor's profile; removed in the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("galo-tokens-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn profile(&self, url: &str, token_url: &str, more: &str) -> Arc<Profile> {
        std::fs::write(self.0.join("secret"), "s3cret").unwrap();
        let text = format!(
            "[[processor]]\nname = \"bank\"\nprofile = \"contest\"\nurl = \"{url}\"\n{more}\nauth = {{ kind = \"oauth2\", token_url = \"{token_url}/t\", \
             client_id = \"me\", client_secret_file = \"secret\" }}\n"
        );
        let path = self.0.join("p.toml");
        std::fs::write(&path, text).unwrap();
        Arc::new(Processors::read(Path::new(&path)).unwrap().by_number(0).unwrap().clone())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Gives out `token-0`, `token-1`, …, after `refusals` answers that give none.
fn authority(refusals: usize) -> Server {
    Server::answering(move |number, request, peer| {
        assert!(request.text.starts_with("POST /t HTTP/1.1\r\n"), "{}", request.text);
        if number < refusals {
            return peer.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
        }
        let body = format!(
            r#"{{"access_token":"token-{}","token_type":"Bearer","expires_in":3600}}"#,
            number - refusals
        );
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    })
}

fn token(request: &Request) -> &str {
    let (_, rest) = request.text.split_once("Authorization: Bearer ").unwrap();
    rest.split("\r\n").next().unwrap()
}

fn bench(folder: &Folder, bank: &Server, authority: &Server, more: &str) -> Bench {
    Bench::with(&bank.url(), |config| {
        config.profile = folder.profile(&bank.url(), &authority.url(), more);
        config.token_endpoint = Some(Endpoint::at(&authority.url()));
    })
}

/// Attempts until one ends otherwise than as not sent.
async fn sent(bench: &Bench) -> End {
    for slot in 0.. {
        let end = bench.one(slot).await;
        if end != End::NOT_SENT {
            return end;
        }
        monoio::time::sleep(Duration::from_millis(10)).await;
    }
    unreachable!("it goes on until the test's own bound")
}

#[test]
fn nothing_is_sent_before_there_is_a_token() {
    on_both_drivers(|| async {
        let (folder, authority) = (Folder::new(), authority(1));
        let bank = Server::answering(|_, request, peer| {
            assert_eq!(token(request), "token-0");
            peer.send(ANSWER_200);
        });
        let bench = bench(&folder, &bank, &authority, "");
        assert_eq!(bench.one(0).await, End::NOT_SENT, "nobody was asked yet");
        assert_eq!(sent(&bench).await, answered(200));
        assert_eq!(authority.connections(), 2, "a server that gave none is asked again");
        assert!(bench.client.stats().connects_total >= 3, "its connections are counted");
    });
}

#[test]
fn a_401_has_its_own_token_replaced_and_no_newer_one() {
    on_both_drivers(|| async {
        let (folder, authority) = (Folder::new(), authority(0));
        // Of three attempts with the first token the second hears of its 401 only when another has got through with the next token.
        let (go, wait) = channel();
        let wait: Mutex<Receiver<()>> = Mutex::new(wait);
        let with_first = Arc::new(AtomicUsize::new(0));
        let seen = with_first.clone();
        let bank = Server::answering(move |_, request, peer| match token(request) {
            "token-0" => match seen.fetch_add(1, Ordering::SeqCst) {
                0 => peer.send(ANSWER_200),
                1 => {
                    wait.lock().unwrap().recv().unwrap();
                    peer.send(UNAUTHORIZED);
                }
                _ => peer.send(UNAUTHORIZED),
            },
            "token-1" => peer.send(ANSWER_200),
            other => panic!("{other}: the newer token was dropped"),
        });
        let bench = bench(&folder, &bank, &authority, "");
        assert_eq!(sent(&bench).await, answered(200));
        let before = bench.ends.borrow().len();
        bench.client.start(attempt(1_000));
        until(|| with_first.load(Ordering::SeqCst) == 2).await;
        bench.client.start(attempt(1_001));
        let ended = || bench.ends.borrow().len() - before;
        until(|| ended() == 1).await;
        assert_eq!(bench.ends.borrow()[before].end, answered(401));
        // The next token takes a second: the authority is not asked without pause.
        let through = || bench.ends.borrow()[before + 1..].iter().any(|it| it.end == answered(200));
        for slot in 2_000.. {
            bench.client.start(attempt(slot));
            until(|| bench.client.in_flight() == 1).await;
            if through() {
                break;
            }
            monoio::time::sleep(Duration::from_millis(10)).await;
        }
        go.send(()).unwrap();
        bench.client.drained().await;
        assert_eq!(bench.ends.borrow().last().unwrap().end, answered(401), "the late one");
        assert_eq!(bench.one(3_000).await, answered(200), "the token that came since is still there");
        assert_eq!(authority.connections(), 2);
    });
}

#[test]
fn a_client_in_anothers_place_goes_on_with_its_token() {
    on_both_drivers(|| async {
        let (folder, authority) = (Folder::new(), authority(0));
        let bank = Server::answering(|_, request, peer| {
            assert_eq!(token(request), "token-0");
            peer.send(ANSWER_200);
        });
        let old = bench(&folder, &bank, &authority, "");
        assert_eq!(sent(&old).await, answered(200));
        let new = bench(&folder, &bank, &authority, "cost = { basis_points = 7 }");
        new.client.inherit(&old.client);
        assert_eq!(new.one(0).await, answered(200), "at once");
        let other = bench(&folder, &bank, &authority, "");
        assert_eq!(other.one(0).await, End::NOT_SENT, "without that it has none");
    });
}

#[test]
fn a_client_in_anothers_place_goes_on_with_its_counters() {
    on_both_drivers(|| async {
        let bank = Server::answering(|_, _, peer| peer.send(ANSWER_200));
        let counted = |bench: &Bench| {
            let stats = bench.client.stats();
            (stats.connects_total, stats.connect_failures_total, stats.connections_open)
        };
        let old = Bench::new(&bank.url());
        assert_eq!(old.one(0).await, answered(200));
        let new = Bench::new("http://127.0.0.2:18300");
        new.client.inherit(&old.client);
        assert_eq!(counted(&new), (1, 0, 1), "the old one's connection is still there");
        new.client.bury_predecessor().await;
        assert_eq!(new.one(1).await, End::NOT_SENT);
        assert_eq!(counted(&new), (1, 1, 0));
        let newest = Bench::new(&bank.url());
        newest.client.inherit(&new.client);
        newest.client.bury_predecessor().await;
        assert_eq!(newest.one(2).await, answered(200));
        assert_eq!(counted(&newest), (2, 1, 1), "of all three");
    });
}
