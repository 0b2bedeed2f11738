//! The gateway's side towards one payment processor: it executes attempts and reports what the transport saw.
//!
//! No decisions live here. A [`Client`] takes an [`Attempt`], sends it once, and hands back a
//! [`End`](galo_engine::verdict::End), which the processor's own rules read from its answer, and the engine
//! says what happens next. In particular nothing in this folder ever sends an attempt a second time after one of
//! its bytes may have left.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `client` | [`Client`]: lanes, their idle stack, timeouts, drain and shutdown |
//! | `connection` | one connection: the write, the check that nothing waits unread, the answer |
//! | `stream` | its bytes, plain or under TLS |
//! | `tls` | what TLS needs: authorities, the client's certificate, tickets; what can go wrong with it |
//! | `socket` | keepalive and the like |
//! | `answer` | an answer's bytes to a status, with budgets |
//! | `connector` | addresses, connecting, connections to addresses that are gone |
//! | `resolver` | the thread that asks where names point |
//! | `endpoint` | a processor's URL |
//! | `offline` | the decoders without a socket, for fuzzing |
//! | `token` | the token that requests carry, asked for ahead of time |
//! | `queries` | the two questions: what is stored for an id, and how is your health |

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod answer;
mod client;
mod connection;
mod connector;
mod endpoint;
pub mod offline;
mod queries;
mod resolver;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod token;

pub use client::{Attempt, AttemptEnd, Client, ClientConfig, ClientStats};
pub use endpoint::Endpoint;
pub use queries::HealthError;
pub use socket::SocketOptions;
pub use tls::{Tls, TlsError, TlsOptions, TlsProblem};
