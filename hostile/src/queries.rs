//! The summary's bounds: one instant in every spelling that a client library writes, and what is no instant.
//!
//! The instant is one at which a processor stored a payment, so a spelling that is read as another millisecond shows as
//! another sum: each is asked as `from`, as `to` and as both, and compared with the books.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::Offset;

use crate::client::Way;
use crate::galo::summary;
use crate::processor::Payment;
use crate::tally::Tally;
use crate::world::World;

/// Runs all, both ways.
pub(crate) fn run(world: &mut World, tally: &mut Tally) {
    for way in world.galo.ways() {
        if tally.begin(&format!("bounds of a summary, {}", way.name())) {
            match prepare(world, &way) {
                Ok(at_ms) => {
                    for (name, text, ms) in spellings(at_ms) {
                        let result = compare(world, &way, &text, ms);
                        tally.case(&format!("{name}, {text}"), result);
                    }
                    tally.case("adjacent ranges add up", add_up(world, &way, at_ms));
                }
                Err(error) => tally.case("payments to be summed", Err(error)),
            }
            for (query, field) in refusals() {
                let result = refused(&way, query, field).and_then(|()| world.check_well(&way));
                tally.case(&format!("?{query}"), result);
            }
            for query in IGNORED {
                let result = ignored(world, &way, query);
                tally.case(&format!("?{query}"), result);
            }
            world.reconcile(tally);
        }
    }
}

/// Some payments at different milliseconds; gives an instant in the middle whose milliseconds are not zero.
fn prepare(world: &mut World, way: &Way) -> Result<i64, String> {
    for cents in 1..=40 {
        let id = world.galo.fresh_id();
        world.pay(way, &id, cents * 101)?;
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    world.galo.settle()?;
    let books = world.default.books();
    let mut instants: Vec<i64> = books.stored.values().map(|payment| payment.requested_at_ms).collect();
    instants.sort_unstable();
    instants.dedup();
    let middle = instants.iter().rev().skip(20).find(|at| *at % 10 != 0 && *at % 1_000 >= 100);
    middle.copied().ok_or_else(|| "no payment stands at a millisecond of its own".to_owned())
}

/// Name, text as it stands in the query, and the instant that it means.
fn spellings(at_ms: i64) -> Vec<(&'static str, String, i64)> {
    let at = Timestamp::from_millisecond(at_ms).unwrap_or_default();
    let local = |seconds: i32, format: &str| {
        let offset = Offset::from_seconds(seconds).unwrap_or(Offset::UTC);
        offset.to_datetime(at).strftime(format).to_string()
    };
    let utc = |format: &str| local(0, format);
    let second = at_ms.div_euclid(1_000) * 1_000;
    let minute = at_ms.div_euclid(60_000) * 60_000;
    let day = at_ms.div_euclid(86_400_000) * 86_400_000;
    vec![
        ("JavaScript", utc("%Y-%m-%dT%H:%M:%S.%3fZ"), at_ms),
        ("JavaScript, encoded", utc("%Y-%m-%dT%H%%3A%M%%3A%S.%3fZ"), at_ms),
        (
            "JavaScript, encoded throughout",
            utc("%Y-%m-%dT%H:%M:%S.%3fZ").bytes().map(|byte| format!("%{byte:02X}")).collect(),
            at_ms,
        ),
        ("Python, aware", utc("%Y-%m-%dT%H:%M:%S.%6f%%2B00:00"), at_ms),
        ("Python, aware, plus as it is", utc("%Y-%m-%dT%H:%M:%S.%6f+00:00"), at_ms),
        ("Python, naive", utc("%Y-%m-%dT%H:%M:%S.%6f"), at_ms),
        ("Python, printed", utc("%Y-%m-%d%%20%H:%M:%S.%6f"), at_ms),
        ("Python, printed, space as plus", utc("%Y-%m-%d+%H:%M:%S.%6f%%2B00:00"), at_ms),
        (".NET", utc("%Y-%m-%dT%H:%M:%S.%3f0000Z"), at_ms),
        (".NET with an offset", utc("%Y-%m-%dT%H:%M:%S.%3f0000%%2b00:00"), at_ms),
        ("Java and Go, nanoseconds", utc("%Y-%m-%dT%H:%M:%S.%9fZ"), at_ms),
        ("Brasília", local(-10_800, "%Y-%m-%dT%H:%M:%S.%3f-03:00"), at_ms),
        ("Brasília, PHP and MySQL", local(-10_800, "%Y-%m-%dT%H:%M:%S.%3f-0300"), at_ms),
        ("Brasília, PostgreSQL", local(-10_800, "%Y-%m-%d%%20%H:%M:%S.%3f-03"), at_ms),
        ("India", local(19_800, "%Y-%m-%dT%H:%M:%S.%3f%%2B05:30"), at_ms),
        ("India, plus as it is", local(19_800, "%Y-%m-%dT%H:%M:%S.%3f+05:30"), at_ms),
        ("Nepal", local(20_700, "%Y-%m-%dT%H:%M:%S.%3f%%2B0545"), at_ms),
        ("Kiritimati", local(50_400, "%Y-%m-%dT%H:%M:%S.%3f%%2B14:00"), at_ms),
        ("small letters", utc("%Y-%m-%dt%H:%M:%S.%3fz"), at_ms),
        ("a comma", utc("%Y-%m-%dT%H:%M:%S,%3fZ"), at_ms),
        ("the basic form", utc("%Y%m%dT%H%M%S.%3fZ"), at_ms),
        ("minus zero", utc("%Y-%m-%dT%H:%M:%S.%3f-00:00"), at_ms),
        ("digits below the millisecond", utc("%Y-%m-%dT%H:%M:%S.%3f999Z"), at_ms),
        ("Ruby and PHP, without a fraction", utc("%Y-%m-%dT%H:%M:%SZ"), second),
        ("without a fraction, with an offset", local(-10_800, "%Y-%m-%dT%H:%M:%S-03:00"), second),
        ("without a fraction or a zone", utc("%Y-%m-%dT%H:%M:%S"), second),
        ("Java, on the minute", utc("%Y-%m-%dT%H:%MZ"), minute),
        ("a date", utc("%Y-%m-%d"), day),
    ]
}

/// No bound at all may be wrong in a way that changes a sum in silence.
fn refusals() -> Vec<(&'static str, Option<&'static str>)> {
    vec![
        ("from=", Some("from")),
        ("from", Some("from")),
        ("to=", Some("to")),
        ("from=null", Some("from")),
        ("from=undefined", Some("from")),
        ("to=Invalid%20Date", Some("to")),
        ("from=now", Some("from")),
        ("from=1752582896", Some("from")),
        ("from=1752582896789", Some("from")),
        ("from=-1", Some("from")),
        ("from=0", Some("from")),
        ("from=NaN", Some("from")),
        ("from=12:34:56", Some("from")),
        ("from=2025-07", Some("from")),
        ("from=2025", Some("from")),
        ("from=2025-07-15T", Some("from")),
        ("from=2025-07-15Z", Some("from")),
        ("from=2025-13-15T12:34:56Z", Some("from")),
        ("from=2025-00-15T12:34:56Z", Some("from")),
        ("from=2025-02-29T12:34:56Z", Some("from")),
        ("from=2025-04-31T12:34:56Z", Some("from")),
        ("from=2025-07-00T12:34:56Z", Some("from")),
        ("from=2025-07-15T24:00:01Z", Some("from")),
        ("from=2025-07-15T12:60:56Z", Some("from")),
        ("from=2025-07-15T12:34:61Z", Some("from")),
        ("from=2025-07-15T12:34:56.Z", Some("from")),
        ("from=2025-07-15T12:34:56.0123456789Z", Some("from")),
        ("from=2025-07-15T12:34:56Z%00", Some("from")),
        ("from=2025-07-15T12:34:56Z%20", Some("from")),
        ("from=%202025-07-15T12:34:56Z", Some("from")),
        ("from=2025-07-15T12:34:56ZZ", Some("from")),
        ("from=2025-07-15T12:34:56%2B25:00", Some("from")),
        ("from=2025-07-15T12:34:56%2B3", Some("from")),
        ("from=2025-07-15T12:34:56%5BAmerica/Sao_Paulo%5D", Some("from")),
        ("from=2025-07-15T12:34:56-03:00%5BAmerica/Sao_Paulo%5D", Some("from")),
        ("from=2025-W29-2", Some("from")),
        ("from=15/07/2025", Some("from")),
        ("from=07-15-2025", Some("from")),
        ("from=25-07-15T12:34:56Z", Some("from")),
        ("from=2025-7-5T1:2:3Z", Some("from")),
        ("from=Tue,%2015%20Jul%202025%2012:34:56%20GMT", Some("from")),
        ("from=%D9%A2%D9%A0%D9%A2%D9%A5-07-15", Some("from")),
        ("from=%22%222025-07-15T12:34:56Z%22", Some("from")),
        ("from=2025-07-15T12:34:56Z&from=2025-07-15T12:34:56Z", Some("from")),
        ("to=2025-07-15T12:34:56Z&to=2026-07-15T12:34:56Z", Some("to")),
        ("from=2025-07-15T12:34:56.001Z&to=2025-07-15T12:34:56Z", Some("from")),
        ("from=2025-07-15T12:34:56Z&to=", Some("to")),
        ("from=2025-07-15T12:34:56Z;to=2025-07-15T12:34:57Z", Some("from")),
        ("from=%", None),
        ("from=%2", None),
        ("from=%zz", None),
        ("from=%u0032", None),
        ("from=%ff%fe", Some("from")),
        ("from=%C3", Some("from")),
    ]
}

/// Queries that mean no bound: the whole.
const IGNORED: [&str; 9] = [
    "",
    "&&&",
    "From=2030-01-01T00:00:00Z",
    "from%20=2030-01-01T00:00:00Z",
    "from%5B%5D=2030-01-01T00:00:00Z",
    "x=1&y=%20&z",
    "from=1970-01-01T00:00:00Z&to=9999-12-31T23:59:59.999Z",
    "from=0001-01-01T00:00:00Z",
    "to=9999-12-31T23:59:59.999999999Z",
];

fn expected(world: &World, from_ms: i64, to_ms: i64) -> String {
    let within = |book: &BTreeMap<String, Payment>| -> BTreeMap<String, Payment> {
        let payments =
            book.iter().filter(|(_, payment)| (from_ms..=to_ms).contains(&payment.requested_at_ms));
        payments.map(|(id, payment)| (id.clone(), *payment)).collect()
    };
    summary(&within(&world.default.books().stored), &within(&world.fallback.books().stored))
}

fn compare(world: &mut World, way: &Way, text: &str, at_ms: i64) -> Result<(), String> {
    for (query, from_ms, to_ms) in [
        (format!("from={text}"), at_ms, i64::MAX),
        (format!("to={text}"), i64::MIN, at_ms),
        (format!("from={text}&to={text}"), at_ms, at_ms),
    ] {
        same(world, way, &query, from_ms, to_ms)?;
    }
    Ok(())
}

fn same(world: &World, way: &Way, query: &str, from_ms: i64, to_ms: i64) -> Result<(), String> {
    let answer = way.ask("GET", &format!("/payments-summary?{query}"), "")?;
    let expected = expected(world, from_ms, to_ms);
    if answer.status != 200 || answer.text() != expected {
        return Err(format!("{query}: {} {}, the books say {expected}", answer.status, answer.text()));
    }
    Ok(())
}

fn add_up(world: &mut World, way: &Way, at_ms: i64) -> Result<(), String> {
    let text = |ms: i64| Timestamp::from_millisecond(ms).unwrap_or_default().to_string();
    same(world, way, &format!("to={}", text(at_ms - 1)), i64::MIN, at_ms - 1)?;
    same(world, way, &format!("from={}", text(at_ms)), at_ms, i64::MAX)?;
    same(world, way, &format!("from={}&to={}", text(at_ms - 5), text(at_ms + 5)), at_ms - 5, at_ms + 5)
}

fn refused(way: &Way, query: &str, field: Option<&str>) -> Result<(), String> {
    let answer = way.ask("GET", &format!("/payments-summary?{query}"), "")?;
    let blamed = answer.problem(400, "invalid-parameter", true)?;
    if blamed.as_deref() != field {
        return Err(format!("blames {blamed:?} instead of {field:?}"));
    }
    Ok(())
}

fn ignored(world: &mut World, way: &Way, query: &str) -> Result<(), String> {
    world.galo.settle()?;
    same(world, way, query, i64::MIN, i64::MAX)
}
