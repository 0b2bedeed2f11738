//! The buckets against a plain list, within the budget and beyond it.

use proptest::prelude::*;

use super::*;
use crate::random::Random;

const HOUR_MS: u64 = 3_600_000;
/// 2025-07-15T12:00:00Z.
const NOON_MS: u64 = 1_752_580_800_000;

fn sum(buckets: &Buckets, from_ms: u64, to_ms: u64) -> (u64, u64, u32) {
    let sum = buckets.sum(UnixMillis(from_ms), UnixMillis(to_ms));
    (sum.count, sum.amount_cents, sum.resolution_ms)
}

/// The heap that the buckets really hold, counted from nothing.
fn counted_bytes(buckets: &Buckets) -> [usize; LEVELS] {
    let mut bytes = [0, 0, 0, heap_bytes(&buckets.hours)];
    buckets.hours.iter().for_each(|hour| add(&mut bytes, hour.node.bytes()));
    bytes
}

fn check_structure(buckets: &Buckets) {
    assert_eq!(buckets.bytes, counted_bytes(buckets));
    assert!(buckets.bytes() <= buckets.bytes_max);
    for pair in buckets.hours.windows(2) {
        assert!(pair[0].last_ms < pair[1].start_ms);
    }
    for hour in &buckets.hours {
        let Some(minutes) = &hour.node.children else { continue };
        assert!(hour.start_ms >= buckets.oldest_ms[2], "the oldest detail would be overlooked");
        assert!(minutes.is_sorted_by(|a, b| a.index < b.index) && !minutes.is_empty());
        assert_eq!(hour.node.total.count, minutes.iter().map(|minute| minute.total.count).sum::<u64>());
        for minute in minutes {
            let Some(seconds) = &minute.children else { continue };
            let minute_ms = hour.start_ms + u64::from(minute.index) * 60_000;
            assert!(minute_ms >= buckets.oldest_ms[1], "the oldest detail would be overlooked");
            assert!(seconds.is_sorted_by(|a, b| a.index < b.index) && !seconds.is_empty());
            assert_eq!(minute.total.count, seconds.iter().map(|second| second.total.count).sum::<u64>());
            for second in seconds {
                let Some(instants) = &second.children else { continue };
                let second_ms = minute_ms + u64::from(second.index) * 1_000;
                assert!(second_ms >= buckets.oldest_ms[0], "the oldest detail would be overlooked");
                assert!(instants.is_sorted_by(|a, b| a.index < b.index) && !instants.is_empty());
                let count: u64 = instants.iter().map(|instant| u64::from(instant.count)).sum();
                assert_eq!(second.total.count, count);
            }
        }
    }
}

/// Rolls up what the budget has not asked for. False if that level has no detail.
fn drop_oldest(buckets: &mut Buckets, level: usize) -> bool {
    let mut hours = buckets.hours.iter_mut();
    let dropped = hours.find_map(|hour| hour.node.drop_oldest(hour.start_ms, 0, level));
    dropped.map(|(_, bytes)| take(&mut buckets.bytes, bytes)).is_some()
}

#[test]
fn bounds_are_inclusive_and_exact_to_the_millisecond() {
    let mut buckets = Buckets::new(BYTES_MAX_LEAST);
    for (offset_ms, cents) in
        [(0, 1), (1, 10), (999, 100), (1_000, 1_000), (59_999, 10_000), (HOUR_MS, 100_000)]
    {
        buckets.record(UnixMillis(NOON_MS + offset_ms), cents);
    }
    assert_eq!(sum(&buckets, NOON_MS, NOON_MS), (1, 1, 1));
    assert_eq!(sum(&buckets, NOON_MS + 1, NOON_MS + 999), (2, 110, 1));
    assert_eq!(sum(&buckets, NOON_MS + 2, NOON_MS + 998), (0, 0, 1));
    assert_eq!(sum(&buckets, NOON_MS + 1, NOON_MS + 59_999), (4, 11_110, 1));
    assert_eq!(sum(&buckets, 0, u64::MAX), (6, 111_111, 1));
    assert_eq!(sum(&buckets, NOON_MS + 1, NOON_MS), (0, 0, 1));
    assert_eq!(buckets.total(), RangeSum { count: 6, amount_cents: 111_111, resolution_ms: 1 });
    buckets.clear();
    assert_eq!(sum(&buckets, 0, u64::MAX), (0, 0, 1));
    assert_eq!(buckets.total().count, 0);
    check_structure(&buckets);
}

#[test]
fn a_coarse_bucket_counts_where_it_starts_and_says_so() {
    let mut buckets = Buckets::new(BYTES_MAX_LEAST);
    for offset_ms in [100, 200, 61_000, HOUR_MS + 5] {
        buckets.record(UnixMillis(NOON_MS + offset_ms), 1);
    }
    drop_oldest(&mut buckets, 0);
    assert_eq!(sum(&buckets, NOON_MS, NOON_MS), (2, 2, 1_000), "all of the second, by its start");
    assert_eq!(sum(&buckets, NOON_MS + 1, NOON_MS + 60_999), (0, 0, 1_000), "and none of it without");
    assert_eq!(sum(&buckets, NOON_MS, NOON_MS + 999), (2, 2, 1), "whole seconds are exact");
    assert_eq!(sum(&buckets, NOON_MS + 1_000, NOON_MS + 61_000), (1, 1, 1), "what is not cut does not blur");
    drop_oldest(&mut buckets, 1);
    assert_eq!(sum(&buckets, NOON_MS, NOON_MS + 998), (2, 2, 60_000));
    assert_eq!(sum(&buckets, NOON_MS, NOON_MS + 59_999), (2, 2, 1));
    drop_oldest(&mut buckets, 2);
    assert_eq!(sum(&buckets, NOON_MS, NOON_MS + 59_999), (3, 3, 3_600_000));
    assert_eq!(sum(&buckets, NOON_MS + 1, NOON_MS + HOUR_MS + 5), (1, 1, 3_600_000));

    // What comes late for a time without detail joins the coarse bucket.
    buckets.record(UnixMillis(NOON_MS + 61_001), 7);
    assert_eq!(sum(&buckets, NOON_MS, NOON_MS), (4, 10, 3_600_000));
    check_structure(&buckets);
}

/// Ten million payments over ten hours, as an auditor's query meets them: what counts is what it looks at.
#[test]
fn a_query_looks_at_hours_and_a_few_thousand_buckets() {
    let mut buckets = Buckets::new(512 * 1024 * 1024);
    let mut random = Random::new(5);
    let payments = if cfg!(debug_assertions) { 300_000 } else { 10_000_000 };
    for index in 0..payments {
        let at_ms = NOON_MS + index * (10 * HOUR_MS) / payments;
        buckets.record(UnixMillis(at_ms.saturating_sub(random.below(50))), 1_990);
    }
    for _ in 0..1_000 {
        let from_ms = NOON_MS + random.below(10 * HOUR_MS);
        let query = buckets.query(UnixMillis(from_ms), UnixMillis(from_ms + random.below(10 * HOUR_MS)));
        assert!(query.visited <= 11 + 2 * (60 + 60 + 1_000), "visited {}", query.visited);
    }
    let query = buckets.query(UnixMillis(NOON_MS - HOUR_MS), UnixMillis(NOON_MS + 10 * HOUR_MS));
    assert!(query.visited <= 11, "whole hours are not looked into: {}", query.visited);
}

/// A payment a minute for a long time, then ten a second: what was paid last is exact, the rest ever coarser.
#[test]
fn the_oldest_detail_goes_first_and_each_level_keeps_its_share() {
    let mut buckets = Buckets::new(BYTES_MAX_LEAST);
    let slow = (0..300 * 60).map(|minute| minute * 60_000 + minute % 60_000);
    let fast = (0..10 * 36_000).map(|tenth| 300 * HOUR_MS + tenth * 100);
    for (index, at_ms) in slow.chain(fast).enumerate() {
        buckets.record(UnixMillis(NOON_MS + at_ms), 1);
        if index % 1_009 == 0 {
            check_structure(&buckets);
        }
    }
    let end_ms = NOON_MS + 310 * HOUR_MS;
    let count = 300 * 60 + 10 * 36_000;
    assert_eq!(buckets.total(), RangeSum { count, amount_cents: count, resolution_ms: 1 });
    assert_eq!(sum(&buckets, 0, u64::MAX), (count, count, 1));
    let since = |ago_ms: u64| sum(&buckets, end_ms - ago_ms, u64::MAX);
    assert_eq!(since(60_000 + 500), (605, 605, 1), "a minute ago");
    assert_eq!(since(14 * 60_000 + 500).2, 1_000, "a quarter of an hour ago");
    assert_eq!(since(4 * HOUR_MS + 500).2, 60_000, "four hours ago");
    assert_eq!(since(100 * HOUR_MS + 500).2, 3_600_000, "four days ago");
    assert!(since(309 * HOUR_MS).2 > 3_600_000, "the beginning is one long bucket");
}

#[test]
fn a_steady_second_allocates_once() {
    let mut buckets = Buckets::new(64 * 1024 * 1024);
    let mut grown = 0;
    for index in 0..300 * 50_u64 {
        let bytes = buckets.bytes();
        buckets.record(UnixMillis(NOON_MS + index * 10 / 3), 1);
        let second_begins = index % 300 == 0;
        grown += u64::from(buckets.bytes() > bytes && !second_begins && index > 300);
    }
    assert_eq!(grown, 0, "only a new second allocates");
    let per_payment = (buckets.bytes() - buckets.bytes[3]) / (300 * 50);
    assert!(per_payment <= 21, "{per_payment} bytes a payment");
}

#[test]
fn hostile_times_stay_within_the_budget() {
    let mut buckets = Buckets::new(BYTES_MAX_LEAST);
    let mut random = Random::new(11);
    for index in 0..20_000_u64 {
        let at_ms = match index % 4 {
            0 => random.next_u64(),
            1 => u64::MAX - random.below(1 << 30),
            2 => random.below(1 << 30),
            _ => NOON_MS + index,
        };
        buckets.record(UnixMillis(at_ms), 1);
        assert!(buckets.bytes() <= BYTES_MAX_LEAST);
        if index % 997 == 0 {
            check_structure(&buckets);
        }
    }
    assert_eq!(buckets.total().count, 20_000);
    let whole = buckets.sum(UnixMillis(0), UnixMillis(u64::MAX));
    assert_eq!(whole.count, 20_000);
}

/// Mostly in order of time, with stragglers, steps of the clock and the ends of time.
fn times() -> impl Strategy<Value = Vec<u64>> {
    let gap = prop_oneof![20 => 0..50_u64, 10 => 0..3_000_u64, 2 => 0..200_000_u64, 1 => 0..3 * HOUR_MS];
    let shift = prop_oneof![
        30 => Just(None),
        3 => (0..100_000_u64).prop_map(Some),
        1 => prop_oneof![Just(0), Just(u64::MAX), any::<u64>()].prop_map(Some),
    ];
    prop::collection::vec((gap, shift), 1..1_500).prop_map(|steps| {
        let mut now_ms = NOON_MS;
        let at = |(gap, shift): (u64, Option<u64>)| {
            now_ms += gap;
            shift.map_or(now_ms, |back| now_ms.wrapping_sub(back))
        };
        steps.into_iter().map(at).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_a_plain_list_while_within_the_budget(
        times in times(),
        bounds in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u64, any::<prop::sample::Index>(), 0..3_u64), 20),
    ) {
        let mut buckets = Buckets::new(64 * 1024 * 1024);
        times.iter().zip(1..).for_each(|(&at_ms, cents)| buckets.record(UnixMillis(at_ms), cents));
        check_structure(&buckets);
        for (from, more, to, less) in bounds {
            let from_ms = from.get(&times).saturating_add(more).saturating_sub(1);
            let to_ms = to.get(&times).saturating_sub(less).saturating_add(1);
            let model = times.iter().zip(1..).filter(|&(at_ms, _)| (from_ms..=to_ms).contains(at_ms));
            let (count, cents) = model.fold((0, 0), |(count, sum), (_, cents)| (count + 1, sum + cents));
            prop_assert_eq!(sum(&buckets, from_ms, to_ms), (count, cents, 1));
        }
    }

    #[test]
    fn adjacent_ranges_add_up_and_are_as_near_as_they_say(
        times in times(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 30),
        roll_ups in prop::collection::vec((0..3_usize, 0..100_usize), 0..6),
    ) {
        let mut buckets = Buckets::new(BYTES_MAX_LEAST);
        times.iter().for_each(|&at_ms| buckets.record(UnixMillis(at_ms), 3));
        // More rolled up than the budget asks for, so that short lists meet coarse buckets too.
        for (level, count) in roll_ups {
            (0..count).take_while(|_| drop_oldest(&mut buckets, level)).for_each(drop);
        }
        check_structure(&buckets);
        for cut in cuts.windows(3) {
            let mut bounds: Vec<u64> = cut.iter().map(|cut| *cut.get(&times)).collect();
            bounds.sort_unstable();
            let (a, b, c) = (bounds[0], bounds[1], bounds[2]);
            let (whole, right) = (sum(&buckets, a, c), sum(&buckets, b, c));
            let left = if b == 0 { (0, 0, 1) } else { sum(&buckets, a, b - 1) };
            let left = if a == b { (0, 0, 1) } else { left };
            prop_assert_eq!((whole.0, whole.1), (left.0 + right.0, left.1 + right.1));

            // What is farther from both bounds than the resolution is counted as it should be.
            let reach = u64::from(whole.2) - 1;
            let surely = times.iter().filter(|&&at| at >= a.saturating_add(reach) && at <= c.saturating_sub(reach));
            let perhaps = times.iter().filter(|&&at| at >= a.saturating_sub(reach) && at <= c.saturating_add(reach));
            let (surely, perhaps) = (surely.count() as u64, perhaps.count() as u64);
            prop_assert!((surely..=perhaps).contains(&whole.0), "{} of {}..={}", whole.0, surely, perhaps);
        }
    }
}

#[test]
fn what_is_taken_in_is_sound_in_a_smaller_budget_too() {
    let mut random = Random::new(8);
    let mut buckets = Buckets::new(4 * BYTES_MAX_LEAST);
    let mut now_ms = NOON_MS;
    for index in 0..40_000 {
        now_ms += random.below(if index < 20_000 { 3_000 } else { 100 });
        buckets.record(UnixMillis(now_ms), 1_990);
    }
    for bytes_max in [4 * BYTES_MAX_LEAST, BYTES_MAX_LEAST] {
        let mut again = Buckets::new(bytes_max);
        let flow = buckets.export(UnixMillis(0), |row| {
            assert!(again.import(row));
            ControlFlow::Continue(())
        });
        assert!(flow.is_continue());
        check_structure(&again);
        assert_eq!(again.total(), buckets.total());
    }
}

#[test]
fn the_finest_bucket_of_a_moment_is_as_wide_as_its_detail() {
    const HOUR: u64 = 3_600_000;
    let mut buckets = Buckets::new(BYTES_MAX_LEAST);
    for at_ms in [10 * HOUR, 10 * HOUR, 10 * HOUR + 1, 10 * HOUR + 61_000] {
        buckets.record(UnixMillis(at_ms), 100);
    }
    let finest = |buckets: &Buckets, at_ms| buckets.finest(UnixMillis(at_ms));
    assert_eq!(finest(&buckets, 10 * HOUR), (2, 200));
    assert_eq!(finest(&buckets, 10 * HOUR + 1), (1, 100));
    assert_eq!(finest(&buckets, 10 * HOUR + 2), (0, 0));
    // Milliseconds become seconds, these minutes, these hours, and hours one.
    let widest: &[(u8, u64, (u64, u64))] =
        &[(1, 10 * HOUR + 2, (3, 300)), (2, 10 * HOUR + 2, (3, 300)), (3, 10 * HOUR + 59 * 60_000, (4, 400))];
    for &(level, at_ms, expected) in widest {
        let mut coarse = Buckets::new(BYTES_MAX_LEAST);
        let width = WIDTHS_MS[usize::from(level)];
        let mut sums = std::collections::BTreeMap::new();
        for at_ms in [10 * HOUR, 10 * HOUR, 10 * HOUR + 1, 10 * HOUR + 61_000] {
            *sums.entry(floor(at_ms, width)).or_insert(0) += 1;
        }
        for (start_ms, count) in sums {
            let last_ms = start_ms + width - 1;
            assert!(coarse.import(BucketRow { start_ms, last_ms, count, amount_cents: count * 100, level }));
        }
        assert_eq!(finest(&coarse, at_ms), expected, "level {level}");
        assert_eq!(finest(&coarse, 11 * HOUR), (0, 0));
    }
    let mut merged = Buckets::new(BYTES_MAX_LEAST);
    let row =
        BucketRow { start_ms: 10 * HOUR, last_ms: 13 * HOUR - 1, count: 7, amount_cents: 700, level: 3 };
    assert!(merged.import(row));
    assert_eq!(finest(&merged, 12 * HOUR + 5), (7, 700), "several hours that became one");
}
