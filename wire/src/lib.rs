//! Every byte that leaves a Galo process for another: the frames between gateway and aggregator.
//!
//! Codec only. This crate decides nothing, reads no clock and does no I/O.

mod vocabulary;

pub use vocabulary::{CORRELATION_ID_TEXT_SIZE, CorrelationId, Outcome, Processor, Stage};
