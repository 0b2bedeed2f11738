//! The gateway's configuration: read once from the environment, checked, with units in its names.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use galo_engine::dispatcher::DispatcherConfig;
use galo_engine::router::RouterConfig;
use galo_shell::env::{Env, EnvError};

use crate::processor::{Endpoint, EndpointError};

/// How the gateway does its I/O, as configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DriverChoice {
    /// io_uring, or epoll with a warning.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

/// See the table in README.md.
#[derive(Clone, Debug)]
pub struct Config {
    /// `GATEWAY_INSTANCE`.
    pub instance: u8,
    /// `GATEWAY_SOCKET`: the first thread's, see [`Config::thread_socket`].
    pub socket: PathBuf,
    /// `GATEWAY_THREADS`.
    pub thread_count: u16,
    /// `GATEWAY_DRIVER`.
    pub driver: DriverChoice,
    /// `GATEWAY_PINNED`: each thread stays on one core.
    pub pinned: bool,
    /// `GATEWAY_SHIFT_US`: of a busy thread; 0 for none. HAProxy must be told the same.
    pub shift: Duration,
    /// `AGGREGATOR_SOCKET`.
    pub aggregator_socket: PathBuf,
    /// `PROCESSOR_DEFAULT_URL`, `PROCESSOR_FALLBACK_URL`, not yet resolved, by `Processor::index`.
    pub processor_urls: [(&'static str, String); 2],
    /// `ATTEMPT_TIMEOUT_MS`.
    pub attempt_timeout_ms: u64,
    /// `DRAIN_MS_MAX`.
    pub drain_ms_max: u64,
    /// `PURGE_ALLOWED`.
    pub purge_allowed: bool,
    /// The engine's share, for one thread.
    pub dispatcher: DispatcherConfig,
}

impl Config {
    /// Reads and checks everything but the processors' names.
    ///
    /// # Errors
    /// The first variable that is not as expected.
    pub fn read(env: &Env, seed: u64) -> Result<Self, EnvError> {
        let instance = env.number("GATEWAY_INSTANCE", 1, 1..=u8::MAX)?;
        let thread_count = env.number("GATEWAY_THREADS", 1, 1..=64_u16)?;
        let path = |name, default: String| PathBuf::from(env.text(name).unwrap_or(default));
        let url = |name, default: &str| (name, env.text(name).unwrap_or_else(|| default.to_owned()));
        let fee = |name, default| env.number(name, default, 0..=10_000_u32);
        let router = RouterConfig::default();
        let per_thread = |total: u64| (total / u64::from(thread_count)).max(1);
        let concurrency_max = env.number("PROCESSOR_CONCURRENCY_MAX", 400, 1..=10_000_u32)?;
        let queue_len_max = env.number("QUEUE_LEN_MAX", 225_000, 1..=100_000_000_u64)?;
        Ok(Self {
            instance,
            socket: path("GATEWAY_SOCKET", format!("/run/galo/gateway-{instance}.sock")),
            thread_count,
            driver: env.read("GATEWAY_DRIVER", DriverChoice::Auto, |text| match text {
                "auto" => Ok(DriverChoice::Auto),
                "io_uring" => Ok(DriverChoice::Uring),
                "epoll" => Ok(DriverChoice::Epoll),
                _ => Err("auto, io_uring or epoll".to_owned()),
            })?,
            pinned: env.flag("GATEWAY_PINNED", true)?,
            shift: Duration::from_micros(env.number("GATEWAY_SHIFT_US", 487, 0..=10_000_u64)?),
            aggregator_socket: path("AGGREGATOR_SOCKET", "/run/galo/aggregator.sock".to_owned()),
            processor_urls: [
                url("PROCESSOR_DEFAULT_URL", "http://payment-processor-default:8080"),
                url("PROCESSOR_FALLBACK_URL", "http://payment-processor-fallback:8080"),
            ],
            attempt_timeout_ms: env.number("ATTEMPT_TIMEOUT_MS", 30_000, 100..=3_600_000)?,
            drain_ms_max: env.number("DRAIN_MS_MAX", 8_000, 0..=3_600_000)?,
            purge_allowed: env.flag("PURGE_ALLOWED", false)?,
            dispatcher: DispatcherConfig {
                router: RouterConfig {
                    fee_bps: [
                        fee("PROCESSOR_DEFAULT_FEE_BPS", router.fee_bps[0])?,
                        fee("PROCESSOR_FALLBACK_FEE_BPS", router.fee_bps[1])?,
                    ],
                    patience_us: env.number(
                        "ROUTING_PATIENCE_MS",
                        router.patience_us / 1_000,
                        0..=86_400_000_u64,
                    )? * 1_000,
                    ..router
                },
                queue_len_max: usize::try_from(per_thread(queue_len_max)).expect("64-bit, or bounded above"),
                concurrency_max: u32::try_from(per_thread(u64::from(concurrency_max)))
                    .expect("bounded above"),
                accept_wait_us_max: env.number("ACCEPT_WAIT_MS_MAX", 1_000, 1..=60_000_u64)? * 1_000,
                seed,
            },
        })
    }

    /// Where a thread listens, counted from 0: `gateway-1.sock`, then `gateway-1.2.sock`, `gateway-1.3.sock` and so on.
    #[must_use]
    pub fn thread_socket(&self, thread: u16) -> PathBuf {
        if thread == 0 {
            return self.socket.clone();
        }
        let number = (thread + 1).to_string();
        let extension = self.socket.extension().map_or(number.clone().into(), |extension| {
            let mut numbered = OsString::from(number + ".");
            numbered.push(extension);
            numbered
        });
        self.socket.with_extension(extension)
    }

    /// Looks up the processors' addresses; blocks for as long as that takes. A name that does not resolve (yet) is no
    /// mistake: it is tried again when there is something to send.
    ///
    /// # Errors
    /// A URL that is none.
    pub fn resolve(&self) -> Result<[Endpoint; 2], EnvError> {
        let [default, fallback] = &self.processor_urls;
        let resolve = |(name, url): &(&'static str, String)| {
            Endpoint::parse_and_resolve(url).map_err(|error: EndpointError| EnvError {
                name,
                value: url.clone(),
                expected: format!("http://host[:port][/prefix]; it {error}"),
            })
        };
        // Side by side: a resolver that hangs costs its wait once.
        let [default, fallback] = std::thread::scope(|scope| {
            let threads = [scope.spawn(|| resolve(default)), scope.spawn(|| resolve(fallback))];
            threads.map(|thread| thread.join().expect("a panic aborts the process"))
        });
        Ok([default?, fallback?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &'static [(&'static str, &'static str)]) -> Result<Config, String> {
        Config::read(&Env::of_list(list), 1).map_err(|error| error.to_string())
    }

    #[test]
    fn each_thread_has_its_socket() {
        let config = read(&[("GATEWAY_SOCKET", "/run/galo/gateway-1.sock")]).unwrap();
        let names = [0, 1, 9].map(|thread| config.thread_socket(thread));
        let expected = ["gateway-1.sock", "gateway-1.2.sock", "gateway-1.10.sock"];
        assert_eq!(names, expected.map(|name| PathBuf::from("/run/galo").join(name)));
        let bare = read(&[("GATEWAY_SOCKET", "/tmp/galo")]).unwrap();
        assert_eq!(bare.thread_socket(1), PathBuf::from("/tmp/galo.2"));
    }

    #[test]
    fn threads_share_the_bounds() {
        let list =
            &[("GATEWAY_THREADS", "4"), ("PROCESSOR_CONCURRENCY_MAX", "400"), ("QUEUE_LEN_MAX", "1000")];
        let config = read(list).expect("all is well");
        assert_eq!((config.dispatcher.concurrency_max, config.dispatcher.queue_len_max), (100, 250));
    }

    #[test]
    fn mistakes_are_named() {
        for (list, error) in [
            (&[("GATEWAY_INSTANCE", "0")], r#"GATEWAY_INSTANCE="0": expected a whole number from 1 to 255"#),
            (&[("GATEWAY_DRIVER", "kqueue")], r#"GATEWAY_DRIVER="kqueue": expected auto, io_uring or epoll"#),
            (&[("PURGE_ALLOWED", "1")], r#"PURGE_ALLOWED="1": expected true or false"#),
            (
                &[("PROCESSOR_DEFAULT_FEE_BPS", "5%")],
                r#"PROCESSOR_DEFAULT_FEE_BPS="5%": expected a whole number from 0 to 10000"#,
            ),
        ] {
            assert_eq!(read(list).err().as_deref(), Some(error));
        }
    }

    #[test]
    fn a_bad_url_is_named() {
        let config = read(&[("PROCESSOR_FALLBACK_URL", "https://bank")]).expect("not looked at yet");
        let error = config.resolve().expect_err("https is not spoken").to_string();
        assert!(error.starts_with(r#"PROCESSOR_FALLBACK_URL="https://bank": expected http://"#), "{error}");
    }
}
