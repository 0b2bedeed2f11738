//! A run's score: read from what the script wrote, printed as a table.
//!
//! The contest's script and ours compute the same formula; this module only reads. Amounts are the script's own JSON
//! numbers and stay as they are: nothing is decided by them here. What decides is counts, and a missing one is an error.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::repo::Fallible;
use crate::table::aligned;
use crate::up::grouped;

/// What a run was worth.
#[derive(Clone, Debug)]
pub(crate) struct Score {
    gross: f64,
    fees: f64,
    score: f64,
    p99: String,
    bonus: String,
    fine: f64,
    pub(crate) inconsistencies: i64,
    pub(crate) lag: i64,
    pub(crate) failures: i64,
    pub(crate) accepted: i64,
    default_requests: i64,
    fallback_requests: i64,
}

impl Score {
    /// What our own script wrote.
    pub(crate) fn of_own(json: &Value) -> Fallible<Self> {
        Ok(Self {
            gross: amount(json, "/gross")?,
            fees: amount(json, "/fees")?,
            score: amount(json, "/score")?,
            p99: format!("{}ms", amount(json, "/p99_ms")?),
            bonus: format!("{}%", amount(json, "/bonus_percent")?),
            fine: amount(json, "/fine")?,
            // Differences at the end are inconsistencies that no later audit would have seen.
            inconsistencies: count(json, "/inconsistencies")? + count(json, "/final_differences")?,
            lag: count(json, "/lag")?,
            failures: count(json, "/failures")?,
            accepted: count(json, "/accepted")?,
            default_requests: count(json, "/default_requests")?,
            fallback_requests: count(json, "/fallback_requests")?,
        })
    }

    /// What the contest's script wrote.
    pub(crate) fn of_contest(json: &Value) -> Fallible<Self> {
        let text = |path: &str| {
            json.pointer(path).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| missing(path))
        };
        Ok(Self {
            gross: amount(json, "/total_bruto")?,
            fees: amount(json, "/total_taxas")?,
            score: amount(json, "/total_liquido")?,
            p99: text("/p99/valor")?,
            bonus: text("/p99/bonus")?,
            fine: amount(json, "/multa/total")?,
            inconsistencies: count(json, "/multa/composicao/num_inconsistencias")?,
            lag: count(json, "/lag/lag")?,
            failures: count(json, "/pagamentos_solicitados/qtd_falha")?,
            accepted: count(json, "/pagamentos_solicitados/qtd_sucesso")?,
            default_requests: count(json, "/pagamentos_realizados_default/num_pagamentos")?,
            fallback_requests: count(json, "/pagamentos_realizados_fallback/num_pagamentos")?,
        })
    }

    /// What makes the run a bad one.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let counts =
            [("inconsistencies", self.inconsistencies), ("lag", self.lag), ("failures", self.failures)];
        let mut complaints: Vec<String> = counts
            .iter()
            .filter(|(_, count)| *count != 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        if self.accepted == 0 {
            complaints.push("nothing was accepted".to_owned());
        }
        complaints
    }

    pub(crate) fn describe(&self) -> String {
        Self::table([self].into_iter())
    }

    /// One row for each run.
    pub(crate) fn table<'a>(scores: impl Iterator<Item = &'a Self>) -> String {
        const HEADER: [&str; 11] = [
            "score",
            "gross",
            "fees",
            "p99",
            "bonus",
            "fine",
            "inconsistencies",
            "lag",
            "failures",
            "default",
            "fallback",
        ];
        let mut rows = vec![HEADER.map(str::to_owned).to_vec()];
        rows.extend(scores.map(|score| score.row().to_vec()));
        aligned(&rows)
    }

    fn row(&self) -> [String; 11] {
        let whole = |count: i64| if count < 0 { count.to_string() } else { grouped(count.unsigned_abs()) };
        [
            format!("{:.2}", self.score),
            format!("{:.2}", self.gross),
            format!("{:.2}", self.fees),
            self.p99.clone(),
            self.bonus.clone(),
            format!("{:.2}", self.fine),
            whole(self.inconsistencies),
            whole(self.lag),
            whole(self.failures),
            whole(self.default_requests),
            whole(self.fallback_requests),
        ]
    }
}

/// k6's own latencies of all requests that were answered as expected, in µs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Latency {
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
}

impl Latency {
    /// What to ask k6 for. It keeps every duration whatever it is asked and sorts them once, in the end, so that more points cost
    /// nothing while the load runs. Both scripts need the last two.
    pub(super) const STATISTICS: &str = "med,p(90),p(99.9),p(99),count";

    /// From k6's own summary, which knows more digits than a score shows.
    pub(super) fn of_summary(file: &Path) -> Option<Self> {
        Self::parse(&serde_json::from_slice(&fs::read(file).ok()?).ok()?)
    }

    #[allow(
        clippy::float_arithmetic,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "latencies for display; `as` saturates, and none is negative"
    )]
    fn parse(summary: &Value) -> Option<Self> {
        let trend = summary.get("metrics")?.get("http_req_duration{expected_response:true}")?;
        let micros = |key: &str| {
            trend.get(key).and_then(Value::as_f64).map(|millis| (millis * 1_000.0).round() as u64)
        };
        Some(Self {
            p50_us: micros("med")?,
            p90_us: micros("p(90)")?,
            p99_us: micros("p(99)")?,
            p999_us: micros("p(99.9)")?,
        })
    }
}

fn missing(path: &str) -> String {
    format!("the script's result has no {path} of the expected kind")
}

fn amount(json: &Value, path: &str) -> Fallible<f64> {
    json.pointer(path).and_then(Value::as_f64).ok_or_else(|| missing(path))
}

fn count(json: &Value, path: &str) -> Fallible<i64> {
    let value = json.pointer(path).ok_or_else(|| missing(path))?;
    value.as_i64().ok_or_else(|| missing(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn own(changes: &[(&str, i64)]) -> Value {
        let mut result = json!({
            "gross": 100.0, "fees": 5.0, "net": 95.0, "score": 113.05, "p99_ms": 1.31, "bonus_percent": 19, "fine": 0,
            "inconsistencies": 0, "final_differences": 0, "audits": 6, "lag": 0, "failures": 0, "accepted": 5,
            "default_requests": 5, "fallback_requests": 0,
        });
        for (key, value) in changes {
            result[*key] = json!(value);
        }
        result
    }

    #[test]
    fn each_defect_of_a_run_is_a_complaint() {
        assert_eq!(Score::of_own(&own(&[])).unwrap().complaints(), Vec::<String>::new());
        for defect in ["inconsistencies", "final_differences", "lag", "failures"] {
            for count in [1, -1] {
                let complaints = Score::of_own(&own(&[(defect, count)])).unwrap().complaints();
                assert_eq!(complaints.len(), 1, "{defect} {count}: {complaints:?}");
            }
        }
        assert_eq!(Score::of_own(&own(&[("accepted", 0)])).unwrap().complaints(), ["nothing was accepted"]);
    }

    #[test]
    fn a_missing_figure_is_an_error_not_a_zero() {
        for key in ["lag", "failures", "inconsistencies", "gross"] {
            let mut result = own(&[]);
            result.as_object_mut().unwrap().remove(key);
            assert!(Score::of_own(&result).unwrap_err().contains(key));
        }
    }

    #[test]
    fn the_contests_result_is_read() {
        let json = json!({
            "total_liquido": 318.4, "total_bruto": 300.5, "total_taxas": 15.02,
            "p99": { "valor": "1.31ms", "bonus": "19%" },
            "multa": { "total": 0, "composicao": { "num_inconsistencias": 2 } },
            "lag": { "lag": -1 },
            "pagamentos_solicitados": { "qtd_sucesso": 15, "qtd_falha": 3 },
            "pagamentos_realizados_default": { "num_pagamentos": 14 },
            "pagamentos_realizados_fallback": { "num_pagamentos": 2 },
        });
        let score = Score::of_contest(&json).unwrap();
        assert_eq!(score.complaints(), ["inconsistencies 2", "lag -1", "failures 3"]);
        assert!(score.describe().contains("1.31ms    19%"), "{}", score.describe());
    }

    #[test]
    fn the_summarys_milliseconds_are_microseconds_here() {
        let mut summary = json!({ "metrics": { "http_req_duration{expected_response:true}": {
            "med": 0.7311, "p(90)": 1.25, "p(99)": 2.7604, "p(99.9)": 9.0, "count": 17,
        } } });
        let expected = Latency { p50_us: 731, p90_us: 1_250, p99_us: 2_760, p999_us: 9_000 };
        assert_eq!(Latency::parse(&summary), Some(expected));
        summary["metrics"]["http_req_duration{expected_response:true}"]["p(99.9)"].take();
        assert_eq!(Latency::parse(&summary), None, "a figure that is missing is not a zero");
    }
}
