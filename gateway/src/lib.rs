//! Galo's gateway, as a library: what the `galo-gateway` binary is made of.
//!
//! A thin monoio shell around `galo-engine`: it moves bytes, owns buffers and executes the engine's actions. It
//! decides nothing about payments and holds no state that cannot be lost.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod http;
