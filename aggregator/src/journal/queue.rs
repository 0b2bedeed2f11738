//! The order of things: entries, then the answers that rest on them.
//!
//! While one write is under way, entries gather in a batch that the next write takes whole, and answers gather with it. An
//! answer waits for the last batch that had entries when it was made, for it may rest on any of them: a summary shows what was
//! processed a moment ago, a replayed grant stands for somebody else's. If nothing waits to be written, it leaves at once.
//!
//! Must never: let an answer overtake an entry that was decided before it, or another answer of its connection.
//! Bounded by the reader: a connection is not read while more than [`BACKLOG_SIZE_MAX`] waits.

use std::collections::VecDeque;

use galo_engine::coordinator::SessionId;
use galo_engine::ledger::Entry;
use galo_wire::Message;
use galo_wire::journal::{BLOCK_SIZE, Record};

/// Bytes that may wait to be written before gateways are not read any more: 20 ms of entries at a million a second, and small
/// beside the process's memory.
pub const BACKLOG_SIZE_MAX: usize = 1 << 20;

/// Answers, each with the connection that it goes to.
pub type Answers = Vec<(SessionId, Message)>;

/// What is written in one go, and what leaves afterwards.
#[derive(Default)]
pub struct Batch {
    /// The number of its first record.
    pub first_sequence: u64,
    /// Its records.
    pub bytes: Vec<u8>,
    /// It begins a new segment.
    pub rotates: bool,
    answers: Answers,
}

/// See the module's documentation.
pub struct Queue {
    next_sequence: u64,
    /// All but the first begin a new segment.
    waiting: VecDeque<Batch>,
    /// Those of the batch that is being written, while one is.
    under_way: Option<Answers>,
    under_way_size: usize,
    spare: Option<Batch>,
}

impl Queue {
    /// An empty queue; the next record gets this number.
    #[must_use]
    pub fn new(next_sequence: u64) -> Self {
        Self { next_sequence, waiting: VecDeque::new(), under_way: None, under_way_size: 0, spare: None }
    }

    /// The next record's number.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The number of the first record that is not written yet.
    #[must_use]
    pub fn written_sequence(&self) -> u64 {
        self.next_sequence - (self.backlog_size() / BLOCK_SIZE) as u64
    }

    /// Bytes that are not written yet.
    #[must_use]
    pub fn backlog_size(&self) -> usize {
        self.under_way_size + self.waiting.iter().map(|batch| batch.bytes.len()).sum::<usize>()
    }

    /// Answers that wait.
    #[must_use]
    pub fn answers_len(&self) -> usize {
        let waiting = self.waiting.iter().map(|batch| &batch.answers);
        waiting.chain(&self.under_way).map(Vec::len).sum()
    }

    /// Takes in entries and the answers that follow them. What is left in `answers` may leave now.
    pub fn push(&mut self, entries: &mut Vec<Entry>, answers: &mut Answers) {
        if !entries.is_empty() {
            if self.waiting.is_empty() {
                self.begin_batch(false);
            }
            let batch = self.waiting.back_mut().expect("one was begun");
            batch.bytes.reserve(entries.len() * BLOCK_SIZE);
            for entry in entries.drain(..) {
                let record = Record { sequence: self.next_sequence, fact: entry.to_fact() };
                batch.bytes.extend_from_slice(&record.encode());
                self.next_sequence += 1;
            }
        }
        if let Some(last) =
            self.waiting.back_mut().map(|batch| &mut batch.answers).or(self.under_way.as_mut())
        {
            last.append(answers);
        }
    }

    /// From here on entries go to a new segment, whose first number is returned.
    pub fn rotate(&mut self) -> u64 {
        self.begin_batch(true);
        self.next_sequence
    }

    fn begin_batch(&mut self, rotates: bool) {
        let batch = self.spare.take().unwrap_or_default();
        self.waiting.push_back(Batch { first_sequence: self.next_sequence, rotates, ..batch });
    }

    /// The next batch to be written.
    ///
    /// # Panics
    /// If one is under way.
    pub fn take(&mut self) -> Option<Batch> {
        assert!(self.under_way.is_none(), "one write at a time");
        let mut batch = self.waiting.pop_front()?;
        self.under_way = Some(std::mem::take(&mut batch.answers));
        self.under_way_size = batch.bytes.len();
        Some(batch)
    }

    /// The batch that was under way is written: these may leave.
    ///
    /// # Panics
    /// If none was under way.
    pub fn written(&mut self) -> Answers {
        self.under_way_size = 0;
        self.under_way.take().expect("a write was under way")
    }

    /// Gives back a batch's room, and that of its answers, for one to come.
    pub fn recycle(&mut self, mut bytes: Vec<u8>, mut answers: Answers) {
        // A hand-over of every open payment is rare and large; its room is not kept.
        if bytes.capacity() <= BACKLOG_SIZE_MAX {
            bytes.clear();
            answers.clear();
            self.spare = Some(Batch { bytes, answers, ..Batch::default() });
        }
    }

    /// A connection closed; its number may be another's soon, who must not get its answers.
    pub fn forget(&mut self, session: SessionId) {
        let answers = self.waiting.iter_mut().map(|batch| &mut batch.answers);
        for answers in answers.chain(self.under_way.as_mut()) {
            answers.retain(|(to, _)| *to != session);
        }
    }
}

#[cfg(test)]
mod tests {
    use galo_wire::record::{Acknowledgement, PurgeReply};

    use super::*;

    const A: SessionId = SessionId(0);
    const B: SessionId = SessionId(1);

    fn answer(to: SessionId, number: u32) -> (SessionId, Message) {
        (to, PurgeReply { slot: number }.into())
    }

    fn push(queue: &mut Queue, entries: usize, answers: &[(SessionId, Message)]) -> Answers {
        let mut answers = answers.to_vec();
        queue.push(&mut vec![Entry::Purged; entries], &mut answers);
        answers
    }

    fn sequences(batch: &Batch) -> Vec<u64> {
        let (blocks, rest) = batch.bytes.as_chunks::<BLOCK_SIZE>();
        assert!(rest.is_empty());
        blocks.iter().map(|block| Record::decode(block).map(|record| record.sequence).unwrap_or(0)).collect()
    }

    #[test]
    fn an_answer_waits_for_what_was_decided_before_it_and_for_nothing_else() {
        let mut queue = Queue::new(7);
        // Nothing waits: an answer without entries leaves at once.
        assert_eq!(push(&mut queue, 0, &[answer(A, 1)]), [answer(A, 1)]);
        assert!(push(&mut queue, 2, &[answer(A, 2)]).is_empty());
        // It may rest on the entries that wait.
        assert!(push(&mut queue, 0, &[answer(B, 3)]).is_empty());
        assert_eq!(queue.answers_len(), 2);
        let batch = queue.take().expect("entries wait");
        assert_eq!(sequences(&batch), [7, 8]);
        assert_eq!(queue.backlog_size(), 2 * BLOCK_SIZE);
        // It rests on what is being written, and not on what comes later.
        assert!(push(&mut queue, 0, &[answer(A, 4)]).is_empty());
        assert!(push(&mut queue, 1, &[answer(A, 5)]).is_empty());
        assert!(push(&mut queue, 0, &[answer(A, 6)]).is_empty());
        assert_eq!(queue.answers_len(), 5);
        assert_eq!(queue.written(), [answer(A, 2), answer(B, 3), answer(A, 4)]);
        // Between two writes, too, what waits is waited for.
        assert!(push(&mut queue, 0, &[answer(B, 7)]).is_empty());
        assert_eq!(sequences(&queue.take().expect("one more")), [9]);
        assert_eq!(queue.written(), [answer(A, 5), answer(A, 6), answer(B, 7)]);
        assert!(queue.take().is_none());
        assert_eq!((queue.backlog_size(), queue.next_sequence()), (0, 10));
    }

    #[test]
    fn a_rotation_stands_between_what_was_before_and_what_comes_after() {
        let mut queue = Queue::new(1);
        push(&mut queue, 2, &[]);
        assert_eq!(queue.rotate(), 3);
        push(&mut queue, 1, &[]);
        let batch = queue.take().expect("the first");
        assert_eq!((sequences(&batch), batch.rotates), (vec![1, 2], false));
        queue.written();
        let batch = queue.take().expect("the second");
        assert_eq!((sequences(&batch), batch.rotates, batch.first_sequence), (vec![3], true, 3));
        queue.written();
        // Nothing waits: a segment is begun all the same.
        assert_eq!(queue.rotate(), 4);
        let batch = queue.take().expect("an empty one");
        assert_eq!((sequences(&batch), batch.rotates, batch.first_sequence), (vec![], true, 4));
    }

    #[test]
    fn a_closed_connection_gets_nothing_and_neither_does_its_successor() {
        let mut queue = Queue::new(1);
        let acknowledgement = |to| (to, Acknowledgement { sequence: 1 }.into());
        push(&mut queue, 1, &[acknowledgement(A), acknowledgement(B)]);
        let batch = queue.take().expect("the first");
        push(&mut queue, 1, &[acknowledgement(B), acknowledgement(A)]);
        queue.forget(A);
        let answers = queue.written();
        assert_eq!(answers, [acknowledgement(B)]);
        queue.recycle(batch.bytes, answers);
        assert!(queue.take().is_some());
        assert_eq!(queue.written(), [acknowledgement(B)]);
    }
}
