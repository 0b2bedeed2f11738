//! The two model processors: their faults while the load runs, their books afterwards.
//!
//! The books are read from the processors' own lists (`/admin/payments`), never from anything that Galo says. Faults and
//! outages are set through the same door, and always taken back before the books are read.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::client::{Answer, Client, Origin};

pub(crate) const NAMES: [&str; 2] = ["default", "fallback"];

/// A list of a million payments takes a while, on a busy machine more.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Probabilities of the model's faults, and how long a hang lasts.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Faults {
    pub(crate) close_before_insert: f64,
    pub(crate) close_after_insert: f64,
    pub(crate) hang_before_insert: f64,
    pub(crate) hang_after_insert: f64,
    pub(crate) garbage: f64,
    pub(crate) random500: f64,
    pub(crate) random429: f64,
    pub(crate) hang_ms: u64,
    pub(crate) seed: u64,
}

/// One payment in a processor's books.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stored {
    pub(crate) correlation_id: Uuid,
    pub(crate) amount_cents: u64,
    pub(crate) requested_at_ms: i64,
}

/// What a processor counted.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Statistics {
    pub(crate) posts: u64,
    pub(crate) inserted: u64,
    pub(crate) duplicates: u64,
    pub(crate) failures500: u64,
    pub(crate) refused429: u64,
    pub(crate) health429: u64,
}

/// One processor.
#[derive(Debug)]
pub(crate) struct Processor {
    name: &'static str,
    token: HeaderValue,
    client: Client,
}

impl Processor {
    pub(crate) fn new(name: &'static str, origin: Origin, token: HeaderValue) -> Self {
        Self { name, token, client: Client::new(origin, TIMEOUT) }
    }

    pub(crate) async fn set_faults(&self, faults: &Faults) -> Result<(), String> {
        let body = serde_json::to_vec(faults).map_err(|error| error.to_string())?;
        self.ask(Method::PUT, "/admin/configurations/faults", body).await.map(drop)
    }

    /// The failure switch: every payment is answered 500, nothing is stored.
    pub(crate) async fn set_failing(&self, failing: bool) -> Result<(), String> {
        let body = format!(r#"{{"failure":{failing}}}"#).into_bytes();
        self.ask(Method::PUT, "/admin/configurations/failure", body).await.map(drop)
    }

    /// Everything in its books.
    pub(crate) async fn books(&self) -> Result<Vec<Stored>, String> {
        let answer = self.ask(Method::GET, "/admin/payments", Vec::new()).await?;
        let text = answer.text();
        text.lines()
            .map(|line| {
                serde_json::from_str(line)
                    .map_err(|error| format!("processor {}: {error}: {line}", self.name))
            })
            .collect()
    }

    pub(crate) async fn statistics(&self) -> Result<Statistics, String> {
        let answer = self.ask(Method::GET, "/admin/statistics", Vec::new()).await?;
        serde_json::from_slice(&answer.body).map_err(|error| format!("processor {}: {error}", self.name))
    }

    async fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Answer, String> {
        let mut headers = HeaderMap::new();
        headers.insert("x-rinha-token", self.token.clone());
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let what = format!("processor {}: {method} {path}", self.name);
        let answer = self.client.send(method, path, headers, Bytes::from(body)).await;
        answer.map_err(|failure| format!("{what}: {failure}"))?.ok(&what)
    }
}
