//! Members of clients' POSTs that a processor wants: they go with every attempt, whoever was killed before it, and what does not fit
//! is refused; what the processor calls a payment is shown; and a client's deadline, which stands among them, ends a payment that nobody has.

use std::fs;

use crate::client::Answer;
use crate::galo::{Galo, Plan, Programs};
use crate::processor::{Act, Processor, Then, plain};
use crate::scene::refusal;
use crate::tally::Tally;

use jiff::{SignedDuration, Timestamp};

/// Room for two payments with long members, and for one with short ones.
const MEMBERS_BYTES_MAX: &str = "4500";

/// A client's member, written with blanks, and as it goes on.
const PAYER: &str = r#"{ "id" : 1, "name": "Ana \u00e9", "tags" : [ 1.50, "a b" ] }"#;
const PAYER_SENT: &str = r#"{"id":1,"name":"Ana \u00e9","tags":[1.50,"a b"]}"#;

const PROGRAMS: [&str; 3] = ["aggregator", "gateway-1", "gateway-2"];

/// Runs the group.
pub(crate) fn run(programs: &Programs, tally: &mut Tally) {
    if tally.begin("members and references") {
        tally.case("members through kills, conflicts, bounds and a reference", play(programs));
        tally.case("deadlines, through a kill of the aggregator", deadlines(programs));
    }
}

/// A Galo whose processors' file names a member and a reference, and the processors.
fn start(programs: &Programs, name: &'static str) -> Result<(Galo, Processor, Processor), String> {
    let (default, fallback) = (Processor::start()?, Processor::start()?);
    let processor = |name: &str, url: String| {
        format!(
            "[[processor]]\nname = \"{name}\"\nprofile = \"contest\"\nurl = \"{url}\"\n\
             request.body.payer = \"{{client.payer}}\"\nanswer.reference = \"/id\"\n"
        )
    };
    let text = format!(
        "{}{}[routing]\nprofile = \"contest\"\n",
        processor("default", default.url()),
        processor("fallback", fallback.url())
    );
    let file = std::env::temp_dir().join(format!("galo-hostile-{}-{name}.toml", std::process::id()));
    fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    let environment = vec![
        ("GALO_PROCESSORS", file.display().to_string()),
        ("MEMBERS_BYTES_MAX", MEMBERS_BYTES_MAX.to_owned()),
    ];
    let plan = Plan { name, environment, ..Plan::default() };
    Ok((Galo::start(programs, &plan, [default.url(), fallback.url()])?, default, fallback))
}

fn post(galo: &Galo, gateway: usize, id: &str, payer: Option<&str>) -> Result<Answer, String> {
    let payer = payer.map(|payer| format!(r#","payer" : {payer} "#)).unwrap_or_default();
    galo.straight(gateway).ask(
        "POST",
        "/payments",
        &format!(r#"{{"correlationId":"{id}"{payer},"amount":19.90}}"#),
    )
}

fn expect(answer: &Answer, status: u16, is_replay: bool) -> Result<(), String> {
    let replayed = answer.header("idempotent-replayed") == Some("true");
    if (answer.status, replayed) == (status, is_replay) {
        return Ok(());
    }
    Err(format!(
        "{} (replayed: {replayed}) instead of {status} ({is_replay}): {}",
        answer.status,
        answer.text()
    ))
}

/// Kills all of Galo at once, and starts it again.
fn kill_all(galo: &mut Galo) -> Result<(), String> {
    PROGRAMS.iter().try_for_each(|name| galo.kill(name))?;
    PROGRAMS.iter().try_for_each(|name| galo.respawn(name))?;
    for gateway in 0..2 {
        let way = galo.straight(gateway);
        galo.until("ready", || {
            Ok(way.ask("GET", "/ready", "").is_ok_and(|answer| answer.status == 200).then_some(()))
        })?;
    }
    Ok(())
}

/// The same id with another payer, or with none, is no replay; with the same, however written, it is.
fn check_conflicts(galo: &Galo, id: &str) -> Result<(), String> {
    for gateway in 0..2 {
        for payer in [Some(r#"{"id":2}"#), Some("null"), None] {
            post(galo, gateway, id, payer)?.problem(422, "conflicting-payment", true)?;
        }
        expect(&post(galo, gateway, id, Some(PAYER_SENT))?, 202, true)?;
        expect(&post(galo, gateway, id, Some(PAYER))?, 202, true)?;
    }
    Ok(())
}

fn play(programs: &Programs) -> Result<(), String> {
    let (mut galo, default, fallback) = start(programs, "members")?;
    let processors = [&default, &fallback];
    processors.iter().for_each(|processor| processor.set_mood(Some(refusal(500, ""))));
    let [short, long_1, long_2, long_3, without] = [(); 5].map(|()| galo.fresh_id());
    let long = format!(r#""{}""#, "x".repeat(1_900));

    expect(&post(&galo, 0, &short, Some(PAYER))?, 202, false)?;
    check_conflicts(&galo, &short)?;
    let too_long = format!(r#"{{"x":"{}"}}"#, "é".repeat(1_536));
    post(&galo, 0, &galo.fresh_id(), Some(&too_long))?.problem(422, "invalid-body", true)?;
    expect(&post(&galo, 0, &long_1, Some(&long))?, 202, false)?;
    expect(&post(&galo, 1, &long_2, Some(&long))?, 202, false)?;
    for gateway in 0..2 {
        post(&galo, gateway, &long_3, Some(&long))?.problem(503, "queue-full", true)?;
    }
    expect(&post(&galo, 1, &without, None)?, 202, false)?;

    // All that was promised is in the journal alone now.
    kill_all(&mut galo)?;
    check_conflicts(&galo, &short)?;
    for processor in processors {
        processor.heal();
        processor.set_manner(|asked| {
            let body = format!(r#"{{"id":"ref-\"{}"}}"#, &asked.id[..8]);
            (!asked.is_known).then(|| Act::new(true, plain(200, "OK", &body), Then::Stay))
        });
    }
    galo.settle()?;
    check_conflicts(&galo, &short)?;
    expect(&post(&galo, 0, &long_3, Some(&long))?, 202, false)?;
    galo.settle()?;
    kill_all(&mut galo)?;
    // What was decided a moment before the kill may not have been written, and is found out once more.
    galo.settle()?;
    check_conflicts(&galo, &short)?;

    let expected = [
        (&short, Some(PAYER_SENT)),
        (&long_1, Some(&*long)),
        (&long_2, Some(&*long)),
        (&long_3, Some(&*long)),
        (&without, None),
    ];
    for (id, payer) in expected {
        let payers: Vec<Option<String>> =
            processors.iter().flat_map(|processor| processor.payers(id)).collect();
        if payers.is_empty() || payers.iter().any(|sent| sent.as_deref() != payer) {
            return Err(format!("{id} was sent with {payers:?}, and came with {payer:?}"));
        }
        let seen = galo.straight(1).ask("GET", &format!("/payments/{id}"), "")?.text();
        let reference = format!(r#","reference":"ref-\"{}","decisions""#, &id[..8]);
        // One whose end was not written before the kill was looked up afterwards, and look-ups name none here.
        let was_lost = !seen.contains("reference") && seen.contains(r#""wasInDoubt":true"#);
        if !(seen.contains(&reference) || was_lost) || !seen.contains(r#""state":"processed""#) {
            return Err(format!("no {reference} in {seen}"));
        }
    }
    let page = crate::galo::metrics(&galo.aggregator())?;
    if !page.contains("galo_ledger_members_bytes 0") {
        return Err("members of payments that have ended are kept".to_owned());
    }
    let accepted = expected.iter().map(|(id, _)| ((*id).clone(), 1_990)).collect();
    galo.reconcile(&accepted, processors)?;
    galo.stop()
}

fn post_by(galo: &Galo, gateway: usize, id: &str, deadline: &str) -> Result<Answer, String> {
    let body = format!(r#"{{"correlationId":"{id}","deadline":{deadline},"amount":19.90}}"#);
    galo.straight(gateway).ask("POST", "/payments", &body)
}

/// While nobody takes payments, one whose deadline passes ends, though the aggregator is killed before, and is charged nowhere; others go on.
fn deadlines(programs: &Programs) -> Result<(), String> {
    let (mut galo, default, fallback) = start(programs, "deadlines")?;
    let processors = [&default, &fallback];
    processors.iter().for_each(|processor| processor.set_mood(Some(refusal(500, ""))));
    let [soon, later, without] = [(); 3].map(|()| galo.fresh_id());
    let now = Timestamp::now();
    let (deadline, hour) = (now + SignedDuration::from_secs(2), now + SignedDuration::from_hours(1));
    let text = |at: Timestamp| format!("\"{at:.3}\"");
    expect(&post_by(&galo, 0, &soon, &text(deadline))?, 202, false)?;
    expect(&post_by(&galo, 1, &later, &text(hour))?, 202, false)?;
    expect(&post(&galo, 0, &without, None)?, 202, false)?;
    // The same instant, otherwise written, is the same deadline.
    let elsewhere = format!("{:.3}", hour + SignedDuration::from_hours(2)).replace('Z', "+02:00");
    expect(&post_by(&galo, 0, &later, &format!("\"{elsewhere}\""))?, 202, true)?;
    post_by(&galo, 1, &later, &text(deadline + SignedDuration::from_hours(3)))?.problem(
        422,
        "conflicting-payment",
        true,
    )?;
    post(&galo, 1, &later, None)?.problem(422, "conflicting-payment", true)?;
    for wrong in ["\"tomorrow\"", "5", "null", &text(now)] {
        post_by(&galo, 0, &galo.fresh_id(), wrong)?.problem(422, "invalid-field", true)?;
    }
    // A gateway that is killed leaves its attempt in doubt, which no deadline ends.
    galo.kill("aggregator")?;
    galo.respawn("aggregator")?;
    galo.until_up()?;
    let way = galo.straight(1);
    let seen = galo.until("the payment has ended", || {
        let seen = way.ask("GET", &format!("/payments/{soon}"), "")?.text();
        Ok(seen.contains(r#""state":"declined""#).then_some(seen))
    })?;
    if !seen.contains(r#""cause":"expired""#) {
        return Err(format!("it ended otherwise than by its deadline: {seen}"));
    }
    if Timestamp::now() < deadline {
        return Err("it ended before its deadline".to_owned());
    }
    processors.iter().for_each(|processor| processor.heal());
    galo.settle()?;
    let late = |sent: &crate::processor::Payment| sent.requested_at_ms >= deadline.as_millisecond();
    if processors.iter().any(|processor| processor.posts(&soon).iter().any(late)) {
        return Err("an attempt began behind the deadline".to_owned());
    }
    let accepted = [later, without].into_iter().map(|id| (id, 1_990)).collect();
    galo.reconcile(&accepted, processors)?;
    galo.stop()
}
