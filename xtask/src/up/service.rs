//! The processes of one Galo: program, arguments, environment and limits of each, in the order of their start.
//!
//! The order is a courtesy (fewer reconnects in the logs), not a need: each program must come up whatever is there already, since
//! each may be restarted alone. Nothing here starts anything.

use std::path::{Path, PathBuf};

use super::fees::fraction;
use super::{Options, Processors};
use crate::repo::{self, Fallible};
use crate::tools;

/// One process to keep running.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Whether the compose file limits it (the processors are not ours to limit).
    pub(crate) limited: bool,
}

pub(crate) const AGGREGATOR: &str = "aggregator";
pub(crate) const GATEWAYS: [&str; 2] = ["gateway-1", "gateway-2"];
pub(crate) const HAPROXY: &str = "haproxy";
pub(crate) const PROCESSORS: [&str; 2] = ["processor-default", "processor-fallback"];

/// Says which program is missing, if one is.
pub(crate) fn check_programs(options: &Options) -> Fallible<()> {
    for service in services(options)? {
        if !service.program.is_file() {
            return Err(format!("{} is missing: build it (leave --no-build out)", service.program.display()));
        }
    }
    let configuration = configuration();
    if configuration.is_file() { Ok(()) } else { Err(format!("{} is missing", configuration.display())) }
}

fn configuration() -> PathBuf {
    repo::root().join("haproxy/haproxy.cfg")
}

/// All processes, in the order of their start.
pub(crate) fn services(options: &Options) -> Fallible<Vec<Service>> {
    let home = options.home();
    let programs = repo::program_folder(options.profile.name());
    let mut services = Vec::new();
    if options.processors == Processors::Simulated {
        let of_processor = [("default", options.default_port), ("fallback", options.fallback_port)];
        let fees = options.fees.unwrap_or_default().both_bps().map(fraction);
        for ((name, (processor, port)), fee) in PROCESSORS.into_iter().zip(of_processor).zip(&fees) {
            let arguments = [
                "--listen",
                &format!("127.0.0.1:{port}"),
                "--fee",
                fee,
                "--token",
                "123",
                "--name",
                processor,
            ];
            services.push(Service {
                name,
                program: programs.join("processor"),
                arguments: arguments.map(str::to_owned).to_vec(),
                environment: Vec::new(),
                limited: false,
            });
        }
    }
    if options.floor {
        services.extend(GATEWAYS.map(|name| Service {
            name,
            program: programs.join("galo-bench"),
            arguments:
                ["respond", "--socket", &home.socket(name).display().to_string()].map(str::to_owned).to_vec(),
            environment: Vec::new(),
            limited: true,
        }));
        services.push(haproxy(options)?);
        return Ok(services);
    }
    let aggregator_socket = home.socket(AGGREGATOR).display().to_string();
    services.push(Service {
        name: AGGREGATOR,
        program: programs.join("galo-aggregator"),
        arguments: Vec::new(),
        environment: vec![
            ("AGGREGATOR_SOCKET", aggregator_socket.clone()),
            ("AGGREGATOR_HTTP_SOCKET", home.socket("aggregator-http").display().to_string()),
            ("JOURNAL_DIR", home.journal().display().to_string()),
        ],
        limited: true,
    });
    for (name, instance) in GATEWAYS.into_iter().zip(1..) {
        let mut environment = vec![
            ("GATEWAY_INSTANCE", format!("{instance}")),
            ("GATEWAY_SOCKET", home.socket(name).display().to_string()),
            ("AGGREGATOR_SOCKET", aggregator_socket.clone()),
            ("PROCESSOR_DEFAULT_URL", options.processor_url("default")),
            ("PROCESSOR_FALLBACK_URL", options.processor_url("fallback")),
        ];
        if options.processors == Processors::Simulated || options.fees.is_some() {
            let [default_bps, fallback_bps] = options.fees.unwrap_or_default().both_bps();
            environment.extend([
                ("PROCESSOR_DEFAULT_FEE_BPS", default_bps.to_string()),
                ("PROCESSOR_FALLBACK_FEE_BPS", fallback_bps.to_string()),
            ]);
        }
        if options.processors == Processors::Simulated || options.purge {
            // Payments with a model lose nothing when purged, and the contest's script asks for it; with processors that
            // are not ours, whoever starts Galo has to allow it.
            environment.push(("PURGE_ALLOWED", "true".to_owned()));
        }
        services.push(Service {
            name,
            program: programs.join("galo-gateway"),
            arguments: Vec::new(),
            environment,
            limited: true,
        });
    }
    services.push(haproxy(options)?);
    Ok(services)
}

fn haproxy(options: &Options) -> Fallible<Service> {
    let mut environment = vec![
        ("GALO_RUN_DIR", options.home().run().display().to_string()),
        ("GALO_API_PORT", options.port.to_string()),
        ("GALO_STATS_PORT", options.stats_port.to_string()),
        // The file is there if the kernel has IPv6 at all; then HAProxy can listen on it, even where no address is set.
        ("GALO_IPV6", if Path::new("/proc/net/if_inet6").exists() { "yes" } else { "no" }.to_owned()),
    ];
    if options.floor {
        // Its responders have one listener each, whatever the gateways are told.
        environment.push(("GATEWAY_THREADS", "1".to_owned()));
    }
    Ok(Service {
        name: HAPROXY,
        program: tools::haproxy()?,
        arguments: vec!["-db".to_owned(), "-f".to_owned(), configuration().display().to_string()],
        environment,
        limited: true,
    })
}
