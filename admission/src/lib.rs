//! The admission table: what lets a gateway answer 202 without asking the aggregator.
//!
//! A 202 needs three things to be true: the id is known nowhere, exactly one gateway has it, and both facts outlive any process. The
//! table is memory that the gateways and the aggregator of a host share (a mapped file: what is stored there outlives whoever stored
//! it), in three parts:
//!
//! ```text
//!   known     one word for each id that the ledger has      written by the aggregator alone
//!   claims    one word for each grant that the ledger lacks written by compare-and-swap, by everybody
//!   rings     what the grants say, one ring a gateway thread written by its owner alone, read by the aggregator
//! ```
//!
//! A gateway looks its id up in both, writes what it grants into its ring, claims a cell, **looks again**, and publishes the grant. The
//! aggregator takes published grants into the ledger and the journal whenever it is awake; then their ids are among the known, and
//! their places are free again.
//!
//! | who | does in this order | so that |
//! | --- | --- | --- |
//! | gateway | claim a cell, *fence*, look at the other cells of the bucket and at the known ids | of two that claim one id at the same time at least one sees the other |
//! | aggregator | add an id to the known, *fence*, look at the cells of its bucket | of an accept by socket and a claim at the same time at least one sees the other |
//! | aggregator | close a ring, *fence*, revoke what is claimed there | an owner that stood still finds out before it publishes |
//! | gateway | claim, *fence*, look at its ring's state, publish by compare-and-swap | likewise |
//!
//! Who sees another gives way, and asks the aggregator, which decides one at a time. So there is no tie to break, and no wait.
//!
//! Must never: publish what was revoked; free a cell before its id is among the known; decide anything but whether an id is new.
//! Survives: the death of any process between any two steps; an owner that stands still for hours. A cell whose claim has ended is
//! removed by whoever may; until then its id goes by way of the aggregator.
//!
//! No `unsafe` here: the memory comes in as a slice of atomics ([`Memory`]).

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod claimer;
mod grant;
mod hash;
mod layout;
mod memory;
mod registrar;
mod sync;
mod table;

pub use claimer::{Claimed, Claimer, Step};
pub use grant::{Corrupt, Grant, Published};
pub use layout::{Geometry, RINGS_LEN_MAX};
pub use memory::{Heap, Memory, SharedMemory};
pub use registrar::{Registrar, Reserved, Ring};
pub use table::{Identity, Refused, Table};
