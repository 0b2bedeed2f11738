//! Where the table lies: a mapped file, or the heap in tests and in the simulator.

use std::fmt;
use std::sync::Arc;

use crate::sync::AtomicU64;

/// Words that several processes share.
pub trait Memory: Send + Sync {
    /// All of them. The same words, at the same place, each time.
    fn words(&self) -> &[AtomicU64];
}

/// Shared by whoever has the table open in this process.
pub type SharedMemory = Arc<dyn Memory>;

/// Memory of this process alone.
pub struct Heap(Box<[AtomicU64]>);

impl Heap {
    /// So many words, all zero.
    #[must_use]
    pub fn new(words_len: usize) -> Self {
        Self((0..words_len).map(|_| AtomicU64::new(0)).collect())
    }

    /// Likewise, to be shared.
    #[must_use]
    pub fn shared(words_len: usize) -> SharedMemory {
        Arc::new(Self::new(words_len))
    }
}

impl Memory for Heap {
    fn words(&self) -> &[AtomicU64] {
        &self.0
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} words", self.0.len())
    }
}
