//! Summaries, one after the other on one connection, and how long each took from its first byte out to its last byte in.
//!
//! A closed loop, unlike [`crate::load`]: the auditor asks one question at a time, and the question here is what an answer costs, not how
//! many there can be. Any answer but 200 ends it, since half a measurement would look like a whole one.

use std::net::SocketAddr;
use std::time::Instant;

use hdrhistogram::Histogram;
use jiff::Timestamp;

use crate::connection::{Connection, Progress};
use crate::results::Percentiles;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// HAProxy's API.
    pub target: SocketAddr,
    /// Both bounds in ms since 1970; without them, everything.
    pub range_ms: Option<(u64, u64)>,
    /// Bounds drawn anew within the range for each question.
    pub drawn: bool,
    /// How many questions.
    pub count: u32,
    /// Fixes the bounds that are drawn.
    pub seed: u64,
}

/// Asks everything.
///
/// # Errors
/// If the connection breaks, an answer is not 200, or a bound is beyond the year 9999.
pub fn run(plan: &Plan) -> Result<Percentiles, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", plan.target);
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let mut connection = Connection::open(plan.target).map_err(failed)?;
    // One connection and nothing else to do: a read may wait.
    connection.stream().set_nonblocking(false).map_err(failed)?;
    let mut latencies = Histogram::new_with_bounds(1, 60_000_000, 3).map_err(|error| error.to_string())?;
    for number in 0..u64::from(plan.count) {
        let range_ms =
            plan.range_ms.map(
                |(from_ms, to_ms)| {
                    if plan.drawn { draw(&mut random, from_ms, to_ms) } else { (from_ms, to_ms) }
                },
            );
        let request =
            format!("GET /payments-summary{} HTTP/1.1\r\nHost: {}\r\n\r\n", query(range_ms)?, plan.target);
        let begin = Instant::now();
        connection.in_flight = None;
        connection.send(request.as_bytes(), number).map_err(failed)?;
        let progress = connection.receive().map_err(failed)?;
        let elapsed_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        match progress {
            Progress::Status(200) => latencies.saturating_record(elapsed_us),
            other => return Err(format!("{}: {other:?} instead of 200 to a summary", plan.target)),
        }
    }
    Ok(Percentiles::of(&latencies))
}

fn draw(random: &mut fastrand::Rng, from_ms: u64, to_ms: u64) -> (u64, u64) {
    let (one, other) = (random.u64(from_ms..=to_ms), random.u64(from_ms..=to_ms));
    (one.min(other), one.max(other))
}

/// The bounds as ISO 8601, to the millisecond.
fn query(range_ms: Option<(u64, u64)>) -> Result<String, String> {
    let Some((from_ms, to_ms)) = range_ms else { return Ok(String::new()) };
    let text = |ms: u64| {
        let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        time.map(|time| format!("{time:.3}")).ok_or_else(|| format!("{ms} ms since 1970 is beyond year 9999"))
    };
    Ok(format!("?from={}&to={}", text(from_ms)?, text(to_ms)?))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    /// Answers each request of one connection with the next of these, and returns the requests' first lines.
    fn server(answers: &'static [(u64, &'static str)]) -> (SocketAddr, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("any port");
        let address = listener.local_addr().expect("bound");
        let serve = move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut lines =
                BufReader::new(stream.try_clone().expect("a socket")).lines().map_while(Result::ok);
            let mut asked = Vec::new();
            for (pause_ms, answer) in answers {
                asked.push(lines.next().expect("a request"));
                lines.find(String::is_empty).expect("its end");
                std::thread::sleep(Duration::from_millis(*pause_ms));
                stream.write_all(answer.as_bytes()).expect("the client reads");
            }
            asked
        };
        (address, std::thread::spawn(serve))
    }

    fn plan(target: SocketAddr, range_ms: Option<(u64, u64)>, count: u32) -> Plan {
        Plan { target, range_ms, drawn: false, count, seed: 7 }
    }

    const YES: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    const NO: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn each_question_is_timed_until_its_answer() {
        let (target, asked) = server(&[(0, YES), (400, YES), (0, YES)]);
        let found = run(&plan(target, Some((1_752_580_800_000, 1_752_580_800_999)), 3)).expect("answers");
        assert_eq!(found.count, 3);
        assert!(found.max_us >= 400_000 && found.p50_us < 400_000, "{found:?}");
        let line = "GET /payments-summary?from=2025-07-15T12:00:00.000Z&to=2025-07-15T12:00:00.999Z HTTP/1.1";
        assert_eq!(asked.join().expect("it ended"), [line; 3]);
    }

    #[test]
    fn a_refusal_is_no_answer() {
        let (target, _) = server(&[(0, YES), (0, NO)]);
        let error = run(&plan(target, None, 2)).expect_err("503");
        assert!(error.contains("Status(503)"), "{error}");
    }

    #[test]
    fn bounds_are_drawn_within_the_range_and_in_order() {
        let mut random = fastrand::Rng::with_seed(7);
        let drawn: Vec<_> = (0..1_000).map(|_| draw(&mut random, 10, 19)).collect();
        assert!(drawn.iter().all(|(from, to)| 10 <= *from && from <= to && *to <= 19));
        assert!(drawn.contains(&(10, 19)) && drawn.iter().any(|(from, to)| from == to));
    }
}
