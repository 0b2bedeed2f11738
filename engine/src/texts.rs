//! The texts that belong to a payment: members of its client's POST, and the processor's own name for it.
//!
//! Most payments have none. Those that do have them beside the tables of payments, whose entries stay as small as they are.

use std::sync::Arc;

use galo_wire::journal::NOTE_SIZE;
use galo_wire::record::Part;
use galo_wire::{Attached, Attachment, parts};

use crate::ledger::Entry;
use crate::time::UnixMillis;
use crate::timestamp::{self, TIMESTAMP_TEXT_SIZE};

const DEADLINE_PREFIX: &str = "{\"deadline\":\"";

/// The members of a payment whose client has set a deadline, as they begin: more may follow behind a comma, then a brace.
pub fn deadline_member(deadline: UnixMillis, out: &mut Vec<u8>) {
    out.extend_from_slice(DEADLINE_PREFIX.as_bytes());
    out.extend_from_slice(timestamp::write(deadline, &mut [0; TIMESTAMP_TEXT_SIZE]).as_bytes());
    out.push(b'"');
}

/// See the module's documentation. To copy it copies no text.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Texts {
    /// A JSON object's text, in one form whichever gateway it came to: see `docs/processors.md`.
    pub members: Option<Arc<str>>,
    /// Visible ASCII.
    pub reference: Option<Arc<str>>,
}

impl Texts {
    /// What came before a record.
    #[must_use]
    pub fn of(attached: &Attached) -> Self {
        if attached.is_empty() {
            return Self::default();
        }
        Self { members: attached.members().map(Arc::from), reference: attached.reference().map(Arc::from) }
    }

    /// When no attempt of the payment shall begin any more, ms: its client's deadline, which stands first among the members and in one form,
    /// as [`deadline_member`] writes it.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        let rest = self.members.as_deref()?.strip_prefix(DEADLINE_PREFIX)?;
        let text =
            rest.get(..TIMESTAMP_TEXT_SIZE).filter(|_| rest[TIMESTAMP_TEXT_SIZE..].starts_with('"'))?;
        timestamp::parse(text).ok().map(|deadline| deadline.0)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.members.is_none() && self.reference.is_none()
    }

    /// As they are sent, before the record that they belong to.
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        self.each().flat_map(|(attachment, text)| parts(attachment, text))
    }

    /// As they are written down, before the entry that they belong to.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.each().flat_map(|(attachment, text)| {
            text.as_bytes().chunks(NOTE_SIZE).map(move |bytes| {
                let mut text = [0; NOTE_SIZE];
                text[..bytes.len()].copy_from_slice(bytes);
                let size = u8::try_from(bytes.len()).expect("a part is short");
                Entry::Attached { attachment, size, text }
            })
        })
    }

    fn each(&self) -> impl Iterator<Item = (Attachment, &str)> {
        let members = self.members.as_deref().map(|text| (Attachment::Members, text));
        let reference = self.reference.as_deref().map(|text| (Attachment::Reference, text));
        members.into_iter().chain(reference)
    }
}
