//! What both of Galo's processes need of their surroundings: configuration, clocks, sockets, io_uring, exit.
//!
//! The engine decides and never looks around; the gateway and the aggregator move bytes. What they would both write
//! to be good citizens of a machine is here, once.

pub mod admission;
pub mod allocation;
pub mod arguments;
pub mod clock;
pub mod env;
pub mod exit;
pub mod healthcheck;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod processors;
pub mod socket;
pub mod stop;
pub mod uring;
