//! Galo's gateway, as a library: what the `galo-gateway` binary is made of.
//!
//! A thin monoio shell around `galo-engine`: it moves bytes, owns buffers and executes the engine's actions. It
//! decides nothing about payments and holds no state that cannot be lost.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`http`] | clients' side: requests in, answers out |
//! | [`core`](mod@core) | one thread's dispatcher, and the execution of what it decides |
//! | [`link`] | the connection to the aggregator |
//! | [`processor`] | the connections to one payment processor |
//! | [`driver`] | io_uring or epoll, and which flags of it |
//! | [`metrics`] | what `/metrics` says, over all threads |
//! | [`pace`] | rests of a busy thread, so that one wake-up serves many |
//! | [`beat`] | when a thread attends to its processors |
//! | [`config`] | the environment, read once |
//! | [`wake`], [`probe`] | waiting within one thread, also for all that has come |

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod admission;
pub mod beat;
pub mod config;
pub mod core;
pub mod driver;
pub mod http;
pub mod link;
pub mod metrics;
pub mod pace;
pub mod probe;
pub mod processor;
pub mod reload;
pub mod wake;
