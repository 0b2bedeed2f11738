//! `[processor.health]`: what a processor says of itself, where it says anything.

use crate::json::Scalar;
use crate::request::{Head, head_text, path};
use crate::rules::pointer;
use crate::secret::Secret;
use crate::table::Table;
use crate::template::{Template, Unrenderable, Values};
use crate::text::Scope;

/// `[processor.health]`, compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// How long to wait between two checks, over all gateways.
    pub every_ms: u64,
    template: Template,
    failing: Option<String>,
    delay_ms: Option<String>,
}

/// What a processor says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthReport {
    /// Payments fail.
    pub failing: bool,
    /// The least time that a payment takes; 0 where it does not say.
    pub delay_ms: u64,
}

impl Health {
    /// Writes the request into the buffer, which is emptied first. It asks for the connection to be closed behind it.
    ///
    /// # Errors
    /// [`Unrenderable::NoToken`].
    pub fn render(&self, token: Option<&Secret>, buffer: &mut Vec<u8>) -> Result<(), Unrenderable> {
        self.template.render(&Values { token, ..Values::nothing() }, buffer)
    }

    /// Reads the answer. `None`: it is no report.
    #[must_use]
    pub fn read(&self, status: u16, body: &[u8]) -> Option<HealthReport> {
        if !(200..=299).contains(&status) {
            // A processor that reports by its body says nothing by its status: 429 means that somebody asked too early.
            let by_status = self.failing.is_none() && status >= 500;
            return by_status.then_some(HealthReport { failing: true, delay_ms: 0 });
        }
        let scalar = |pointer: &str| str::from_utf8(body).ok().and_then(|body| Scalar::at(body, pointer));
        let failing = match &self.failing {
            None => false,
            Some(pointer) => match scalar(pointer)?.text.as_ref() {
                "true" => true,
                "false" => false,
                _ => return None,
            },
        };
        let delay_ms = match &self.delay_ms {
            None => 0,
            Some(pointer) => scalar(pointer)?.text.parse().ok()?,
        };
        Some(HealthReport { failing, delay_ms })
    }

    pub(crate) fn read_table(table: Option<Table<'_>>, head: &Head<'_>) -> Option<Self> {
        let mut table = table?;
        let every_ms = table.number_or("every_ms", 5_000, 100..=3_600_000);
        let failing = table.get("failing").and_then(|entry| pointer(&entry));
        let delay_ms = table.get("delay_ms").and_then(|entry| pointer(&entry));
        let entry = table.need("path", "the health check's path, or \"none\"");
        table.finish();
        let entry = entry?;
        if entry.text() == Some("none") {
            return None;
        }
        let parts = path(&entry, Scope::Head)?;
        if parts.iter().any(|part| matches!(part, crate::text::Part::Placeholder(_))) {
            entry.expected("a path without placeholders: a health check is about no payment");
        }
        let mut template = head.begin(head_text(&parts, head.key));
        template.bytes("Connection: close\r\n\r\n");
        Some(Self { every_ms, template, failing, delay_ms })
    }
}
