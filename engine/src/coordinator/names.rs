//! The processors' names, held against those in the journal: a name keeps its number for ever, since the journal knows processors by
//! their numbers alone.

use galo_wire::{Processor, Stage};

use super::Coordinator;
use crate::ledger::{Entry, ProcessorName, processor_name};

/// Why the configured processors do not fit the journal. The text is for the operator.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NamesError {
    /// A number had another name, or a name another number.
    #[error(
        "processor \"{configured}\" has number {number} in the configuration, and in the journal that number is \"{recorded}\"'s; \
         a processor keeps its number for ever: give \"{recorded}\" its number {number} back, and \"{configured}\" one that is free"
    )]
    Renumbered {
        /// In the configuration.
        configured: String,
        /// In both.
        number: usize,
        /// In the journal.
        recorded: String,
    },
    /// The name has another number in the journal.
    #[error(
        "processor \"{name}\" has number {configured} in the configuration and {recorded} in the journal; set number = {recorded}"
    )]
    Moved {
        /// Whose.
        name: String,
        /// In the configuration.
        configured: usize,
        /// In the journal.
        recorded: usize,
    },
    /// Open payments may be with a processor that is not configured.
    #[error(
        "{open_count} open payments may be with processor \"{name}\", number {number}, which is not configured any more; \
         configure it until they are settled"
    )]
    Missing {
        /// Whose.
        name: String,
        /// Its.
        number: usize,
        /// Of payments.
        open_count: usize,
    },
    /// No name of a processor.
    #[error("\"{0}\" is no name of a processor: expected 1 to 32 bytes of ASCII")]
    Invalid(String),
}

/// The names of journals from before names were recorded.
const UNRECORDED: [(Processor, &str); 2] =
    [(Processor::DEFAULT, "default"), (Processor::FALLBACK, "fallback")];

fn text(name: &ProcessorName) -> String {
    String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()
}

impl Coordinator {
    /// Holds the configured processors against the journal's, and has new names written down. To be called once, after recovery.
    ///
    /// # Errors
    /// What does not fit: the process must not start.
    pub fn introduce<'a>(
        &mut self,
        configured: impl IntoIterator<Item = (Processor, &'a str)>,
    ) -> Result<(), NamesError> {
        let configured: Vec<_> = configured.into_iter().collect();
        let has_books = self.ledger.conservation().accepted.count > 0 || self.ledger.was_purged();
        let mut recorded: Vec<(Processor, ProcessorName)> = self.ledger.names().collect();
        if recorded.is_empty() && has_books {
            let named = UNRECORDED.map(|(processor, name)| (processor, processor_name(name)));
            recorded.extend(named.into_iter().filter_map(|(processor, name)| Some((processor, name?))));
        }
        for (processor, name) in &configured {
            let invalid = || NamesError::Invalid((*name).to_owned());
            let padded = processor_name(name).filter(|_| name.is_ascii()).ok_or_else(invalid)?;
            let by_number = recorded.iter().find(|(other, _)| other == processor);
            match by_number.or_else(|| recorded.iter().find(|(_, taken)| *taken == padded)) {
                Some((other, taken)) if other == processor && *taken == padded => {}
                Some((other, taken)) if other == processor => {
                    return Err(NamesError::Renumbered {
                        configured: (*name).to_owned(),
                        number: other.index(),
                        recorded: text(taken),
                    });
                }
                Some((other, _)) => {
                    return Err(NamesError::Moved {
                        name: (*name).to_owned(),
                        configured: processor.index(),
                        recorded: other.index(),
                    });
                }
                None => {}
            }
        }
        for processor in Processor::ALL {
            let is_configured = configured.iter().any(|(other, _)| *other == processor);
            let at = |stage| stage == Stage::at(processor);
            let open_count = self.ledger.open_of(None).filter(|(_, payment)| at(payment.stage)).count();
            if !is_configured && open_count > 0 {
                let name = recorded.iter().find(|(other, _)| *other == processor);
                let name = name.map_or_else(|| "?".to_owned(), |(_, name)| text(name));
                return Err(NamesError::Missing { name, number: processor.index(), open_count });
            }
        }
        let new: Vec<_> = configured
            .iter()
            .filter_map(|(processor, name)| Some((*processor, processor_name(name)?)))
            .chain(recorded)
            .collect();
        for (processor, name) in new {
            if !self.ledger.names().any(|known| known == (processor, name)) {
                self.apply(Entry::Named { processor, name });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::CoordinatorConfig;
    use super::*;
    use crate::ledger::{Ledger, LedgerConfig};
    use crate::router::ProcessorSet;
    use crate::time::{Now, UnixMillis};
    use galo_wire::{CorrelationId, Outcome, PROCESSORS_LEN_MAX, Reason};

    fn coordinator(entries: &[Entry]) -> Coordinator {
        let ledger_config = LedgerConfig {
            open_len_max: 100,
            known_len_max: 100,
            bucket_bytes_max: 1 << 20,
            members_bytes_max: 1 << 20,
            processors: ProcessorSet::PAIR,
            hash_seed: 1,
        };
        let mut ledger = Ledger::new(ledger_config);
        entries.iter().for_each(|entry| ledger.apply(*entry));
        let config = CoordinatorConfig {
            ledger: ledger_config,
            processors_fingerprint: 0,
            health_checked: ProcessorSet::PAIR,
            health_interval_us: [1; PROCESSORS_LEN_MAX],
            claim_grace_us: 0,
            incarnation: 1,
        };
        let now = Now { monotonic_us: 1, unix_ms: UnixMillis(1) };
        Coordinator::recovered(config, ledger, now)
    }

    fn accepted(stage: Stage) -> Entry {
        Entry::Accepted {
            correlation_id: CorrelationId([1; 16]),
            amount_cents: 5,
            stage,
            decided_at_ms: 7,
            in_doubt: false,
            reason: Reason::Cheaper,
        }
    }

    fn named(processor: Processor, name: &str) -> Entry {
        Entry::Named { processor, name: processor_name(name).expect("short") }
    }

    const CONTEST: [(Processor, &str); 2] = UNRECORDED;

    #[test]
    fn names_are_written_down_once() {
        let mut coordinator = coordinator(&[]);
        assert_eq!(coordinator.introduce(CONTEST), Ok(()));
        let written = [named(Processor::N0, "default"), named(Processor::N1, "fallback")];
        assert_eq!(coordinator.entries()[..], written);
        coordinator.entries().clear();
        assert_eq!(coordinator.introduce(CONTEST), Ok(()));
        assert_eq!(coordinator.introduce([CONTEST[0], CONTEST[1], (Processor::N3, "third")]), Ok(()));
        assert_eq!(coordinator.entries()[..], [named(Processor::N3, "third")]);
    }

    #[test]
    fn a_journal_from_before_names_means_the_contests() {
        let old = [accepted(Stage::At1)];
        assert_eq!(coordinator(&old).introduce(CONTEST), Ok(()));
        let refused = coordinator(&old).introduce([(Processor::N0, "stripe"), (Processor::N1, "fallback")]);
        assert_eq!(
            refused,
            Err(NamesError::Renumbered {
                configured: "stripe".to_owned(),
                number: 0,
                recorded: "default".to_owned()
            })
        );
    }

    #[test]
    fn a_name_keeps_its_number() {
        let known = [named(Processor::N0, "a"), named(Processor::N1, "b")];
        let swapped = coordinator(&known).introduce([(Processor::N1, "a"), (Processor::N0, "b")]);
        assert!(matches!(swapped, Err(NamesError::Renumbered { number: 1 | 0, .. })), "{swapped:?}");
        let moved = coordinator(&known).introduce([(Processor::N2, "a")]);
        assert_eq!(moved, Err(NamesError::Moved { name: "a".to_owned(), configured: 2, recorded: 0 }));
        let long = "x".repeat(33);
        assert_eq!(coordinator(&known).introduce([(Processor::N2, &*long)]), Err(NamesError::Invalid(long)));
    }

    #[test]
    fn a_processor_that_may_have_a_payment_stays_configured() {
        let open = [named(Processor::N1, "b"), accepted(Stage::At1)];
        assert_eq!(
            coordinator(&open).introduce([(Processor::N0, "a")]),
            Err(NamesError::Missing { name: "b".to_owned(), number: 1, open_count: 1 })
        );
        let settled = Entry::Resolved {
            correlation_id: CorrelationId([1; 16]),
            processor: Processor::N1,
            requested_at_ms: 7,
            outcome: Outcome::Processed,
            status: 0,
        };
        let ended = [open[0], open[1], settled];
        assert_eq!(coordinator(&ended).introduce([(Processor::N0, "a")]), Ok(()));
    }
}
