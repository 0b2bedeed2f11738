//! Frames: a header of eight bytes and a batch of records of one kind.
//!
//! ```text
//! offset  size  field
//!      0     4  body size in bytes, little-endian: count x record size
//!      4     1  kind
//!      5     1  zero
//!      6     2  count of records, little-endian, from 1
//!      8     n  the records, back to back
//! ```
//!
//! The header says the body's size although kind and count imply it: a reader that knows neither can still tell a
//! frame that is too large from one that is not all there yet. A stream that breaks the rules once is not read any
//! further; there is no resynchronisation, since a peer that sends one bad frame has a bug.
//!
//! No checksum: a unix socket does not flip bits. The journal, which a disk can damage, has one.

use crate::record::{Kind, Message};

/// The size of a frame's header, in bytes.
pub const FRAME_HEADER_SIZE: usize = 8;

/// The largest body of a frame, in bytes: a batch of 1,400 of the largest records, far beyond what one wake-up
/// gathers, and small beside the buffers of both sides.
pub const FRAME_BODY_SIZE_MAX: usize = 64 * 1024;

/// Why bytes are no frame. The connection that brought them is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// No record kind has this number.
    #[error("unknown record kind {0}")]
    UnknownKind(u8),
    /// The reserved byte is set.
    #[error("reserved header byte is {0}, expected 0")]
    Reserved(u8),
    /// Body size and count do not belong together, or exceed the bound.
    #[error("{count} records of {record_size} bytes do not make a body of {body_size} bytes")]
    Size {
        /// From the header.
        body_size: usize,
        /// From the header.
        count: usize,
        /// Of the header's kind.
        record_size: usize,
    },
    /// A record's bytes are not a value of its type.
    #[error("record {index} of kind {kind:?} is invalid")]
    Record {
        /// The frame's kind.
        kind: Kind,
        /// Its place in the frame, from 0.
        index: usize,
    },
}

/// Collects messages into frames, in order. Consecutive messages of one kind share a frame.
#[derive(Default, Debug)]
pub struct FrameWriter {
    bytes: Vec<u8>,
    /// Where the frame begins that may still grow, and its kind.
    open: Option<(usize, Kind)>,
}

impl FrameWriter {
    /// A writer whose buffer holds `size` bytes before it grows.
    #[must_use]
    pub fn with_capacity(size: usize) -> Self {
        Self { bytes: Vec::with_capacity(size), open: None }
    }

    /// Appends one message.
    pub fn push(&mut self, message: impl Into<Message>) {
        let message = message.into();
        let kind = message.kind();
        let start = match self.open {
            Some((start, open_kind))
                if open_kind == kind
                    && self.bytes.len() - start - FRAME_HEADER_SIZE + kind.record_size()
                        <= FRAME_BODY_SIZE_MAX =>
            {
                start
            }
            _ => {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(&[0, 0, 0, 0, kind as u8, 0, 0, 0]);
                self.open = Some((start, kind));
                start
            }
        };
        message.encode(&mut self.bytes);
        let body_size = self.bytes.len() - start - FRAME_HEADER_SIZE;
        let count = body_size / kind.record_size();
        self.bytes[start..start + 4].copy_from_slice(
            &u32::try_from(body_size).expect("bounded by FRAME_BODY_SIZE_MAX").to_le_bytes(),
        );
        self.bytes[start + 6..start + 8]
            .copy_from_slice(&u16::try_from(count).expect("bounded by FRAME_BODY_SIZE_MAX").to_le_bytes());
    }

    /// Whether nothing waits to be sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes wait to be sent.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Hands out everything collected and goes on with `empty` as its buffer, so that two buffers take turns.
    #[must_use]
    pub fn take(&mut self, mut empty: Vec<u8>) -> Vec<u8> {
        empty.clear();
        self.open = None;
        std::mem::replace(&mut self.bytes, empty)
    }

    /// Forgets everything collected.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.open = None;
    }
}

/// Decodes every whole frame at the start of `bytes`, gives each message to `each` in order, and returns how many
/// bytes were used. What is left is the beginning of a frame that has not arrived whole.
///
/// # Errors
/// The first broken rule; messages of earlier frames, and of earlier records of that frame, were given out.
pub fn decode_frames(bytes: &[u8], mut each: impl FnMut(Message)) -> Result<usize, FrameError> {
    let mut used = 0;
    while let Some((header, rest)) = bytes[used..].split_first_chunk::<FRAME_HEADER_SIZE>() {
        let [size_0, size_1, size_2, size_3, kind, reserved, count_0, count_1] = *header;
        let kind = Kind::from_number(kind).ok_or(FrameError::UnknownKind(kind))?;
        if reserved != 0 {
            return Err(FrameError::Reserved(reserved));
        }
        let body_size = u32::from_le_bytes([size_0, size_1, size_2, size_3]) as usize;
        let count = usize::from(u16::from_le_bytes([count_0, count_1]));
        let record_size = kind.record_size();
        if count == 0 || body_size > FRAME_BODY_SIZE_MAX || body_size != count * record_size {
            return Err(FrameError::Size { body_size, count, record_size });
        }
        let Some(body) = rest.get(..body_size) else { break };
        for (index, record) in body.chunks_exact(record_size).enumerate() {
            each(Message::decode(kind, record).ok_or(FrameError::Record { kind, index })?);
        }
        used += FRAME_HEADER_SIZE + body_size;
    }
    Ok(used)
}
