//! What measures Galo from outside: a generator of load, a floor to compare with, and the report.
//!
//! `cargo xtask bench` starts and stops processes and reads what the kernel counted; this crate sends the load ([`load`]), asks for
//! summaries ([`summaries`]), stands in for both gateways where HAProxy alone is measured ([`responder`]), and turns the results of many
//! runs ([`results`]) into tables ([`report`], [`budget`]) and drawings ([`plot`]).
//!
//! Nothing here knows Galo's code: a stopwatch that shares code with the runner proves little.

pub mod budget;
pub mod connection;
pub mod load;
pub mod plot;
pub mod report;
pub mod responder;
pub mod results;
pub mod summaries;
