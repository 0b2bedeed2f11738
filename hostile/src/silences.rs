//! Connections to a processor that fail while it works: packets that vanish on those that are open, and ends at the moment of use.
//!
//! The processor freezes its own connections, in the kernel (a socket's filter that lets nothing in) or behind it, so neither side hears of an end, and new
//! connections work. Many are kept when that happens, since a burst came before.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::galo::Programs;
use crate::processor::{Act, Asked, Freeze, Then};
use crate::scene::{Case, Findings, Scene, side_by_side};
use crate::tally::Tally;

const SECOND: Duration = Duration::from_secs(1);

/// Payments a second beside what is wrong.
const PER_SECOND: u32 = 100;

/// Payments flow again within so long of a freeze.
const FLOW_BOUND: Duration = Duration::from_secs(2);

/// What was swallowed is processed within so long.
const SWALLOWED_BOUND: Duration = Duration::from_secs(5);

/// Connections of both gateways that are kept when they freeze, at least: more than are used until it shows.
const KEPT_MIN: usize = 40;

/// Payments that may go to the dearer processor meanwhile.
const ELSEWHERE_MAX: usize = 10;

/// Attempts that a processor may be sent in three seconds that closes every connection: the first ones, and single ones that find out.
const CLOSED_MAX: usize = 200;

/// Runs all groups.
pub(crate) fn run(programs: &Programs, tally: &mut Tally) {
    let freeze = |name: &str, how: Freeze, profile: &'static str| {
        let name = format!("{name}, profile {profile}");
        Case::new(name, &[("ROUTING_PROFILE", profile)], move |scene, findings| frozen(scene, findings, how))
    };
    let cases = vec![
        freeze("packets vanish on all kept connections", Freeze::Vanish, "contest"),
        freeze("packets vanish on all kept connections", Freeze::Vanish, "steady"),
        freeze("all kept connections are held", Freeze::Swallow, "contest"),
        freeze("no answer comes over any kept connection", Freeze::Mute, "contest"),
    ];
    side_by_side(programs, tally, "connections that freeze", cases);
    let cases = vec![Case::new("packets vanish on each second kept connection", &[], half_frozen)];
    side_by_side(programs, tally, "some connections that freeze", cases);

    let slow = |profile: &'static str| {
        let name = format!("all answers take 1.5 s, profile {profile}");
        Case::new(name, &[("ROUTING_PROFILE", profile)], slow)
    };
    let name = "the default one stands still for 2 s";
    let stood = Case::new(name, &[("ROUTING_PROFILE", "steady")], stood_still);
    side_by_side(programs, tally, "slow and not frozen", vec![slow("contest"), slow("steady"), stood]);

    let close = |name: &str, stores: bool, then: Then| {
        Case::new(name, &[], move |scene, findings| closing(scene, findings, stores, then))
    };
    let cases = vec![
        close("kept connections are closed as they are used", false, Then::Close),
        close("kept connections are reset as they are used, behind the insert", true, Then::Reset),
        Case::new("all are closed as they are used", &[("ROUTING_PATIENCE_MS", "1000")], closing_all),
    ];
    side_by_side(programs, tally, "connections that are closed as they are used", cases);
}

/// Has both gateways open connections: for a second answers take some time.
fn warm(scene: &mut Scene, findings: &mut Findings) -> Result<Duration, String> {
    scene.default.set_manner(|asked: &Asked<'_>| Some(asked.honestly().after(SECOND * 3 / 20)));
    scene.pay_for(SECOND, 500)?;
    scene.default.heal();
    scene.control(findings, PER_SECOND)
}

/// Pays for so long, and tells the ids.
fn pay_some(scene: &mut Scene, time: Duration, per_second: u32) -> Result<BTreeSet<String>, String> {
    let (started, mut ids) = (Instant::now(), BTreeSet::new());
    let mut due = started;
    while due < started + time {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += SECOND / per_second;
        let [id] = scene.fresh_ids();
        scene.pay(&id)?;
        ids.insert(id);
    }
    Ok(ids)
}

/// None of these was sent more often than that, to both processors together.
fn check_posts(scene: &Scene, ids: &BTreeSet<String>, count_max: usize) -> Result<(), String> {
    for id in ids {
        let posts = scene.processors().map(|processor| processor.posts(id));
        if posts.iter().map(Vec::len).sum::<usize>() > count_max {
            return Err(format!("{id} was sent more than {count_max} times: {posts:?}"));
        }
    }
    Ok(())
}

fn frozen(scene: &mut Scene, findings: &mut Findings, how: Freeze) -> Result<(), String> {
    let usual = warm(scene, findings)?;
    let kept = scene.default.freeze(how, |_| true)?;
    // Those among which some are swallowed, and those that come when it must have shown.
    let first = pay_some(scene, SECOND * 2 / 5, PER_SECOND)?;
    let later = pay_some(scene, SECOND * 5, PER_SECOND)?;
    let waits = scene.await_waits(SWALLOWED_BOUND * 2 + usual, |_| true);
    let [of_first, of_later] = [&first, &later].map(|ids| scene.waits(|id| ids.contains(id)));
    let elsewhere = scene.fallback.books().stored.len();
    let given_up = scene.gateways_sum("galo_gateway_attempts_given_up_total")?;
    findings.figure(format!(
        "{kept} kept; first: {of_first}; later: {of_later}; {given_up} given up; {elsewhere} elsewhere"
    ));
    findings.expect(kept >= KEPT_MIN, || format!("only {kept} connections were kept"));
    findings.expect(given_up > 0, || "nothing was given up".to_owned());
    findings.check(waits.check_all());
    findings.check(of_later.check_within(FLOW_BOUND + usual));
    findings.check(of_first.check_within(SWALLOWED_BOUND + usual));
    findings.expect(elsewhere <= ELSEWHERE_MAX, || "too many went elsewhere".to_owned());
    findings.check(check_posts(scene, &first, 2));
    findings.check(check_posts(scene, &later, 1));
    if findings.is_well() {
        scene.check_end(&BTreeSet::new())?;
    }
    Ok(())
}

/// The others are answered, so that it is the kernel that finds out.
fn half_frozen(scene: &mut Scene, findings: &mut Findings) -> Result<(), String> {
    let usual = warm(scene, findings)?;
    let kept = scene.default.freeze(Freeze::Vanish, |number| number % 2 == 0)?;
    scene.pay_for(SECOND * 5, PER_SECOND)?;
    let waits = scene.await_waits(SWALLOWED_BOUND * 2 + usual, |_| true);
    findings.figure(format!("{kept} frozen; {waits}"));
    findings.expect(kept >= KEPT_MIN / 2, || format!("only {kept} connections froze"));
    findings.check(waits.check_all());
    let bound = SWALLOWED_BOUND + usual;
    findings.expect(waits.longest() <= bound, || format!("longer than {bound:?}"));
    if findings.is_well() {
        scene.check_end(&BTreeSet::new())?;
    }
    Ok(())
}

/// Of every payment there is one POST.
fn check_none_twice(
    scene: &mut Scene,
    findings: &mut Findings,
    ids: &BTreeSet<String>,
) -> Result<(), String> {
    let waits = scene.await_waits(SECOND * 40, |_| true);
    let given_up = scene.gateways_sum("galo_gateway_attempts_given_up_total")?;
    findings.figure(format!("{waits}; {given_up} given up"));
    findings.check(waits.check_all());
    findings.check(check_posts(scene, ids, 1));
    findings.expect(given_up == 0, || "some were given up".to_owned());
    if findings.is_well() {
        scene.check_end(&BTreeSet::new())?;
    }
    Ok(())
}

/// Their health checks do not know.
fn slow(scene: &mut Scene, findings: &mut Findings) -> Result<(), String> {
    warm(scene, findings)?;
    for processor in scene.processors() {
        processor.set_manner(|asked: &Asked<'_>| Some(asked.honestly().after(SECOND * 3 / 2)));
    }
    let ids = pay_some(scene, SECOND * 3, PER_SECOND)?;
    check_none_twice(scene, findings, &ids)
}

/// All that came meanwhile is answered at one moment.
fn stood_still(scene: &mut Scene, findings: &mut Findings) -> Result<(), String> {
    warm(scene, findings)?;
    let until = Instant::now() + SECOND * 2;
    scene.default.set_manner(move |asked: &Asked<'_>| {
        Some(asked.honestly().after(until.saturating_duration_since(Instant::now())))
    });
    let ids = pay_some(scene, SECOND * 3, PER_SECOND)?;
    check_none_twice(scene, findings, &ids)
}

/// Every connection that was answered on before ends so.
fn closing(scene: &mut Scene, findings: &mut Findings, stores: bool, then: Then) -> Result<(), String> {
    let usual = warm(scene, findings)?;
    scene
        .default
        .set_manner(move |asked: &Asked<'_>| (asked.on_connection > 1).then(|| Act::new(stores, "", then)));
    let mut ids = BTreeSet::new();
    for _ in 0..20 {
        // Ten for each gateway, at once.
        ids.append(&mut pay_some(scene, Duration::from_millis(100), 200)?);
        thread::sleep(SECOND / 10);
    }
    let waits = scene.await_waits(SWALLOWED_BOUND + usual, |_| true);
    let elsewhere = scene.fallback.books().stored.len();
    let hung_up = scene.gateways_sum("galo_gateway_attempts_hung_up_total")?;
    findings.figure(format!("{waits}; {hung_up} hung up on; {elsewhere} elsewhere"));
    findings.check(waits.check_within(SECOND + usual));
    findings.expect(hung_up > 0, || "nobody was hung up on".to_owned());
    findings.expect(elsewhere == 0, || "some went elsewhere".to_owned());
    findings.check(check_posts(scene, &ids, 3));
    if findings.is_well() {
        scene.check_end(&BTreeSet::new())?;
    }
    Ok(())
}

fn closing_all(scene: &mut Scene, findings: &mut Findings) -> Result<(), String> {
    let usual = warm(scene, findings)?;
    scene.default.set_mood(Some(Act::new(false, "", Then::Close)));
    let before = scene.default.books().arrivals.len();
    scene.pay_for(SECOND * 3, PER_SECOND)?;
    let sent = scene.default.books().arrivals.len() - before;
    scene.default.heal();
    let waits = scene.await_waits(SWALLOWED_BOUND + usual, |_| true);
    findings.figure(format!("{sent} attempts in three seconds; {waits}"));
    findings.expect(sent <= CLOSED_MAX, || format!("{sent} attempts, of {CLOSED_MAX} at most"));
    findings.check(waits.check_all());
    if findings.is_well() {
        scene.check_end(&BTreeSet::new())?;
    }
    Ok(())
}
