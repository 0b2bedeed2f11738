//! Which processors there are: from the file that `GALO_PROCESSORS` names, or from the variables of the contest's two.

use std::path::Path;

use galo_profile::{Processors, Routing};
use galo_wire::{PROCESSORS_LEN_MAX, Processor};

use crate::env::Env;

/// The variable that names the file.
pub const FILE: &str = "GALO_PROCESSORS";

/// Why the processors cannot be used: a line for each mistake.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ProcessorsError(String);

/// Reads the processors with all that it takes to talk to them.
///
/// Without a file they are the contest's two, with the profile `contest`; the variables that say what they are do nothing beside a file.
///
/// # Errors
/// Each mistake, with its variable, or its file and line.
pub fn read(env: &Env) -> Result<Processors, ProcessorsError> {
    if let Some(path) = env.text(FILE) {
        return Processors::read(Path::new(&path)).map_err(|errors| ProcessorsError(errors.to_string()));
    }
    let text = |name, default: &str| env.text(name).unwrap_or_else(|| default.to_owned());
    let read = || {
        let fees = [
            env.number("PROCESSOR_DEFAULT_FEE_BPS", 500, 0..=10_000_u32)?,
            env.number("PROCESSOR_FALLBACK_FEE_BPS", 1_500, 0..=10_000_u32)?,
        ];
        let concurrency_max = env.number("PROCESSOR_CONCURRENCY_MAX", 400, 1..=10_000_u32)?;
        let attempt_timeout_ms = env.number("ATTEMPT_TIMEOUT_MS", 30_000, 100..=3_600_000_u64)?;
        let routing = env.read("ROUTING_PROFILE", Routing::CONTEST, |name| {
            Routing::named(name).ok_or_else(|| "contest or steady".to_owned())
        })?;
        let patience_ms = env.number("ROUTING_PATIENCE_MS", routing.patience_ms, 0..=86_400_000_u64)?;
        Ok((fees, concurrency_max, attempt_timeout_ms, Routing { patience_ms, ..routing }))
    };
    let (fees, concurrency_max, attempt_timeout_ms, routing) =
        read().map_err(|error: crate::env::EnvError| ProcessorsError(error.to_string()))?;
    let default_url = text("PROCESSOR_DEFAULT_URL", "http://payment-processor-default:8080");
    let fallback_url = text("PROCESSOR_FALLBACK_URL", "http://payment-processor-fallback:8080");
    let processors =
        Processors::contest(&default_url, &fallback_url, fees, concurrency_max, attempt_timeout_ms);
    let processors = processors.map_err(|errors| ProcessorsError(errors.to_string()))?;
    Ok(processors.with_routing(routing))
}

/// Reads which processors there are, for a process that does not talk to them: no secret is looked at.
///
/// # Errors
/// Each mistake, with its file and line.
pub fn read_names(env: &Env) -> Result<ProcessorList, ProcessorsError> {
    let Some(path) = env.text(FILE) else {
        return Ok(ProcessorList {
            names: Names::pair(),
            health_checked: vec![(Processor::DEFAULT, None), (Processor::FALLBACK, None)],
        });
    };
    let processors = Processors::read_without_secrets(Path::new(&path))
        .map_err(|errors| ProcessorsError(errors.to_string()))?;
    let checked = |it: &galo_profile::Processor| Some((number(it)?, Some(it.health.as_ref()?.every_ms)));
    let health_checked = processors.iter().filter_map(checked).collect();
    Ok(ProcessorList { names: Names::of_all(&processors), health_checked })
}

/// Which processors there are.
pub struct ProcessorList {
    /// By what names.
    pub names: Names,
    /// Those that say something of themselves, and how often the file wants them asked, ms.
    pub health_checked: Vec<(Processor, Option<u64>)>,
}

/// A processor's number.
#[must_use]
pub fn number(processor: &galo_profile::Processor) -> Option<Processor> {
    Processor::ALL.get(usize::from(processor.number)).copied()
}

/// The names of the processors that there are, by their numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names([Option<Box<str>>; PROCESSORS_LEN_MAX]);

impl Names {
    /// The contest's: `default` and `fallback`.
    #[must_use]
    pub fn pair() -> Self {
        [(Processor::DEFAULT, "default"), (Processor::FALLBACK, "fallback")].into_iter().collect()
    }

    /// Of a file.
    #[must_use]
    pub fn of_all(processors: &Processors) -> Self {
        processors.iter().filter_map(|it| Some((number(it)?, it.name.as_str()))).collect()
    }

    /// Its name; one that is not configured has its number.
    #[must_use]
    pub fn of(&self, processor: Processor) -> &str {
        const UNNAMED: [&str; PROCESSORS_LEN_MAX] = ["0", "1", "2", "3", "4", "5", "6", "7"];
        self.0[processor.index()].as_deref().unwrap_or(UNNAMED[processor.index()])
    }

    /// Whether it is configured.
    #[must_use]
    pub const fn has(&self, processor: Processor) -> bool {
        self.0[processor.index()].is_some()
    }

    /// In the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Processor, &str)> {
        Processor::ALL
            .into_iter()
            .filter_map(|processor| Some((processor, self.0[processor.index()].as_deref()?)))
    }
}

impl<'a> FromIterator<(Processor, &'a str)> for Names {
    fn from_iter<I: IntoIterator<Item = (Processor, &'a str)>>(names: I) -> Self {
        let mut all = Self::default();
        for (processor, name) in names {
            all.0[processor.index()] = Some(name.into());
        }
        all
    }
}
