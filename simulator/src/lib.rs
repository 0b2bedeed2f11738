//! What Galo is tested against, made by Galo: a model of the payment processors behind it.
//!
//! [`processor`] is the model itself: no socket, no clock, no ambient randomness. Whoever drives it passes the time in
//! and carries its answers out, so the same code serves real HTTP and a deterministic simulation.
//! [`service`] drives the model over HTTP/1.1 as the real processors speak it; the `processor` program is a thin shell
//! around it. [`provider`] is the same for other providers' public APIs. [`cluster`] drives it together with the engine's real code: gateways and aggregator under one virtual
//! clock, from one seed.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod cluster;
pub mod laboratory;
pub mod processor;
pub mod provider;
pub mod service;
