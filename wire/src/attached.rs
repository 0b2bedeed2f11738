//! What is attached to a payment: texts of variable length, in a protocol of fixed-size records.
//!
//! A text is cut into [`Part`]s, which stand before the record that they belong to, on the same stream and with nothing in between. The
//! receiver gathers them in an [`Attached`], one for each connection, and hands them to that record. Payments without such texts send no part and
//! cost nothing.
//!
//! | record | members | reference |
//! | --- | --- | --- |
//! | `Accept` | yes | |
//! | `Claim`, `Assignment` | yes | yes |
//! | `Completion`, `Discrepancy`, `LookupReply` | | yes |
//!
//! Anything else behind a part, a text that is too long or empty or no UTF-8, ends the connection: a payment must never go on with half of what
//! belongs to it.
//!
//! Codec only; it never panics on what it is given. Bounded: [`MEMBERS_SIZE_MAX`] and [`REFERENCE_SIZE_MAX`] bytes.

use crate::record::{Kind, Message, Part};
use crate::vocabulary::Attachment;

/// The members of a client's POST that go with its payment: a JSON object's text, bytes at most.
pub const MEMBERS_SIZE_MAX: usize = 2 << 10;

/// A processor's own name for a payment, bytes at most.
pub const REFERENCE_SIZE_MAX: usize = 64;

/// The bytes of a text that one [`Part`] takes.
pub const PART_SIZE: usize = 48;

impl Attachment {
    /// The longest text of this kind, bytes.
    #[must_use]
    pub const fn size_max(self) -> usize {
        match self {
            Self::Members => MEMBERS_SIZE_MAX,
            Self::Reference => REFERENCE_SIZE_MAX,
        }
    }

    /// Whether a record of this kind takes it.
    const fn belongs_to(self, kind: Kind) -> bool {
        match kind {
            Kind::Accept => matches!(self, Self::Members),
            Kind::Claim | Kind::Assignment => true,
            Kind::Completion | Kind::Discrepancy | Kind::LookupReply => matches!(self, Self::Reference),
            _ => false,
        }
    }
}

/// Why what came is nothing that a payment could have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AttachedError {
    /// A part without a byte, or with more than it holds.
    #[error("a part of {0} bytes, expected 1 to {PART_SIZE}")]
    PartSize(u8),
    /// Too many parts.
    #[error("{0:?} of more than {max} bytes", max = .0.size_max())]
    TooLong(Attachment),
    /// It is no text.
    #[error("{0:?} that are no UTF-8")]
    NoText(Attachment),
    /// It stands before a record that takes none.
    #[error("{0:?} before a record of kind {1:?}, which takes none")]
    Misplaced(Attachment, Kind),
}

/// What has come of texts, until the record comes that they belong to.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Attached {
    members: Vec<u8>,
    reference: Vec<u8>,
}

impl Attached {
    /// Of records to which nothing belongs.
    pub const NOTHING: Self = Self { members: Vec::new(), reference: Vec::new() };

    /// Takes in the connection's next message: whether it is a record that is to be handled now, with what was gathered. Afterwards
    /// that is to be [cleared](Self::clear).
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn take_in(&mut self, message: &Message) -> Result<bool, AttachedError> {
        if let Message::Part(part) = message {
            let text = part.text.get(..part.size.into()).filter(|text| !text.is_empty());
            self.push(part.attachment, text.ok_or(AttachedError::PartSize(part.size))?)?;
            return Ok(false);
        }
        if !self.is_empty() {
            let kind = message.kind();
            for attachment in Attachment::ALL {
                let text = self.bytes(attachment);
                if !text.is_empty() && !attachment.belongs_to(kind) {
                    return Err(AttachedError::Misplaced(attachment, kind));
                }
                str::from_utf8(text).map_err(|_| AttachedError::NoText(attachment))?;
            }
        }
        Ok(true)
    }

    /// The text goes on.
    ///
    /// # Errors
    /// It would be too long.
    pub fn push(&mut self, attachment: Attachment, text: &[u8]) -> Result<(), AttachedError> {
        let whole = match attachment {
            Attachment::Members => &mut self.members,
            Attachment::Reference => &mut self.reference,
        };
        if whole.len() + text.len() > attachment.size_max() {
            return Err(AttachedError::TooLong(attachment));
        }
        whole.extend_from_slice(text);
        Ok(())
    }

    /// Whether nothing has come.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.members.is_empty() && self.reference.is_empty()
    }

    /// Whether nothing has come of this one.
    #[must_use]
    pub const fn is_without(&self, attachment: Attachment) -> bool {
        self.bytes(attachment).is_empty()
    }

    /// The next record begins anew.
    pub fn clear(&mut self) {
        self.members.clear();
        self.reference.clear();
    }

    const fn bytes(&self, attachment: Attachment) -> &[u8] {
        match attachment {
            Attachment::Members => self.members.as_slice(),
            Attachment::Reference => self.reference.as_slice(),
        }
    }

    /// A text, if there is one.
    #[must_use]
    pub fn text(&self, attachment: Attachment) -> Option<&str> {
        str::from_utf8(self.bytes(attachment)).ok().filter(|text| !text.is_empty())
    }

    /// The members of the client's POST.
    #[must_use]
    pub fn members(&self) -> Option<&str> {
        self.text(Attachment::Members)
    }

    /// The processor's own name for the payment.
    #[must_use]
    pub fn reference(&self) -> Option<&str> {
        self.text(Attachment::Reference)
    }
}

/// A text as it is sent.
///
/// # Panics
/// If it is longer than [`Attachment::size_max`]: whoever keeps it has seen to that.
pub fn parts(attachment: Attachment, text: &str) -> impl Iterator<Item = Part> {
    assert!(text.len() <= attachment.size_max(), "{attachment:?} of {} bytes", text.len());
    text.as_bytes().chunks(PART_SIZE).map(move |bytes| {
        let mut text = [0; PART_SIZE];
        text[..bytes.len()].copy_from_slice(bytes);
        Part { attachment, size: u8::try_from(bytes.len()).expect("a part is short"), text }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Completion, Discrepancy, Ready, Release};
    use crate::vocabulary::{CorrelationId, Outcome, Processor};

    const ID: CorrelationId = CorrelationId([7; 16]);

    fn completion() -> Message {
        let (processor, outcome) = (Processor::N0, Outcome::Processed);
        Completion { sequence: 1, correlation_id: ID, requested_at_ms: 1, processor, outcome, status: 0 }
            .into()
    }

    #[test]
    fn a_text_comes_out_as_it_went_in_whatever_its_size() {
        for size in [1, 47, 48, 49, 96, 97, MEMBERS_SIZE_MAX - 1, MEMBERS_SIZE_MAX] {
            // Characters of two bytes: parts end within some of them.
            let text: String = "aé"
                .chars()
                .cycle()
                .scan(0, |sum, it| {
                    *sum += it.len_utf8();
                    (*sum <= size).then_some(it)
                })
                .collect();
            let text = format!("{text}{}", "b".repeat(size - text.len()));
            let mut attached = Attached::default();
            for part in parts(Attachment::Members, &text) {
                assert_eq!(attached.take_in(&part.into()), Ok(false));
            }
            assert_eq!((attached.members(), attached.reference()), (Some(&*text), None));
        }
        assert_eq!(parts(Attachment::Reference, "").count(), 0);
    }

    #[test]
    fn what_belongs_to_nothing_is_refused() {
        let reference = |text: &str| {
            let mut attached = Attached::default();
            for part in parts(Attachment::Reference, text) {
                assert_eq!(attached.take_in(&part.into()), Ok(false));
            }
            attached
        };
        let mut attached = reference("pi_1");
        assert_eq!(attached.take_in(&completion()), Ok(true));
        assert_eq!(attached.reference(), Some("pi_1"));
        for (record, kind) in [
            (Message::from(Release { correlation_id: ID }), Kind::Release),
            (Ready { held_len_max: 1 }.into(), Kind::Ready),
        ] {
            let misplaced = AttachedError::Misplaced(Attachment::Reference, kind);
            assert_eq!(reference("x").take_in(&record), Err(misplaced));
            assert_eq!(Attached::default().take_in(&record), Ok(true));
        }
        let discrepancy = Discrepancy {
            slot: 1,
            correlation_id: ID,
            processor: Processor::DEFAULT,
            requested_at_ms: 1,
            amount_cents: 1,
            is_new: true,
        };
        assert_eq!(reference("x").take_in(&discrepancy.into()), Ok(true));
        let mut members = Attached::default();
        members.push(Attachment::Members, b"{}").expect("short");
        let misplaced = AttachedError::Misplaced(Attachment::Members, Kind::Completion);
        assert_eq!(members.take_in(&completion()), Err(misplaced));

        let part = |size, text| Message::from(Part { attachment: Attachment::Reference, size, text });
        for size in [0, 49, 255] {
            let refused = Attached::default().take_in(&part(size, [b'a'; PART_SIZE]));
            assert_eq!(refused, Err(AttachedError::PartSize(size)));
        }
        let mut long = reference(&"a".repeat(64));
        assert_eq!(
            long.take_in(&part(1, [b'a'; PART_SIZE])),
            Err(AttachedError::TooLong(Attachment::Reference))
        );
        let mut noise = Attached::default();
        assert_eq!(noise.take_in(&part(1, [0xff; PART_SIZE])), Ok(false));
        assert_eq!(noise.take_in(&completion()), Err(AttachedError::NoText(Attachment::Reference)));
    }
}
