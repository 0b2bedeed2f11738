//! What one processor has processed, by time: exact to the millisecond within a memory budget, coarser before that.
//!
//! Hours hold minutes, minutes hold seconds, seconds hold milliseconds, each with the total of what is below it, and
//! only where something was processed. A range takes whole buckets' totals and looks inside only the two that a bound
//! cuts on each level, so that a query visits the hours of its range and at most 2,240 buckets more (twice 60 minutes,
//! 60 seconds and 1,000 milliseconds), however many payments there were.
//!
//! When the budget is reached, the oldest detail is dropped: milliseconds into their second, then seconds into their
//! minute, minutes into their hour; at last the two oldest hours become one. Totals never change by that, and each
//! level keeps a share of the budget ([`SHARES`]), or years of hours would leave no room for today's milliseconds.
//! What is recorded later for a time without detail goes into the coarse bucket.
//!
//! A coarse bucket belongs to the instant at which it starts: a range that contains that instant counts all of it,
//! any other none. So every payment is at exactly one instant, and sums over adjacent ranges always add up
//! (invariant 6), only not always where the payment really was; [`RangeSum::resolution_ms`] says so.
//!
//! It must never use more than its budget, whatever times it is given: clocks step, and one payment in the year 9999
//! costs a few hundred bytes like any other lonely one. Memory: 16 bytes for each millisecond in which something was
//! processed, plus 48 for its second; at 300 payments a second about 18 bytes a payment, at 10,000 under 2.

use std::ops::ControlFlow;

use crate::time::UnixMillis;

/// The smallest budget that makes sense, in bytes: below it a single second could exceed its level's share.
pub const BYTES_MAX_LEAST: usize = 256 * 1024;

/// The smallest budget that works at all: the hours' share holds two. With so little, time rolls up within seconds, which is
/// what the simulator wants to see.
pub const BYTES_MAX_WORKABLE: usize = 3 * 1024;

/// Each level's share of the budget in sixteenths: milliseconds, seconds, minutes, hours.
pub const SHARES: [usize; LEVELS] = [9, 4, 2, 1];

const LEVELS: usize = 4;
const WIDTHS_MS: [u64; LEVELS] = [1, 1_000, 60_000, 3_600_000];

/// How many buckets of a level fit into one of the next.
const LENGTHS: [usize; LEVELS - 1] = [1_000, 60, 60];

/// What the allocator may add to each allocation: a header, and rounding up to its granularity.
const ALLOCATION_OVERHEAD: usize = 32;

/// The sum of what was processed in a range of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeSum {
    /// Payments.
    pub count: u64,
    /// Their amounts together, in cents.
    pub amount_cents: u64,
    /// 1 if the sum is exact; else the width of the coarsest bucket that a bound of the range cuts, in milliseconds
    /// (`u32::MAX` from 49 days on): that near to a bound, payments may be counted that should not be, or not counted.
    pub resolution_ms: u32,
}

/// A bucket without smaller ones in it, as it stands in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketRow {
    /// Its first millisecond.
    pub start_ms: u64,
    /// Its last.
    pub last_ms: u64,
    /// Payments.
    pub count: u64,
    /// Their sum, cents.
    pub amount_cents: u64,
    /// 0 a millisecond, 1 a second, 2 a minute, 3 an hour or several.
    pub level: u8,
}

/// What was processed in one millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at_ms: u64,
    /// Payments.
    pub count: u64,
    /// Their sum, cents.
    pub amount_cents: u64,
}

/// The time buckets of one processor.
///
/// Not `Clone`: a copied `Vec` has only the room that it fills, and the budget counts room.
#[derive(Debug)]
pub struct Buckets {
    bytes_max: usize,
    total: Total,
    /// In order of time; never longer than the capacity it was made with.
    hours: Vec<Hour>,
    /// Heap bytes of each level's buckets.
    bytes: [usize; LEVELS],
    /// For milliseconds, seconds and minutes: no such bucket starts before this. A hint, so that the oldest is found
    /// without going through all that has been rolled up before.
    oldest_ms: [u64; LEVELS - 1],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    count: u64,
    amount_cents: u64,
}

/// The top level: an hour, or several that became one.
#[derive(Debug)]
struct Hour {
    start_ms: u64,
    /// Inclusive.
    last_ms: u64,
    node: Node<Minute>,
}

type Minute = Node<Second>;
type Second = Node<Millisecond>;

/// A bucket with smaller buckets in it, or without if they have been rolled up.
#[derive(Debug)]
struct Node<C> {
    /// Which one of its parent's: the minute of its hour, the second of its minute.
    index: u16,
    total: Total,
    /// In order of time. Never empty.
    children: Option<Vec<C>>,
}

/// One millisecond.
#[derive(Clone, Copy, Debug)]
struct Millisecond {
    amount_cents: u64,
    /// The processor would need to take four billion payments in one millisecond to overflow it.
    count: u32,
    index: u16,
}

const _: () = assert!(size_of::<Millisecond>() == 16 && size_of::<Second>() == 48 && size_of::<Hour>() == 64);

impl Total {
    fn of(moments: &[Moment]) -> Self {
        let mut sum = Self::default();
        moments.iter().for_each(|moment| {
            sum.add(Self { count: moment.count, amount_cents: moment.amount_cents });
        });
        sum
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.amount_cents += other.amount_cents;
    }
}

impl Buckets {
    /// Empty buckets that keep their heap below `bytes_max`. Allocates the hours' share of it at once.
    ///
    /// # Panics
    /// If `bytes_max` is below [`BYTES_MAX_WORKABLE`].
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        assert!(
            bytes_max >= BYTES_MAX_WORKABLE,
            "a budget of {bytes_max} bytes is below {BYTES_MAX_WORKABLE}"
        );
        let hours_len_max = (bytes_max / 16 * SHARES[3] - ALLOCATION_OVERHEAD) / size_of::<Hour>();
        let hours = Vec::with_capacity(hours_len_max);
        let bytes = [0, 0, 0, heap_bytes(&hours)];
        Self { bytes_max, total: Total::default(), hours, bytes, oldest_ms: [u64::MAX; LEVELS - 1] }
    }

    /// A payment was processed, with `at` as its `requestedAt`.
    pub fn record(&mut self, at: UnixMillis, amount_cents: u64) {
        self.add(at.0, Total { count: 1, amount_cents });
        self.keep_budget();
    }

    /// Visits the buckets that start at `from` or later and have no smaller ones in them, in order of time: together
    /// with their levels they are all that these buckets know.
    pub fn export(
        &self,
        from: UnixMillis,
        mut each: impl FnMut(BucketRow) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let first = self.hours.partition_point(|hour| hour.last_ms < from.0);
        self.hours[first..]
            .iter()
            .try_for_each(|hour| hour.node.export(hour.start_ms, hour.last_ms, from.0, &mut each))
    }

    /// Takes in what [`Self::export`] gave out, in the same order. Returns false, and does nothing, for a row that
    /// no buckets give out.
    pub fn import(&mut self, row: BucketRow) -> bool {
        let BucketRow { start_ms, last_ms, count, amount_cents, level } = row;
        let level = usize::from(level);
        let Some(&width_ms) = WIDTHS_MS.get(level) else { return false };
        let starts_right = start_ms.is_multiple_of(width_ms) && start_ms <= last_ms;
        let ends_right = level == LEVELS - 1 || last_ms == start_ms.saturating_add(width_ms - 1);
        let counts = count > 0 && (level > 0 || u32::try_from(count).is_ok());
        if !starts_right || !ends_right || !counts {
            return false;
        }
        self.add(start_ms, Total { count, amount_cents });
        if level > 0 {
            let hour = self.hour_of(start_ms);
            let hour = &mut self.hours[hour];
            take(&mut self.bytes, hour.node.coarsen(hour.start_ms, start_ms, level));
            if level == LEVELS - 1 {
                hour.last_ms = hour.last_ms.max(last_ms);
            }
        }
        self.keep_budget();
        true
    }

    /// Takes in milliseconds of [`Self::export`]'s, in the same order. Returns false, and has done a part, if one of them is none.
    ///
    /// Each one alone, most of the time would go into finding its hour, minute and second again. The budget is kept after each second.
    pub fn import_moments(&mut self, mut moments: &[Moment]) -> bool {
        while let Some(first) = moments.first() {
            let second_ms = floor(first.at_ms, WIDTHS_MS[1]);
            let of_second = |moment: &Moment| floor(moment.at_ms, WIDTHS_MS[1]) == second_ms;
            let len = moments.iter().position(|moment| !of_second(moment)).unwrap_or(moments.len());
            let (run, rest) = moments.split_at(len);
            if run.iter().any(|moment| moment.count == 0) {
                return false;
            }
            self.add_run(run);
            self.keep_budget();
            moments = rest;
        }
        true
    }

    fn add(&mut self, at_ms: u64, payments: Total) {
        self.add_run(&[Moment { at_ms, count: payments.count, amount_cents: payments.amount_cents }]);
    }

    /// Moments of one second.
    fn add_run(&mut self, run: &[Moment]) {
        let hour = self.hour_of(run[0].at_ms);
        let mut growth = Growth::default();
        let hour = &mut self.hours[hour];
        self.total.add(hour.node.record(hour.start_ms, run, &mut growth));
        for (level, oldest_ms) in self.oldest_ms.iter_mut().enumerate() {
            self.bytes[level] += growth.bytes[level];
            *oldest_ms = (*oldest_ms).min(growth.oldest_ms[level]);
        }
    }

    fn keep_budget(&mut self) {
        while self.bytes() > self.bytes_max {
            self.roll_up();
        }
    }

    /// The sum over `from ..= to`. Zero if `from` is after `to`.
    #[must_use]
    pub fn sum(&self, from: UnixMillis, to: UnixMillis) -> RangeSum {
        let query = self.query(from, to);
        RangeSum {
            count: query.sum.count,
            amount_cents: query.sum.amount_cents,
            resolution_ms: u32::try_from(query.cut_ms.max(1)).unwrap_or(u32::MAX),
        }
    }

    /// What the finest bucket that contains this moment counts: payments, and their sum in cents.
    #[must_use]
    pub fn finest(&self, at: UnixMillis) -> (u64, u64) {
        let RangeSum { resolution_ms, .. } = self.sum(at, at);
        let width_ms = u64::from(resolution_ms);
        // A coarse bucket is counted where it starts. Several hours may be one.
        let start_ms = if width_ms < WIDTHS_MS[LEVELS - 1] {
            floor(at.0, width_ms)
        } else {
            let hour = self.hours.iter().find(|hour| (hour.start_ms..=hour.last_ms).contains(&at.0));
            hour.map_or(at.0, |hour| hour.start_ms)
        };
        let sum = self.sum(UnixMillis(start_ms), UnixMillis(start_ms));
        (sum.count, sum.amount_cents)
    }

    /// The sum over all time. Always exact.
    #[must_use]
    pub const fn total(&self) -> RangeSum {
        RangeSum { count: self.total.count, amount_cents: self.total.amount_cents, resolution_ms: 1 }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.total = Total::default();
        self.hours.clear();
        self.bytes = [0, 0, 0, heap_bytes(&self.hours)];
        self.oldest_ms = [u64::MAX; LEVELS - 1];
    }

    /// What the buckets take of the heap at most, the allocator's own overhead included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.iter().sum()
    }

    fn query(&self, from: UnixMillis, to: UnixMillis) -> Query {
        let mut query = Query { from_ms: from.0, to_ms: to.0, sum: Total::default(), cut_ms: 0, visited: 0 };
        if from <= to {
            let first = self.hours.partition_point(|hour| hour.last_ms < from.0);
            for hour in self.hours[first..].iter().take_while(|hour| hour.start_ms <= to.0) {
                hour.node.sum(hour.start_ms, hour.last_ms, &mut query);
            }
        }
        query
    }

    /// The hour that `at_ms` belongs to, made if there is none.
    fn hour_of(&mut self, at_ms: u64) -> usize {
        let index = self.hours.partition_point(|hour| hour.last_ms < at_ms);
        if self.hours.get(index).is_some_and(|hour| hour.start_ms <= at_ms) {
            return index;
        }
        if self.hours.len() == self.hours.capacity() {
            self.merge_oldest_hours();
            // The merged hour may contain it now.
            return self.hour_of(at_ms);
        }
        let start_ms = floor(at_ms, WIDTHS_MS[3]);
        let last_ms = start_ms.saturating_add(WIDTHS_MS[3] - 1);
        self.hours.insert(index, Hour { start_ms, last_ms, node: Node::new(0, 0) });
        index
    }

    fn merge_oldest_hours(&mut self) {
        let second = self.hours.remove(1);
        let first = &mut self.hours[0];
        take(&mut self.bytes, first.node.bytes());
        take(&mut self.bytes, second.node.bytes());
        first.node.children = None;
        first.last_ms = second.last_ms;
        first.node.total.add(second.node.total);
    }

    /// Drops the oldest detail of the coarsest level that exceeds its share of the budget. There is one while the
    /// whole exceeds it.
    fn roll_up(&mut self) {
        let exceeds = |level: &usize| self.bytes[*level] > self.bytes_max / 16 * SHARES[*level];
        let level =
            (0..LEVELS - 1).rev().find(exceeds).expect("one level exceeds its share if their sum does");
        let since_ms = self.oldest_ms[level];
        let first = self.hours.partition_point(|hour| hour.last_ms < since_ms);
        let mut hours = self.hours[first..].iter_mut();
        let found = hours.find_map(|hour| hour.node.drop_oldest(hour.start_ms, since_ms, level));
        let (start_ms, bytes) = found.expect("a level that takes memory has a bucket");
        take(&mut self.bytes, bytes);
        self.oldest_ms[level] = start_ms;
    }
}

/// What a recorded payment added below the hours.
struct Growth {
    bytes: [usize; LEVELS],
    /// The start of the bucket that holds a new bucket of each level.
    oldest_ms: [u64; LEVELS - 1],
}

impl Default for Growth {
    fn default() -> Self {
        Self { bytes: [0; LEVELS], oldest_ms: [u64::MAX; LEVELS - 1] }
    }
}

/// A range being summed.
struct Query {
    from_ms: u64,
    to_ms: u64,
    sum: Total,
    /// The width of the coarsest bucket cut so far, 0 if none was.
    cut_ms: u64,
    /// Buckets looked at: the query's cost.
    visited: usize,
}

/// What the levels have in common. Times are absolute: a bucket knows only its place in its parent.
trait Bucket: Sized {
    /// Index into [`WIDTHS_MS`].
    const LEVEL: usize;
    /// An empty bucket, with room for somewhat more than `len_hint` buckets in it.
    fn new(index: u16, len_hint: usize) -> Self;
    fn index(&self) -> u16;
    /// How many buckets are in it.
    fn len(&self) -> usize;
    /// Heap bytes of what is in it, by level.
    fn bytes(&self) -> [usize; LEVELS];
    /// Takes in what was processed at moments that are all in this bucket. Returns their sum.
    fn record(&mut self, start_ms: u64, run: &[Moment], growth: &mut Growth) -> Total;
    /// Adds what lies in the range. The caller has seen that the bucket and the range overlap.
    fn sum(&self, start_ms: u64, last_ms: u64, query: &mut Query);
    /// Drops the oldest list of buckets of `level` that a bucket starting at `since_ms` or later holds. Returns that
    /// bucket's start and the bytes that came free.
    fn drop_oldest(&mut self, start_ms: u64, since_ms: u64, level: usize) -> Option<(u64, [usize; LEVELS])>;
    /// See [`Buckets::export`].
    fn export(&self, start_ms: u64, last_ms: u64, from_ms: u64, each: &mut Each<'_>) -> ControlFlow<()>;
    /// Drops what is in the bucket of `level` that contains `at_ms`. Returns the bytes that came free.
    fn coarsen(&mut self, start_ms: u64, at_ms: u64, level: usize) -> [usize; LEVELS];
}

type Each<'a> = dyn FnMut(BucketRow) -> ControlFlow<()> + 'a;

impl Bucket for Millisecond {
    const LEVEL: usize = 0;

    fn new(index: u16, _len_hint: usize) -> Self {
        Self { amount_cents: 0, count: 0, index }
    }

    fn index(&self) -> u16 {
        self.index
    }

    fn len(&self) -> usize {
        0
    }

    fn bytes(&self) -> [usize; LEVELS] {
        [0; LEVELS]
    }

    fn record(&mut self, _start_ms: u64, run: &[Moment], _growth: &mut Growth) -> Total {
        let sum = Total::of(run);
        // A coarse bucket that is taken in may count more; its millisecond is dropped at once.
        self.count += u32::try_from(sum.count).unwrap_or(0);
        self.amount_cents += sum.amount_cents;
        sum
    }

    fn sum(&self, _start_ms: u64, _last_ms: u64, query: &mut Query) {
        query.visited += 1;
        query.sum.add(Total { count: self.count.into(), amount_cents: self.amount_cents });
    }

    fn drop_oldest(
        &mut self,
        _start_ms: u64,
        _since_ms: u64,
        _level: usize,
    ) -> Option<(u64, [usize; LEVELS])> {
        None
    }

    fn export(&self, start_ms: u64, last_ms: u64, _from_ms: u64, each: &mut Each<'_>) -> ControlFlow<()> {
        let (count, amount_cents) = (self.count.into(), self.amount_cents);
        each(BucketRow { start_ms, last_ms, count, amount_cents, level: 0 })
    }

    fn coarsen(&mut self, _start_ms: u64, _at_ms: u64, _level: usize) -> [usize; LEVELS] {
        [0; LEVELS]
    }
}

impl<C: Bucket> Node<C> {
    const CHILD_WIDTH_MS: u64 = WIDTHS_MS[C::LEVEL];
    /// How many buckets fit into this one.
    const LEN_MAX: usize = LENGTHS[C::LEVEL];

    fn child_start_ms(start_ms: u64, child: &C) -> u64 {
        start_ms + u64::from(child.index()) * Self::CHILD_WIDTH_MS
    }

    fn child_last_ms(start_ms: u64, child: &C) -> u64 {
        Self::child_start_ms(start_ms, child).saturating_add(Self::CHILD_WIDTH_MS - 1)
    }
}

impl<C: Bucket> Bucket for Node<C> {
    const LEVEL: usize = C::LEVEL + 1;

    fn new(index: u16, len_hint: usize) -> Self {
        // A quarter more than the second before had: at a steady rate one allocation serves the whole second.
        let capacity = (len_hint + len_hint / 4).min(Self::LEN_MAX);
        Self { index, total: Total::default(), children: Some(Vec::with_capacity(capacity)) }
    }

    fn index(&self) -> u16 {
        self.index
    }

    fn len(&self) -> usize {
        self.children.as_ref().map_or(0, Vec::len)
    }

    fn bytes(&self) -> [usize; LEVELS] {
        let Some(children) = &self.children else { return [0; LEVELS] };
        let mut bytes = [0; LEVELS];
        bytes[C::LEVEL] = heap_bytes(children);
        if C::LEVEL > 0 {
            children.iter().for_each(|child| add(&mut bytes, child.bytes()));
        }
        bytes
    }

    fn record(&mut self, start_ms: u64, mut run: &[Moment], growth: &mut Growth) -> Total {
        let Some(children) = &mut self.children else {
            let sum = Total::of(run);
            self.total.add(sum);
            return sum;
        };
        let mut sum = Total::default();
        while let Some(first) = run.first() {
            // The remainder changes nothing (no bucket has more than 1,000 places) but shows that an index fits.
            let index = ((first.at_ms - start_ms) / Self::CHILD_WIDTH_MS % 1_000) as u16;
            let child_start_ms = start_ms + u64::from(index) * Self::CHILD_WIDTH_MS;
            let child_last_ms = child_start_ms.saturating_add(Self::CHILD_WIDTH_MS - 1);
            let others = |moment: &Moment| !(child_start_ms..=child_last_ms).contains(&moment.at_ms);
            let len = run.iter().position(others).unwrap_or(run.len());
            let place = match children.last() {
                Some(last) if last.index() == index => children.len() - 1,
                Some(last) if last.index() < index => children.len(),
                _ => children.partition_point(|child| child.index() < index),
            };
            if children.get(place).is_none_or(|child| child.index() != index) {
                let bytes_before = heap_bytes(children);
                if children.len() == children.capacity() {
                    let more =
                        (children.len() / 2).clamp(4, Self::LEN_MAX).min(Self::LEN_MAX - children.len());
                    children.reserve_exact(more);
                }
                let len_hint = place.checked_sub(1).map_or(0, |before| children[before].len());
                let child = C::new(index, len_hint);
                add(&mut growth.bytes, child.bytes());
                children.insert(place, child);
                growth.bytes[C::LEVEL] += heap_bytes(children) - bytes_before;
                growth.oldest_ms[C::LEVEL] = start_ms;
            }
            sum.add(children[place].record(child_start_ms, &run[..len], growth));
            run = &run[len..];
        }
        self.total.add(sum);
        sum
    }

    fn sum(&self, start_ms: u64, last_ms: u64, query: &mut Query) {
        query.visited += 1;
        if query.from_ms <= start_ms && last_ms <= query.to_ms {
            query.sum.add(self.total);
        } else if let Some(children) = &self.children {
            let first =
                children.partition_point(|child| Self::child_last_ms(start_ms, child) < query.from_ms);
            for child in &children[first..] {
                let child_start_ms = Self::child_start_ms(start_ms, child);
                if child_start_ms > query.to_ms {
                    break;
                }
                child.sum(child_start_ms, Self::child_last_ms(start_ms, child), query);
            }
        } else {
            query.cut_ms = query.cut_ms.max((last_ms - start_ms).saturating_add(1));
            if query.from_ms <= start_ms {
                query.sum.add(self.total);
            }
        }
    }

    fn drop_oldest(&mut self, start_ms: u64, since_ms: u64, level: usize) -> Option<(u64, [usize; LEVELS])> {
        let bytes = if C::LEVEL == level { self.bytes() } else { [0; LEVELS] };
        let children = self.children.as_mut()?;
        if C::LEVEL == level {
            self.children = None;
            return Some((start_ms, bytes));
        }
        let first = children.partition_point(|child| Self::child_last_ms(start_ms, child) < since_ms);
        children[first..].iter_mut().find_map(|child| {
            let child_start_ms = Self::child_start_ms(start_ms, child);
            child.drop_oldest(child_start_ms, since_ms, level)
        })
    }

    fn export(&self, start_ms: u64, last_ms: u64, from_ms: u64, each: &mut Each<'_>) -> ControlFlow<()> {
        let Some(children) = &self.children else {
            if start_ms < from_ms {
                return ControlFlow::Continue(());
            }
            let Total { count, amount_cents } = self.total;
            let level = u8::try_from(Self::LEVEL).expect("there are four");
            return each(BucketRow { start_ms, last_ms, count, amount_cents, level });
        };
        let first = children.partition_point(|child| Self::child_last_ms(start_ms, child) < from_ms);
        children[first..].iter().try_for_each(|child| {
            let child_start_ms = Self::child_start_ms(start_ms, child);
            child.export(child_start_ms, Self::child_last_ms(start_ms, child), from_ms, each)
        })
    }

    fn coarsen(&mut self, start_ms: u64, at_ms: u64, level: usize) -> [usize; LEVELS] {
        if Self::LEVEL == level {
            let bytes = self.bytes();
            self.children = None;
            return bytes;
        }
        let Some(children) = &mut self.children else { return [0; LEVELS] };
        let place = children.partition_point(|child| Self::child_last_ms(start_ms, child) < at_ms);
        children
            .get_mut(place)
            .map_or([0; LEVELS], |child| child.coarsen(Self::child_start_ms(start_ms, child), at_ms, level))
    }
}

fn add(bytes: &mut [usize; LEVELS], more: [usize; LEVELS]) {
    bytes.iter_mut().zip(more).for_each(|(bytes, more)| *bytes += more);
}

fn take(bytes: &mut [usize; LEVELS], dropped: [usize; LEVELS]) {
    bytes.iter_mut().zip(dropped).for_each(|(bytes, dropped)| *bytes -= dropped);
}

const fn floor(at_ms: u64, width_ms: u64) -> u64 {
    at_ms - at_ms % width_ms
}

fn heap_bytes<T>(list: &Vec<T>) -> usize {
    if list.capacity() == 0 { 0 } else { list.capacity() * size_of::<T>() + ALLOCATION_OVERHEAD }
}

#[cfg(test)]
mod tests;
