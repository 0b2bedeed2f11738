//! A processor that may be sent so many requests a second: it never is sent more, and what goes beyond is processed elsewhere in time.
//!
//! What left when is read from the payments' `requestedAt`, which Galo stamps as it takes a token: a machine that stalls bunches arrivals,
//! and says nothing of what was let through.

use std::time::Duration;

use crate::galo::Programs;
use crate::scene::{Case, Findings, Scene, side_by_side};
use crate::tally::Tally;

/// What the cheaper one may be sent each second: half of it by each gateway.
const LIMIT: usize = 50;

/// What both gateways may send at once after a pause: each a fifth of its second.
const BURST: usize = 10;

const PATIENCE: Duration = Duration::from_millis(1_500);

/// Above what a payment takes beside its patience on a machine that is busy with other things.
const SLACK: Duration = Duration::from_secs(1);

const TIME: Duration = Duration::from_secs(10);

/// Runs all groups.
pub(crate) fn run(programs: &Programs, tally: &mut Tally) {
    let offered = |per_second: u32| {
        let name = format!("{per_second}/s where the cheaper one takes {LIMIT}");
        Case::new(name, &[], move |scene, findings| offered(scene, findings, per_second)).with_file(file)
    };
    side_by_side(programs, tally, "requests a second", vec![offered(200), offered(40)]);
}

fn file([default, fallback]: &[String; 2]) -> String {
    let (per_second, patience_ms) = (LIMIT / 2, PATIENCE.as_millis());
    format!(
        "[[processor]]\nname = \"default\"\nprofile = \"contest\"\nurl = \"{default}\"\ncost.basis_points = 500\n\
         limits.per_second = {per_second}\n\n\
         [[processor]]\nname = \"fallback\"\nprofile = \"contest\"\nurl = \"{fallback}\"\ncost.basis_points = 1500\n\n\
         [routing]\nprofile = \"steady\"\npatience_ms = {patience_ms}\n"
    )
}

fn offered(scene: &mut Scene, findings: &mut Findings, per_second: u32) -> Result<(), String> {
    scene.pay_for(TIME, per_second)?;
    let waits = scene.await_waits(PATIENCE + SLACK, |_| true);
    findings.figure(&waits);
    findings.check(waits.check_all());
    let late = waits.longest() > PATIENCE + SLACK;
    findings.expect(!late, || format!("one waited for {:?}", waits.longest()));
    let times = {
        let books = scene.default.books();
        let mut times: Vec<i64> = books.posts.values().flatten().map(|post| post.requested_at_ms).collect();
        times.sort_unstable();
        times
    };
    let within =
        |start_ms: i64| times.iter().filter(|at_ms| (start_ms..start_ms + 1_000).contains(at_ms)).count();
    let most = times.iter().map(|at_ms| within(*at_ms)).max().unwrap_or(0);
    let held = scene.gateways_sum("galo_gateway_rate_held_total{processor=\"default\"}")?;
    findings.figure(format!(
        "{} to the cheaper one, at most {most} in a second, {held} decisions held",
        times.len()
    ));
    findings.expect(most <= LIMIT + BURST, || format!("{most} in a second"));
    let elsewhere = scene.fallback.books().stored.len();
    if per_second as usize > LIMIT {
        findings.expect(most >= LIMIT / 2 && held > 0, || "the limit was never reached".to_owned());
        findings.expect(elsewhere > 0, || "nothing went elsewhere".to_owned());
    } else {
        findings.expect(elsewhere == 0, || format!("{elsewhere} went elsewhere below the limit"));
    }
    scene.check_end(&std::collections::BTreeSet::new())
}
