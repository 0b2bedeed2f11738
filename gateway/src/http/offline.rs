//! The front's decoders by themselves, without a socket: what fuzzing and the benchmarks drive.
//!
//! Each function runs the very code that a connection runs, on bytes that are all there. Nothing of a request's way goes through
//! here, so nothing here may decide anything: it carries bytes in and says what was read.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use galo_engine::CorrelationId;
use galo_engine::money::AmountCents;
use galo_engine::time::UnixMillis;
use monoio_http::h1::codec::decoder::RequestDecoder;

use super::connection;
use super::framing::{Framer, Progress};
use super::gate::{Gate, Intake};
use super::payment::PaymentReader;
use super::problem;
use super::query::Range;

/// Reads payments' bodies: an id and an amount, or the refusal's status.
pub fn body_reader() -> impl FnMut(&[u8]) -> Result<(CorrelationId, AmountCents), u16> {
    let mut reader = PaymentReader::new();
    move |body| reader.read(body).map_err(|refusal| refusal.status)
}

/// Reads a summary's query, without its question mark: both bounds, or the refusal's status.
///
/// # Errors
/// The status of the refusal.
pub fn read_range(query: &str) -> Result<(Option<UnixMillis>, Option<UnixMillis>), u16> {
    Range::parse(query).map(|range| (range.from, range.to)).map_err(|refusal| refusal.status)
}

/// A request as the routes would get it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadRequest {
    /// Its bytes on the wire, from the first of the request line to the last of the body.
    pub size: usize,
    /// Whether another request may follow on this connection.
    pub keep_alive: bool,
    /// Its method.
    pub method: String,
    /// Its target.
    pub target: String,
    /// Names in lower case, and values, in no particular order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its body, without chunks' framing.
    pub body: Vec<u8>,
    /// Its body as a payment's is read, without the codec; `None` where the codec is asked.
    pub payment: Option<Vec<u8>>,
}

/// Reads the request at the beginning of `bytes`, which arrive in pieces of `piece_size`; `None` when it is not all there.
///
/// # Errors
/// The status of the refusal.
///
/// # Panics
/// If `piece_size` is 0.
pub fn read_request(bytes: &[u8], piece_size: usize) -> Result<Option<ReadRequest>, u16> {
    let mut framer = Framer::default();
    let mut arrived = 0;
    while arrived < bytes.len() {
        arrived = bytes.len().min(arrived + piece_size);
        match framer.advance(&bytes[..arrived]).map_err(|refusal| refusal.status)? {
            Progress::Incomplete(_) => {}
            Progress::Complete(head, size) => {
                let mut intake = Intake::new();
                intake.restore(bytes[..arrived].to_vec());
                intake.grant(size);
                let intake = Rc::new(RefCell::new(intake));
                let mut codec = RequestDecoder::new(Gate::new(Rc::clone(&intake), ()));
                let mut decode = pin!(connection::decode(&mut codec, &intake, head));
                // All bytes are there, so it never waits.
                let Poll::Ready(decoded) = decode.as_mut().poll(&mut Context::from_waker(Waker::noop()))
                else {
                    unreachable!("reading from memory never waits")
                };
                let (request, body) = decoded.ok_or(problem::BAD_TARGET.status)?;
                let headers = request.headers().iter();
                return Ok(Some(ReadRequest {
                    size,
                    keep_alive: head.keep_alive,
                    method: request.method().to_string(),
                    target: request.uri().to_string(),
                    headers: headers
                        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
                        .collect(),
                    body: body.to_vec(),
                    payment: head.payment(&bytes[..size]).map(<[u8]>::to_vec),
                }));
            }
        }
    }
    Ok(None)
}
