//! A connection between a gateway and the aggregator: a stream of bytes each way, in order, never corrupted.
//!
//! What was written arrives late, in parts, or (once the connection is cut or its writer died) not at all, but never
//! with a gap: only a suffix can be lost. Each side learns of the end in its own time; until then it writes into the
//! void, and a gateway may have a new connection before the aggregator has read the old one to its end.

use std::collections::VecDeque;

use galo_engine::coordinator::SessionId;
use galo_wire::Attached;

use super::dice::Dice;

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The gateway's.
    Gateway = 0,
    /// The aggregator's.
    Aggregator = 1,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Self::Gateway => Self::Aggregator,
            Self::Aggregator => Self::Gateway,
        }
    }
}

/// What a reader gets.
#[derive(Debug)]
pub enum Chunk {
    /// Some bytes.
    Bytes(Vec<u8>),
    /// The end of the stream.
    End,
}

/// One direction: what is on its way.
#[derive(Default)]
struct Pipe {
    chunks: VecDeque<Chunk>,
    /// Nothing written from now on arrives.
    ended: bool,
}

/// See the module's documentation.
pub struct Connection {
    /// Whose.
    pub gateway: usize,
    /// By [`Side`]: the end has not been closed by its process.
    pub open: [bool; 2],
    /// What the aggregator knows it as.
    pub session: Option<SessionId>,
    /// Bytes that arrived and are no whole frame yet, by the [`Side`] that reads them.
    pub inbox: [Vec<u8>; 2],
    /// What belongs to the record that comes next, likewise.
    pub attached: [Attached; 2],
    /// By the side that writes.
    pipes: [Pipe; 2],
}

impl Connection {
    /// Both ends open, nothing said.
    pub fn new(gateway: usize) -> Self {
        let (inbox, attached, pipes) = Default::default();
        Self { gateway, open: [true; 2], session: None, inbox, attached, pipes }
    }

    /// `from` writes. Says whether it is on its way: one delivery is then to be planned.
    pub fn write(&mut self, from: Side, bytes: Vec<u8>) -> bool {
        let pipe = &mut self.pipes[from as usize];
        if pipe.ended {
            return false;
        }
        pipe.chunks.push_back(Chunk::Bytes(bytes));
        true
    }

    /// `from` will write no more; of what is on its way any suffix may be lost if `lossy`. Says whether the end is on
    /// its way: one delivery is then to be planned.
    pub fn end(&mut self, from: Side, lossy: bool, dice: &mut Dice) -> bool {
        let pipe = &mut self.pipes[from as usize];
        if pipe.ended {
            return false;
        }
        if lossy && dice.one_in(2) {
            let total: usize = pipe.chunks.iter().map(size).sum();
            let mut kept = dice.index(total + 1);
            for chunk in &mut pipe.chunks {
                if let Chunk::Bytes(bytes) = chunk {
                    bytes.truncate(kept);
                    kept -= bytes.len();
                }
            }
        }
        pipe.ended = true;
        pipe.chunks.push_back(Chunk::End);
        true
    }

    /// What arrives at `to` now. Says whether there is more of it: one more delivery is then to be planned.
    pub fn deliver(&mut self, to: Side, split: bool, dice: &mut Dice) -> (Option<Chunk>, bool) {
        let chunks = &mut self.pipes[to.other() as usize].chunks;
        if split
            && let Some(Chunk::Bytes(bytes)) = chunks.front_mut()
            && bytes.len() > 1
        {
            let rest = bytes.split_off(dice.index(bytes.len() - 1) + 1);
            let first = chunks.pop_front();
            chunks.push_front(Chunk::Bytes(rest));
            return (first, true);
        }
        (chunks.pop_front(), false)
    }
}

fn size(chunk: &Chunk) -> usize {
    match chunk {
        Chunk::Bytes(bytes) => bytes.len(),
        Chunk::End => 0,
    }
}
