//! Logging: one line an event, on stderr, for whoever collects it.

use tracing_subscriber::EnvFilter;

use crate::env::{Env, EnvError};

/// Starts logging as `LOG` says (`error`, `warn`, `info`, `debug`, or a filter like `info,galo_gateway=debug`).
///
/// # Errors
/// If `LOG` is no filter.
pub fn start(env: &Env) -> Result<(), EnvError> {
    let filter = env.read("LOG", EnvFilter::new("info"), |text| {
        EnvFilter::try_new(text).map_err(|_| "a log filter such as info or galo_gateway=debug".to_owned())
    })?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    Ok(())
}
