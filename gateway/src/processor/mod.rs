//! The gateway's side towards one payment processor: it executes attempts and reports what the transport saw.
//!
//! No decisions live here. A [`Client`] takes an [`Attempt`], sends it once, and hands back a
//! [`Reply`](galo_engine::outcome::Reply); `galo_engine::outcome::classify` says what that means, and the engine
//! says what happens next. In particular nothing in this folder ever sends an attempt a second time after one of
//! its bytes may have left.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `client` | [`Client`]: lanes, their idle stack, timeouts, drain and shutdown |
//! | `connection` | one TCP connection: the write, the check that nothing waits unread, the answer |
//! | `answer` | an answer's bytes to a status, with budgets |
//! | `request` | requests rendered into a reused buffer |
//! | `connector` | addresses, connecting, resolving the name again |
//! | `endpoint` | a processor's URL |
//! | `offline` | the decoders without a socket, for fuzzing |
//! | `queries` | the two questions: what is stored for an id, and how is your health |

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod answer;
mod client;
mod connection;
mod connector;
mod endpoint;
pub mod offline;
mod queries;
mod request;
#[cfg(test)]
mod tests;

pub use client::{Attempt, AttemptEnd, Client, ClientConfig, ClientStats};
pub use endpoint::{Endpoint, EndpointError};
pub use queries::{HealthError, HealthReply, LookupReply};
