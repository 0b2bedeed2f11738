//! A payment's history of decisions through real processes: taken while the default processor is down, it waits, loses its
//! patience and goes to fallback; `GET /payments/{id}` tells so, with reasons, and tells the same after SIGKILL of the aggregator.
//!
//! An aggregator and a gateway of its own, with little patience, in front of the processors that the whole end-to-end part has.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Options, Running, load, program, wait_for};
use crate::http::Origin;
use crate::repo::{Fallible, Home};
use crate::rinha::Processor;
use crate::up;

const LIMIT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(3);
const PATIENCE_MS: u64 = 100;

/// Starts what it needs, and ends it.
pub(crate) fn check(options: &Options, galo: &up::Options, home: &Home) -> Fallible<String> {
    let folder = home.path().join("decisions");
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("cannot remove {}: {error}", folder.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let environment = [
        ("AGGREGATOR_SOCKET", home.socket("decisions").display().to_string()),
        ("AGGREGATOR_HTTP_SOCKET", home.socket("decided-http").display().to_string()),
        ("GATEWAY_SOCKET", home.socket("decided").display().to_string()),
        ("JOURNAL_DIR", folder.display().to_string()),
        ("PROCESSOR_DEFAULT_URL", galo.processor_url("default")),
        ("PROCESSOR_FALLBACK_URL", galo.processor_url("fallback")),
        ("ROUTING_PATIENCE_MS", PATIENCE_MS.to_string()),
    ];
    let start = |name: &str| {
        let mut command = Command::new(program(options.profile, name));
        command.envs(environment.iter().map(|(variable, value)| (*variable, value)));
        Running::start(&mut command, &home.log(&format!("decisions-{name}")))
    };
    let aggregator = start("galo-aggregator")?;
    let _gateway = start("galo-gateway")?;
    let api = Origin::Unix(home.socket("decided"));
    let is_ready = || api.get("/ready", TIMEOUT).is_ok_and(|answer| answer.status == 200).then_some(());
    wait_for("the gateway's /ready", LIMIT, is_ready)?;

    let [default, _] = &Processor::both(galo)[..] else { return Err("there are two processors".to_owned()) };
    let fails = |fails: bool| {
        default.admin("PUT", "/admin/configurations/failure", &json!({ "failure": fails }))?.expect(200)
    };
    fails(true)?;
    let told = went_elsewhere(&api);
    fails(false)?;
    let (id, before) = told?;
    judge(&before)?;

    // SIGKILL.
    drop(aggregator);
    let _aggregator = start("galo-aggregator")?;
    let after = wait_for("a look-up after the kill", LIMIT, || lookup(&api, &id))?;
    if after == before { Ok(before.to_string()) } else { Err(format!("before: {before}; after: {after}")) }
}

/// Posts until a payment that was told to wait at first was processed by fallback. The first ones find out that default is down, and
/// some are probes; the load goes on, since silence would end the wait sooner.
fn went_elsewhere(api: &Origin) -> Fallible<(String, Value)> {
    let mut ids = std::collections::VecDeque::new();
    let mut failure = None;
    let found = wait_for("a payment that waited and went to fallback", LIMIT, || {
        let id = up::random_uuid();
        if let Err(error) = load::post(api, &id, "19.90") {
            failure.get_or_insert(error);
        }
        ids.push_back(id);
        // The oldest one: it had the most time.
        let found = lookup(api, ids.front()?).filter(|view| view["state"] == "processed")?;
        let id = ids.pop_front()?;
        let waited = found["decisions"][0]["processor"].is_null() && found["processor"] == "fallback";
        (waited && found["decisions"].as_array()?.len() == 2).then_some((id, found))
    });
    failure.map_or(found, Err)
}

fn lookup(api: &Origin, id: &str) -> Option<Value> {
    let answer = api.get(&format!("/payments/{id}"), TIMEOUT).ok()?;
    if answer.status == 200 { answer.json().ok() } else { None }
}

fn judge(view: &Value) -> Fallible<()> {
    let [wait, attempt] = [0, 1].map(|index| &view["decisions"][index]);
    let waits = *wait
        == json!({
            "at": wait["at"], "processor": null, "reason": "awaits_cheaper", "waitedForMs": 0,
            "outcome": null, "wasInDoubt": false
        });
    let goes = *attempt
        == json!({
            "at": view["requestedAt"], "processor": "fallback", "reason": "patience_over",
            "waitedForMs": attempt["waitedForMs"], "outcome": "processed", "wasInDoubt": false
        });
    let patient = attempt["waitedForMs"].as_u64().is_some_and(|waited_ms| waited_ms >= PATIENCE_MS);
    let in_order = wait["at"].as_str() < attempt["at"].as_str();
    let whole = view["decisionsForgotten"] == false;
    if waits && goes && patient && in_order && whole { Ok(()) } else { Err(format!("unexpected: {view}")) }
}
