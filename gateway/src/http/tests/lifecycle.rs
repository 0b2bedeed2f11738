//! Connections over time: reuse, pipelining, deadlines, bounds, and leaving.

use std::time::{Duration, Instant};

use super::*;

#[test]
fn a_connection_serves_a_thousand_requests() {
    for driver in drivers() {
        let front = Front::start(driver);
        let mut client = front.connect();
        for number in 0..1_000 {
            client.request("POST", "/payments", &payment(&id(number), "19.90"));
            let reply = client.reply();
            assert_eq!((reply.status, reply.header("connection")), (202, None));
        }
        let payments = front.payments();
        assert_eq!(payments.len(), 1_000);
        assert!(payments.iter().enumerate().all(|(number, payment)| *payment == (id(number), 1990)));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    for driver in drivers() {
        let front = Front::start(driver);
        let mut client = front.connect();
        let mut requests = String::new();
        for number in 0..300 {
            requests += &client::request("POST", "/payments", &payment(&id(number), "19.90"));
            requests += &client::request("GET", &format!("/payments/{}", id(number)), "");
            requests += &client::request("GET", "/nowhere", "");
        }
        // In pieces that have nothing to do with where requests end.
        for piece in requests.as_bytes().chunks(1_237) {
            client.send(piece);
        }
        for number in 0..300 {
            assert_eq!(client.reply().status, 202);
            assert!(client.reply().body.contains(&id(number)));
            client.reply().is_problem(404, "not-found");
        }
        client.send(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.reply().header("connection"), Some("close"));
        client.ends();
    }
}

#[test]
fn versions_decide_whether_a_connection_stays() {
    for driver in drivers() {
        let front = Front::start(driver);
        let mut client = front.connect();
        client.send(b"GET /health HTTP/1.0\r\n\r\n");
        assert_eq!(client.reply().status, 200);
        client.ends();
        let mut client = front.connect();
        for _ in 0..2 {
            client.send(b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
            assert_eq!(client.reply().header("connection"), Some("keep-alive"));
        }
        client.send(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(client.reply().header("connection"), Some("close"));
        client.ends();
    }
}

#[test]
fn a_client_that_waits_for_100_gets_it_before_its_body() {
    for driver in drivers() {
        let front = Front::start(driver);
        let mut client = front.connect();
        let body = payment(ID, "19.90");
        let head = format!(
            "POST /payments HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.send(head.as_bytes());
        assert_eq!(client.reply().status, 100);
        client.drip(body.as_bytes());
        assert_eq!(client.reply().status, 202);
        // With the body there, nobody waits for a 100.
        client.send(format!("{head}{body}").as_bytes());
        assert_eq!(client.reply().status, 202);
        client.send(
            b"POST /payments HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 99999\r\n\r\n",
        );
        client.reply().is_problem(413, "content-too-large");
        client.ends();
    }
}

fn quick() -> HttpConfig {
    HttpConfig { request_timeout_ms: 200, idle_timeout_ms: 800, ..HttpConfig::default() }
}

#[test]
fn a_request_that_does_not_get_whole_in_time_gets_408() {
    for driver in drivers() {
        let front = Front::start_with(driver, quick(), Script::default());
        for start in [
            "G",
            "\r",
            "GET /health HTTP/1.1\r\nHost: a\r\n",
            "POST /payments HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n1234",
        ] {
            // Before it connects, which is when the server's time begins.
            let started = Instant::now();
            let mut client = front.connect();
            client.send(start.as_bytes());
            let reply = client.reply();
            reply.is_problem(408, "request-timeout");
            assert!(started.elapsed() >= Duration::from_millis(200), "never early");
            client.ends();
        }
        // A byte now and then does not buy more time. (The pause is the slow client's pace.)
        let mut client = front.connect();
        let started = Instant::now();
        while client.try_send(b"a") {
            assert!(started.elapsed() < Duration::from_secs(5), "the deadline moved with each byte");
            std::thread::sleep(Duration::from_millis(20));
        }
        client.reply().is_problem(408, "request-timeout");
        front.is_well();
    }
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    for driver in drivers() {
        let front = Front::start_with(driver, quick(), Script::default());
        let mut fresh = front.connect();
        let mut used = front.connect();
        let started = Instant::now();
        used.request("GET", "/health", "");
        assert_eq!(used.reply().status, 200);
        fresh.ends();
        used.ends();
        assert!(started.elapsed() >= Duration::from_millis(800), "never early");
    }
}

#[test]
fn a_client_that_never_reads_is_cut_off() {
    for driver in drivers() {
        let mut front = Front::start_with(driver, quick(), Script::default());
        let mut client = front.connect();
        // 20 KB of metrics each: more than the socket's buffers hold, so the server's write cannot end.
        let requests = client::request("GET", "/metrics", "").repeat(200);
        client.try_send(requests.as_bytes());
        front.stop();
        front.join();
        drop(client);
    }
}

#[test]
fn beyond_the_bound_a_connection_is_turned_away() {
    for driver in drivers() {
        let config = HttpConfig { connections_max: 2, ..HttpConfig::default() };
        let front = Front::start_with(driver, config, Script::default());
        let (mut first, mut second) = (front.connect(), front.connect());
        for client in [&mut first, &mut second] {
            client.request("GET", "/health", "");
            assert_eq!(client.reply().status, 200);
        }
        let mut third = front.connect();
        let reply = third.reply();
        reply.is_problem(503, "too-many-connections");
        assert_eq!(reply.header("connection"), Some("close"));
        third.ends();
        first.send(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(first.reply().status, 200);
        first.ends();
        front.is_well();
    }
}

#[test]
fn a_stop_lets_the_busy_finish_and_the_idle_go() {
    for driver in drivers() {
        let mut front = Front::start(driver);
        let mut idle = front.connect();
        idle.request("GET", "/health", "");
        assert_eq!(idle.reply().status, 200);
        let mut busy = front.connect();
        busy.request("POST", "/payments", &payment(ID, "0.04"));
        let mut half = front.connect();
        half.send(b"POST /payments HTTP/1.1\r\nHost: a\r\n");
        let mut witness = front.connect();
        // The service has the held payment once it is recorded; an answer on a later connection says that the half
        // request was read too.
        while front.payments().is_empty() {
            std::thread::yield_now();
        }
        witness.request("GET", "/health", "");
        assert_eq!(witness.reply().status, 200);
        front.stop();
        idle.ends();
        witness.ends();
        let body = payment(&id(7), "19.90");
        half.send(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        let reply = half.reply();
        assert_eq!((reply.status, reply.header("connection")), (202, Some("close")));
        half.ends();
        assert!(!front.thread.as_ref().unwrap().is_finished(), "one is still busy");
        front.release();
        let reply = busy.reply();
        assert_eq!((reply.status, reply.header("connection")), (202, Some("close")));
        busy.ends();
        front.join();
        assert!(StdStream::connect(&front.path).is_err(), "nobody listens any more");
    }
}

#[test]
fn a_client_that_leaves_while_it_is_served_hurts_nobody() {
    for driver in drivers() {
        let mut front = Front::start(driver);
        for number in 0..50 {
            front.connect().request("POST", "/payments", &payment(&id(number), "0.04"));
        }
        while front.payments().len() < 50 {
            std::thread::yield_now();
        }
        front.release();
        front.is_well();
    }
}

#[test]
fn two_hundred_clients_at_once_each_get_their_own_answers() {
    for driver in drivers() {
        let front = Front::start(driver);
        let mut clients: Vec<_> = (0..200).map(|_| front.connect()).collect();
        for round in 0..5 {
            for (number, client) in clients.iter_mut().enumerate() {
                client.request("POST", "/payments", &payment(&id(round * 1_000 + number), "19.90"));
                client.request("GET", &format!("/payments/{}", id(round * 1_000 + number)), "");
            }
            for (number, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.reply().status, 202);
                assert!(client.reply().body.contains(&id(round * 1_000 + number)));
            }
        }
        assert_eq!(front.payments().len(), 1_000);
    }
}
