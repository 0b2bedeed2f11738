//! The gateway's configuration: read once from the environment, checked, with units in its names.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use galo_engine::dispatcher::{DispatcherConfig, DoubtPolicy, ProcessorPolicy};
use galo_engine::rate::RateLimit;
use galo_engine::router::{Cost, RouterConfig};
use galo_engine::{PROCESSORS_LEN_MAX, Processor};
use galo_profile::{Auth, Lookup, Processor as Profile, Processors, Url};
use galo_shell::env::{Env, EnvError};
use galo_shell::processors::{self, Names, ProcessorsError};

use crate::processor::{Endpoint, TlsError, TlsOptions};

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
    /// `ADMISSION_TABLE`: where this gateway grants by itself, once the aggregator says so; `None`: it asks for each payment.
    pub admission_table: Option<PathBuf>,
    /// `GALO_PROCESSORS`, or the variables of the contest's two.
    pub processors: Processors,
    /// The processors' names.
    pub names: Arc<Names>,
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
    /// The first variable that is not as expected, or each mistake of the processors' file.
    pub fn read(env: &Env, seed: u64) -> Result<Self, ConfigError> {
        let instance = env.number("GATEWAY_INSTANCE", 1, 1..=u8::MAX)?;
        let thread_count = env.number("GATEWAY_THREADS", 1, 1..=64_u16)?;
        let path = |name, default: String| PathBuf::from(env.text(name).unwrap_or(default));
        let per_thread = |total: u64| (total / u64::from(thread_count)).max(1);
        let processors = processors::read(env)?;
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
            admission_table: env.text("ADMISSION_TABLE").map(PathBuf::from),
            names: Arc::new(Names::of_all(&processors)),
            drain_ms_max: env.number("DRAIN_MS_MAX", 8_000, 0..=3_600_000)?,
            purge_allowed: env.flag("PURGE_ALLOWED", false)?,
            dispatcher: DispatcherConfig {
                router: router_config(&processors),
                queue_len_max: usize::try_from(per_thread(queue_len_max)).expect("64-bit, or bounded above"),
                processors: policies(&processors, thread_count),
                accept_wait_us_max: env.number("ACCEPT_WAIT_MS_MAX", 1_000, 1..=60_000_u64)? * 1_000,
                seed,
            },
            processors,
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

    /// Looks up the processors' addresses, and reads what TLS needs; blocks for as long as that takes. A name that does not resolve (yet) is no
    /// mistake: it is tried again when there is something to send.
    ///
    /// # Errors
    /// A certificate or a key that is none.
    pub fn resolve(&self) -> Result<Vec<Reached>, ConfigError> {
        reach_all(&self.processors)
    }
}

/// See [`Config::resolve`].
pub(crate) fn reach_all(processors: &Processors) -> Result<Vec<Reached>, ConfigError> {
    // Side by side: a resolver that hangs costs its wait once.
    std::thread::scope(|scope| {
        let threads: Vec<_> = processors.iter().map(|it| scope.spawn(|| Reached::new(it))).collect();
        let (mut reached, mut problems) = (Vec::new(), Vec::new());
        for thread in threads {
            match thread.join().expect("a panic aborts the process") {
                Ok(one) => reached.push(one),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(reached) } else { Err(ConfigError::Endpoints(problems.join("\n"))) }
    })
}

/// Why the gateway does not start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// A variable.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// What the processors are.
    #[error(transparent)]
    Processors(#[from] ProcessorsError),
    /// How some of them are reached, a line each.
    #[error("{0}")]
    Endpoints(String),
}

/// A processor, and where it is.
#[derive(Clone, Debug)]
pub struct Reached {
    /// Its number.
    pub processor: Processor,
    /// What it is.
    pub profile: Arc<Profile>,
    /// Where attempts go.
    pub endpoint: Endpoint,
    /// Where tokens are asked for, if it wants any.
    pub token_endpoint: Option<Endpoint>,
}

impl Reached {
    fn new(profile: &Profile) -> Result<Self, String> {
        let fail = |problem: TlsError| match problem {
            // It says itself where that stands.
            TlsError::File { .. } => problem.to_string(),
            _ => format!("processor {}: {problem}", profile.name),
        };
        let tls = profile.tls.as_ref().map_or_else(TlsOptions::default, |tls| TlsOptions {
            ca: tls.ca.clone(),
            client_cert: tls.client.as_ref().map(|(certificate, _)| certificate.clone()),
            client_key: tls.client.as_ref().map(|(_, key)| key.clone()),
            server_name: Some(tls.server_name.clone()),
        });
        let reach = |url: &Url, options: &TlsOptions| Endpoint::resolve(url).secure(options).map_err(fail);
        let token_endpoint = match &profile.auth {
            // An authorization server is known to the same authorities, under a name of its own.
            Auth::OAuth2(oauth2) if oauth2.token_url.https => {
                Some(reach(&oauth2.token_url, &TlsOptions { server_name: None, ..tls.clone() })?)
            }
            Auth::OAuth2(oauth2) => Some(reach(&oauth2.token_url, &TlsOptions::default())?),
            Auth::None | Auth::Header { .. } | Auth::Bearer(_) | Auth::Basic(_) => None,
        };
        Ok(Self {
            processor: processors::number(profile).expect("a file's numbers are 0 to 7"),
            endpoint: reach(&profile.url, &tls)?,
            token_endpoint,
            profile: Arc::new(profile.clone()),
        })
    }
}

pub(crate) fn router_config(processors: &Processors) -> RouterConfig {
    let mut config = RouterConfig {
        processors: processors.iter().filter_map(processors::number).collect(),
        patience_us: processors.routing.patience_ms * 1_000,
        thresholds: processors.routing.thresholds,
        ..RouterConfig::default()
    };
    for profile in processors.iter() {
        let galo_profile::Cost { basis_points, fixed_cents } = profile.cost;
        config.costs[usize::from(profile.number)] = Cost { basis_points, fixed_cents };
    }
    config
}

/// Threads share each processor's places and its rate evenly.
pub(crate) fn policies(processors: &Processors, thread_count: u16) -> [ProcessorPolicy; PROCESSORS_LEN_MAX] {
    let mut policies = [ProcessorPolicy::contest(1); PROCESSORS_LEN_MAX];
    for profile in processors.iter() {
        let window_us = profile.idempotency.window_s.map_or(u64::MAX, |window_s| {
            // An attempt that is sent at the window's end arrives behind it.
            window_s
                .saturating_mul(1_000)
                .saturating_sub(profile.connection.attempt_timeout_ms)
                .saturating_mul(1_000)
        });
        policies[usize::from(profile.number)] = ProcessorPolicy {
            concurrency_max: (profile.limits.concurrency / u32::from(thread_count)).max(1),
            rate: profile
                .limits
                .per_second
                .map(|per_second| RateLimit { per_second, shares: u32::from(thread_count) }),
            doubt: DoubtPolicy {
                resend_us_max: if profile.idempotency.has_key { window_us } else { 0 },
                has_lookup: profile.lookup.is_some(),
                absent_after_us: profile
                    .lookup
                    .as_ref()
                    .and_then(|lookup| lookup.not_found_after_ms)
                    .map_or(u64::MAX, |after_ms| after_ms.saturating_mul(1_000)),
                lookup_every_us: profile.lookup.as_ref().map_or(1_000_000, |lookup| lookup.every_ms * 1_000),
                give_up_us: if profile.idempotency.concurrent {
                    0
                } else {
                    profile.connection.attempt_timeout_ms.saturating_mul(1_000)
                },
                echoes_requested_at: profile.request.sends_requested_at()
                    && profile.lookup.as_ref().is_some_and(Lookup::tells_milliseconds),
            },
            declined_goes_on: profile.declined_goes_on,
        };
    }
    policies
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
        assert_eq!(
            (config.dispatcher.processors[0].concurrency_max, config.dispatcher.queue_len_max),
            (100, 250)
        );
    }

    #[test]
    fn threads_share_a_rate_to_the_fraction() {
        let text = "[[processor]]\nname = \"a\"\nprofile = \"contest\"\nurl = \"http://a\"\nlimits = { per_second = 7 }\n\
                    [[processor]]\nname = \"b\"\nprofile = \"contest\"\nurl = \"http://b\"\n";
        let processors = Processors::parse(text, "processors.toml", std::path::Path::new(".")).unwrap();
        let rates = policies(&processors, 3).map(|policy| policy.rate);
        assert_eq!(rates[..2], [Some(RateLimit { per_second: 7, shares: 3 }), None]);
    }

    #[test]
    fn a_time_is_believed_where_it_is_what_was_sent() {
        let lookup = |time: &str| {
            format!(
                "lookup = {{ path = \"/p/{{id}}\", not_found = 404, requested_at = {{ pointer = \"/at\", as = \"{time}\" }} }}"
            )
        };
        let own = |body: &str, time: &str| {
            format!(
                "name = \"a\"\nurl = \"http://a\"\n{}\nidempotency = {{ in = \"none\" }}\n\
                 request = {{ path = \"/p\", body = {{ x = \"{body}\" }} }}\noutcome = []\n",
                lookup(time)
            )
        };
        for (processor, expected) in [
            ("name = \"a\"\nurl = \"http://a\"\nprofile = \"contest\"\n".to_owned(), true),
            (own("{requested_at}", "iso"), true),
            (own("{requested_at}", "unix_ms"), true),
            (own("{requested_at}", "unix_s"), false),
            (own("{amount}", "iso"), false),
        ] {
            let text = format!("[[processor]]\n{processor}");
            let processors = Processors::parse(&text, "processors.toml", std::path::Path::new("."))
                .unwrap_or_else(|error| panic!("{error}: {text}"));
            let [policy, ..] = policies(&processors, 1);
            assert_eq!(policy.doubt.echoes_requested_at, expected, "{text}");
        }
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
        let error = read(&[("PROCESSOR_FALLBACK_URL", "ftp://bank")]).expect_err("ftp is not spoken");
        assert!(error.starts_with(r#"PROCESSOR_FALLBACK_URL="ftp://bank": expected http://"#), "{error}");
    }

    #[test]
    fn certificates_that_are_none_are_named_by_file_line_and_key_all_at_once() {
        let folder = std::env::temp_dir().join(format!("galo-config-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(folder.join("bad.pem"), pem).unwrap();
        let one = |name: &str| {
            format!(
                "[[processor]]\nname = \"{name}\"\nprofile = \"contest\"\nurl = \"https://{name}\"\ntls = {{ ca_file = \"bad.pem\" }}\n"
            )
        };
        let text = format!("{}{}", one("a"), one("b"));
        let processors = Processors::parse(&text, "processors.toml", &folder).unwrap();
        let error = reach_all(&processors).unwrap_err().to_string();
        let lines: Vec<&str> = error.lines().collect();
        for (line, number) in lines.iter().zip([5, 10]) {
            let start = format!("processors.toml:{number}: processor.tls.ca_file: ");
            assert!(line.starts_with(&start) && line.contains("certificate 1 is no authority's"), "{line}");
        }
        assert_eq!(lines.len(), 2, "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
