//! Setting the processors' stages, each at its time.
//!
//! A thread that sleeps until each moment and then sends one request per changed setting: what it is late by is measured up to
//! the processors' answers and shown with the run. From k6 the same requests wait for their turn among its clients: with 300 of
//! them on two busy cores, twelve stages set by k6 were late by 18 ms in the median and 898 ms at worst, set from here by 81 ms
//! at worst. Must never go on once the load is over (the channel closes), nor pass over a setting that was refused: a run with
//! other processors than the file says is none.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::file::{Stage, State};
use crate::repo::Fallible;
use crate::rinha::Processor;

/// The two processors, and how they were set last.
pub(crate) struct Dials<'a> {
    processors: &'a [Processor],
    known: [Option<State>; 2],
}

impl<'a> Dials<'a> {
    /// The dials of default and fallback, in this order, not touched yet.
    pub(crate) fn new(processors: &'a [Processor]) -> Self {
        Self { processors, known: [None; 2] }
    }

    /// Both healthy, as a schedule begins and as everything left over can be processed.
    pub(crate) fn heal(&mut self) -> Fallible<()> {
        self.set([State::default(); 2])
    }

    fn set(&mut self, states: [State; 2]) -> Fallible<()> {
        for ((processor, state), known) in self.processors.iter().zip(states).zip(&mut self.known) {
            // Until all of them are answered, nothing is known: whoever heals after a failure must send everything.
            for (path, body) in changes(known.take(), state) {
                let path = format!("/admin/configurations/{path}");
                let answer = processor.admin("PUT", &path, &body)?;
                // Faults are our model's own; a processor without them has none to take back.
                let needless = answer.status == 404 && path.ends_with("faults") && state.error_ppm == 0;
                if answer.status != 200 && !needless {
                    return Err(format!(
                        "processor {}: PUT {path} {body} answered {} {}",
                        processor.name,
                        answer.status,
                        answer.text()
                    ));
                }
            }
            *known = Some(state);
        }
        Ok(())
    }

    /// Sets each stage at its time after `begun`, until the last is set or `over` is closed. By how much the latest was late.
    pub(crate) fn follow(
        &mut self,
        stages: &[Stage],
        begun: Instant,
        over: &Receiver<()>,
    ) -> Fallible<Duration> {
        let mut lateness_max = Duration::ZERO;
        for stage in stages {
            let due = begun + Duration::from_millis(stage.at_ms);
            match over.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            }
            self.set(stage.states).map_err(|error| format!("stage at {} ms: {error}", stage.at_ms))?;
            lateness_max = lateness_max.max(due.elapsed());
        }
        Ok(lateness_max)
    }
}

/// The requests that make one state of another: last part of the path, and body.
fn changes(known: Option<State>, state: State) -> Vec<(&'static str, Value)> {
    let mut changes = Vec::new();
    if known.is_none_or(|known| known.delay_ms != state.delay_ms) {
        changes.push(("delay", json!({ "delay": state.delay_ms })));
    }
    if known.is_none_or(|known| known.failing != state.failing) {
        changes.push(("failure", json!({ "failure": state.failing })));
    }
    if known.is_none_or(|known| known.error_ppm != state.error_ppm) {
        changes.push(("faults", json!({ "random500": probability(state.error_ppm) })));
    }
    changes
}

#[allow(clippy::float_arithmetic, reason = "a probability as the processor takes it, no money")]
fn probability(ppm: u64) -> f64 {
    f64::from(u32::try_from(ppm).unwrap_or(u32::MAX)) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    use crate::http::Origin;

    #[test]
    fn only_what_changes_is_sent() {
        let healthy = State::default();
        let slow = State { delay_ms: 100, ..healthy };
        assert_eq!(changes(Some(healthy), healthy), []);
        assert_eq!(changes(Some(healthy), slow), [("delay", json!({ "delay": 100 }))]);
        let failing = State { failing: true, error_ppm: 25_000, ..slow };
        let expected = [("failure", json!({ "failure": true })), ("faults", json!({ "random500": 0.025 }))];
        assert_eq!(changes(Some(slow), failing), expected);
        assert_eq!(changes(None, healthy).len(), 3);
    }

    /// A processor that answers each of `statuses` in turn and returns what it was sent.
    fn processor(statuses: &'static [u16]) -> (Processor, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let mut requests = Vec::new();
            for status in statuses {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = String::new();
                while !request.ends_with('}') {
                    let mut block = [0; 1024];
                    let count = stream.read(&mut block).unwrap();
                    request.push_str(std::str::from_utf8(&block[..count]).unwrap());
                }
                write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").unwrap();
                let path = request.split(' ').nth(1).unwrap();
                let body = request.split("\r\n\r\n").nth(1).unwrap();
                requests.push(format!("{path} {body}"));
            }
            requests
        });
        (Processor::at("default", Origin::local(port)), server)
    }

    #[test]
    fn stages_come_in_order_and_not_before_their_time() {
        let (default, server) = processor(&[200, 200, 404, 200]);
        let processors = [default];
        let mut dials = Dials::new(&processors);
        dials.heal().unwrap();
        let stage =
            Stage { at_ms: 30, states: [State { delay_ms: 7, ..State::default() }, State::default()] };
        let (_running, over) = channel();
        let begun = Instant::now();
        dials.follow(&[stage], begun, &over).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(30));
        let expected = [
            r#"/admin/configurations/delay {"delay":0}"#,
            r#"/admin/configurations/failure {"failure":false}"#,
            r#"/admin/configurations/faults {"random500":0.0}"#,
            r#"/admin/configurations/delay {"delay":7}"#,
        ];
        assert_eq!(server.join().unwrap(), expected);
    }

    #[test]
    fn a_refused_setting_is_an_error() {
        let (default, server) = processor(&[404]);
        let processors = [default];
        let mut dials = Dials::new(&processors);
        dials.known = [Some(State::default()); 2];
        let stage =
            Stage { at_ms: 0, states: [State { error_ppm: 1, ..State::default() }, State::default()] };
        let (_running, over) = channel();
        let error = dials.follow(&[stage], Instant::now(), &over).unwrap_err();
        assert!(
            error.starts_with("stage at 0 ms: processor default: PUT /admin/configurations/faults"),
            "{error}"
        );
        server.join().unwrap();
    }

    #[test]
    fn nothing_is_set_once_the_load_is_over() {
        let (running, over) = channel();
        drop(running);
        let stage = Stage { at_ms: 60_000, states: [State::default(); 2] };
        // No processor listens: a request would be an error.
        let processors = [Processor::at("default", Origin::local(1))];
        Dials::new(&processors).follow(&[stage], Instant::now(), &over).unwrap();
    }
}
