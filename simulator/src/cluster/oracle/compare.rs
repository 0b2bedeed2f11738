//! What the oracle holds against the ledger: totals, summaries of any range, look-ups, histories, and at the end everything.

use galo_engine::coordinator::Coordinator;
use galo_engine::ledger::{Conservation, Known, Ledger, LedgerConfig, Tally};
use galo_engine::time::UnixMillis;
use galo_engine::{CorrelationId, History, PROCESSORS_LEN_MAX, Processor};
use galo_wire::record::{LookupReply, Standing, SummaryReply, SummaryTotal};

use super::{Invariant, Oracle, Truth, add, place_of, same_cents, same_time};
use crate::cluster::dice::Dice;
use crate::cluster::history;
use crate::cluster::record::{End, Progress, Record};
use crate::processor::Processor as Model;

impl Oracle {
    /// After each record that the coordinator handled.
    pub fn compare_totals(&mut self, coordinator: &Coordinator, bounds: LedgerConfig) {
        let conservation = coordinator.ledger().conservation();
        let Conservation { accepted, processed, declined, known_before, open, .. } = conservation;
        let books = self.books.clone();
        let ended = processed.iter().chain([&declined, &known_before]);
        let (ended_count, ended_cents) =
            ended.fold((0, 0), |(count, cents), tally| (count + tally.count, cents + tally.amount_cents));
        let open_count = accepted.count - ended_count;
        let open_cents = accepted.amount_cents - ended_cents;
        let holds = accepted == books.accepted
            && processed == books.processed
            && declined == books.declined
            && known_before == books.known_before
            && open == Tally { count: open_count, amount_cents: open_cents };
        self.check(Invariant::Conservation, holds, || {
            format!(
                "{conservation:?}; the entries come to {:?}, {:?} and {:?}",
                books.accepted, books.processed, books.declined
            )
        });
        let (open_count, bucket_bytes) = (open.count, coordinator.ledger().bucket_bytes());
        let is_bounded = open_count <= bounds.open_len_max as u64 && bucket_bytes <= bounds.bucket_bytes_max;
        self.check(Invariant::Bounded, is_bounded, || {
            format!("{open_count} payments are open, the time buckets take {bucket_bytes} bytes: {bounds:?}")
        });
        let (known_len, expected) = (coordinator.ledger().known_len(), self.known.len());
        self.check(Invariant::LastAreKnown, known_len == expected, || {
            format!("{known_len} ids are remembered, expected {expected}")
        });
        if self.purged || self.relapsed_count > 0 {
            // An id that was purged or forgotten and sent again may have been processed under its former life.
            return;
        }
        let contradictions = coordinator.counters().contradictions;
        self.check(Invariant::NoContradiction, contradictions == 0, || {
            "a payment was processed elsewhere than where the ledger has its attempt".to_owned()
        });
    }

    fn sum(&self, processor: Processor, from_ms: u64, to_ms: u64) -> Tally {
        let mut tally = Tally::default();
        let list = &self.processed[processor.index()];
        list.iter()
            .filter(|(at, _)| (from_ms..=to_ms).contains(at))
            .for_each(|(_, cents)| add(&mut tally, *cents));
        tally
    }

    /// Whether a sum may be that of a range: exact, or as wrong as payments within `resolution_ms` of its bounds make it.
    fn may_be(
        &self,
        sum: Tally,
        processor: Processor,
        (from_ms, to_ms): (u64, u64),
        resolution_ms: u32,
    ) -> bool {
        if resolution_ms == 1 {
            return sum == self.sum(processor, from_ms, to_ms);
        }
        // The widest bucket's width does not fit.
        let near_ms = if resolution_ms == u32::MAX { u64::MAX } else { u64::from(resolution_ms) };
        let least = self.sum(processor, from_ms.saturating_add(near_ms), to_ms.saturating_sub(near_ms));
        let most = self.sum(processor, from_ms.saturating_sub(near_ms), to_ms.saturating_add(near_ms));
        (least.count..=most.count).contains(&sum.count)
            && (least.amount_cents..=most.amount_cents).contains(&sum.amount_cents)
    }

    /// Whether the ledger was told that this payment has ended, or nothing is promised of it any more.
    pub fn is_settled(&self, id: CorrelationId) -> bool {
        let truth = place_of(id).and_then(|place| self.truths.get(place)).filter(|truth| truth.id == id);
        truth.is_none_or(|truth| {
            !truth.is_promised()
                || matches!(truth.decided.progress, Progress::Ended(_) | Progress::Forgotten(_))
        })
    }

    /// A summary leaves the aggregator.
    pub fn summarized(&mut self, from_ms: u64, to_ms: u64, totals: &[SummaryTotal], reply: &SummaryReply) {
        let mut answered = [Tally::default(); PROCESSORS_LEN_MAX];
        for total in totals {
            answered[total.processor.index()] =
                Tally { count: total.requests, amount_cents: total.amount_cents };
        }
        let truth = Processor::ALL.map(|processor| self.sum(processor, from_ms, to_ms));
        self.coarse_count += u64::from(reply.resolution_ms > 1);
        let holds = Processor::ALL
            .into_iter()
            .zip(answered)
            .all(|(processor, sum)| self.may_be(sum, processor, (from_ms, to_ms), reply.resolution_ms));
        self.check(Invariant::SummaryIsTrue, holds, || {
            format!("{from_ms}..={to_ms} is answered {totals:?}, {reply:?}, but is {truth:?}")
        });
    }

    /// A bound for a range: near some payment, or far from all.
    pub fn bound_ms(&self, dice: &mut Dice) -> u64 {
        let list = &self.processed[dice.index(self.processors.len() as usize)];
        if list.is_empty() || dice.one_in(10) {
            return dice.pick(&[0, 1, u64::MAX, 1_790_000_000_000]);
        }
        (list[dice.index(list.len())].0 + dice.skewed(5_000)).saturating_sub(dice.skewed(5_000))
    }

    /// Random ranges of the ledger: they add up, and say what was processed.
    pub fn compare_ranges(&mut self, ledger: &Ledger, dice: &mut Dice) {
        let mut bounds = [self.bound_ms(dice), self.bound_ms(dice), self.bound_ms(dice)];
        bounds.sort_unstable();
        let [a, b, c] = bounds;
        let sum = |from, to| ledger.summarize(UnixMillis(from), UnixMillis(to));
        let whole = sum(a, c);
        let first = b.checked_sub(1).filter(|before| *before >= a).map(|before| sum(a, before));
        let second = sum(b, c);
        for processor in Processor::ALL {
            let index = processor.index();
            let first = first.map_or(Tally::default(), |first| first.totals[index]);
            let second = second.totals[index];
            let both = Tally {
                count: first.count + second.count,
                amount_cents: first.amount_cents + second.amount_cents,
            };
            self.check(Invariant::SummariesAddUp, both == whole.totals[index], || {
                format!("S[{a},{b}) + S[{b},{c}] = {both:?} at {processor:?}, but {whole:?}")
            });
            let holds = self.may_be(whole.totals[index], processor, (a, c), whole.resolution_ms);
            let truth = self.sum(processor, a, c);
            self.coarse_count += u64::from(whole.resolution_ms > 1);
            self.check(Invariant::SummaryIsTrue, holds, || {
                format!("S[{a},{c}] at {processor:?} is {whole:?}, but {truth:?} was processed")
            });
        }
    }

    /// A look-up's answer leaves the aggregator.
    pub fn looked_up(&mut self, reply: &LookupReply, history: &History) {
        if reply.standing == Standing::Absent {
            return;
        }
        let Some(place) = self.place(reply.correlation_id) else { return };
        self.compare_history(place, history);
        self.check(Invariant::HistoryIsTrue, history::ends_there(reply, history), || {
            format!("{:?} does not end where the payment is: {reply:?}", history.decisions())
        });
    }

    /// At rest: the same, of each payment that the ledger knows.
    pub fn compare_histories(&mut self, ledger: &Ledger) {
        for place in 0..self.truths.len() {
            let id = self.truths[place].id;
            if ledger.lookup(id) != Known::Absent {
                self.compare_history(place, &ledger.history(id));
            }
        }
    }

    fn compare_history(&mut self, place: usize, history: &History) {
        let story = &self.truths[place].story;
        let flaw = story.flaw(history);
        let what = flaw.map(|flaw| {
            format!("{}: {flaw}: {:?}, but {story:?}", self.truths[place].id, history.decisions())
        });
        self.history_counts[usize::from(history.forgotten)] += 1;
        self.check(Invariant::HistoryIsTrue, flaw.is_none(), || what.unwrap_or_default());
    }

    /// At rest: everything agrees with everything.
    pub fn compare_all(&mut self, ledger: &Ledger, models: &mut [&mut Model], dice: &mut Dice) {
        for place in 0..self.truths.len() {
            let truth = &self.truths[place];
            if !truth.is_promised() {
                continue;
            }
            let Truth { id, accepted_cents, stored, decided, misread, .. } = *truth;
            let known = ledger.lookup(id);
            if misread {
                let is_open = matches!(known, Known::Open(payment) if payment.in_doubt);
                self.check(Invariant::Mirror, is_open, || {
                    format!("{id} is stored as {stored:?}, not as it was sent, and is {known:?}")
                });
                continue;
            }
            if let Some(cents) = accepted_cents {
                let found: Vec<_> = stored.iter().flatten().collect();
                let declined = matches!(
                    decided.progress,
                    Progress::Ended(End::Declined { .. }) | Progress::Forgotten(End::Declined { .. })
                );
                self.check(Invariant::NothingLost, declined || !found.is_empty(), || {
                    format!("{id} was answered 2xx, the ledger has {known:?}, no processor has it")
                });
                self.check(Invariant::Mirror, found.iter().all(|found| same_cents(**found, cents)), || {
                    format!("{id} was answered 2xx for {cents} cents and is stored as {found:?}")
                });
            }
            self.check(Invariant::NothingTwice, stored.iter().flatten().count() <= 1, || {
                format!("{id} is stored twice: {stored:?}")
            });
            // Forgotten: what the ledger had counted is what the processors have.
            let known = match (known, decided) {
                (Known::Absent, Record { amount_cents, progress: Progress::Forgotten(end) }) => {
                    end.known(amount_cents)
                }
                (known, _) => known,
            };
            let agrees = match (known, stored) {
                (Known::Absent | Known::Declined { .. }, stored) => stored.iter().all(Option::is_none),
                (Known::Processed { amount_cents, requested_at_ms, processor }, _) => {
                    self.truths[place].stored_elsewhere(processor).is_none()
                        && stored[processor.index()].is_some_and(|stored| {
                            same_cents(stored, amount_cents) && same_time(stored, requested_at_ms)
                        })
                }
                (Known::Open(_), _) => false,
            };
            self.check(Invariant::Mirror, agrees, || {
                format!("{id}: ledger {known:?}, processors {stored:?}")
            });
        }
        for _ in 0..8 {
            self.compare_ranges(ledger, dice);
            if self.processors_differ {
                continue;
            }
            let (a, b) = (self.bound_ms(dice), self.bound_ms(dice));
            let (from, to) = (a.min(b), a.max(b));
            let summary = ledger.summarize(UnixMillis(from), UnixMillis(to));
            let ours = summary.totals;
            if summary.resolution_ms > 1 {
                continue;
            }
            let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
            let now_us = self.now_us;
            for (ours, model) in ours.into_iter().zip(models.iter_mut()) {
                let theirs = model.summarize(now_us, Some(signed(from)), Some(signed(to)));
                let holds =
                    theirs.requests == ours.count && theirs.amount_cents == i128::from(ours.amount_cents);
                self.check(Invariant::Mirror, holds, || {
                    format!("{from}..={to}: we say {ours:?}, the processor {theirs:?}")
                });
            }
        }
    }

    /// Two ledgers are the same, id by id.
    pub fn compare_replay(&mut self, ledger: &Ledger, replayed: &Ledger) {
        let ownerless = |known| match known {
            Known::Open(payment) => Known::Open(galo_engine::ledger::OpenPayment { owner: None, ..payment }),
            Known::Absent | Known::Processed { .. } | Known::Declined { .. } => known,
        };
        let (ours, theirs) = (ledger.conservation(), replayed.conservation());
        self.check(Invariant::ReplayEquals, ours == theirs, || format!("{ours:?}, replayed {theirs:?}"));
        for place in 0..self.truths.len() {
            let id = self.truths[place].id;
            let (ours, theirs) = (ownerless(ledger.lookup(id)), ownerless(replayed.lookup(id)));
            self.check(Invariant::ReplayEquals, ours == theirs, || {
                format!("{id}: {ours:?}, replayed {theirs:?}")
            });
            // A snapshot takes the beginning away, or all of it; what is said to be whole is what it was.
            let (ours, theirs) = (ledger.history(id), replayed.history(id));
            let agree = theirs.forgotten || theirs == ours;
            self.check(Invariant::ReplayEquals, agree, || format!("{id}: {ours:?}, replayed {theirs:?}"));
        }
    }
}
