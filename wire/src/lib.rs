//! Every byte that leaves a Galo process: the frames between gateway and aggregator, and the journal on disk.
//!
//! Codec only. This crate decides nothing, reads no clock and does no I/O; it validates what arrives and never panics
//! on it. [`record`] lists the records, [`frame`] batches them, [`journal`]
//! keeps them, [`page`] packs a snapshot's rows, the words they are made of are re-exported here.

mod attached;
pub mod frame;
mod history;
pub mod journal;
pub mod page;
pub mod record;
mod vocabulary;

pub use attached::{Attached, AttachedError, MEMBERS_SIZE_MAX, PART_SIZE, REFERENCE_SIZE_MAX, parts};
pub use frame::{FRAME_BODY_SIZE_MAX, FRAME_HEADER_SIZE, FrameError, FrameWriter, decode_frames};
pub use history::{AttemptState, DECISIONS_LEN_MAX, History, Reason};
pub use record::{Kind, Message, PROTOCOL_VERSION, PastDecision};
pub use vocabulary::{
    Attachment, CORRELATION_ID_TEXT_SIZE, CorrelationId, Outcome, PROCESSORS_LEN_MAX, Processor,
    STATUS_CANCELLED, STATUS_EXPIRED, STATUS_SETTLED, STATUS_TAKEN_BACK, Stage,
};
