//! Galo's gateway: HTTP in, processors out, on monoio, one runtime per thread.
//!
//! Start: configuration, socket, driver, then the threads. Stop (SIGTERM, SIGINT): no new connections, the requests at
//! hand are answered, waiting payments go back to the aggregator, attempts on their way are awaited, exit 0.

use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use galo_gateway::config::{Config, Reached};
use galo_gateway::core::{Core, Front};
use galo_gateway::driver::{self, Driver};
use galo_gateway::http::{HttpConfig, Server};
use galo_gateway::link;
use galo_gateway::metrics::{Board, BoardSeed, Identity};
use galo_gateway::reload::Reloads;
use galo_shell::arguments::{self, Asked};
use galo_shell::clock::{self, Clock};
use galo_shell::env::Env;
use galo_shell::socket::SocketFile;
use galo_shell::{exit, healthcheck, limits, log, socket};
use galo_wire::PROTOCOL_VERSION;
use galo_wire::record::{Hello, Role, processors_fingerprint};
use monoio::io::AsyncReadRent;
use nix::sys::signal::{SigSet, Signal};

/// For the test of what a payment costs; builds without debug assertions have the system's allocator alone.
#[cfg(debug_assertions)]
#[global_allocator]
static ALLOCATOR: galo_shell::allocation::Counting = galo_shell::allocation::Counting;

const PROGRAM: &str = "galo-gateway";

/// For `--help`.
const PURPOSE: &str = "Galo's gateway: takes payments over HTTP and has each processed once.";

fn main() -> ExitCode {
    let clock = Clock;
    let start_us = clock.now().monotonic_us;
    // Before the configuration is looked at: whoever asks for help may have none yet.
    let asked =
        match arguments::read(PROGRAM, env!("CARGO_PKG_VERSION"), PURPOSE, std::env::args_os().skip(1)) {
            Ok(asked) => asked,
            Err(status) => return status,
        };
    let env = Env::of_process();
    let incarnation = clock::incarnation();
    let config = match Config::read(&env, incarnation) {
        Ok(config) => config,
        Err(error) => return exit::refuse_to_start(PROGRAM, error, exit::CONFIGURATION),
    };
    if asked == Asked::Healthcheck {
        return healthcheck::run(PROGRAM, &config.socket);
    }
    let _last_lines = match log::start(&env) {
        Ok(flush) => flush,
        Err(error) => return exit::refuse_to_start(PROGRAM, error, exit::CONFIGURATION),
    };
    // The aggregator may come later, but where it is to be must be possible: waiting for ever would hide the mistake.
    if let Err(error) = socket::check("AGGREGATOR_SOCKET", &config.aggregator_socket) {
        return exit::refuse_to_start(PROGRAM, error, exit::ENVIRONMENT);
    }
    let open_files_max = limits::raise_open_files();
    tracing::debug!("at most {open_files_max} open files");
    // Before any other thread exists, so that all of them inherit it.
    let reloads = Reloads::new(&config);
    let stop = match block_signals().and_then(|signals| stop_on_signal(signals, Arc::clone(&reloads))) {
        Ok(stop) => stop,
        Err(error) => return exit::refuse_to_start(PROGRAM, error, exit::ENVIRONMENT),
    };
    let driver = match driver::choose(config.driver) {
        Ok(driver) => driver,
        Err(error) => return exit::refuse_to_start(PROGRAM, error, exit::ENVIRONMENT),
    };
    let bound: Result<Vec<_>, _> = (0..config.thread_count)
        .map(|thread| socket::bind("GATEWAY_SOCKET", &config.thread_socket(thread)))
        .collect();
    let (listeners, socket_files): (Vec<_>, Vec<_>) = match bound {
        Ok(bound) => bound.into_iter().unzip(),
        Err(error) => return exit::refuse_to_start(PROGRAM, error, exit::ENVIRONMENT),
    };
    let endpoints = match config.resolve() {
        Ok(endpoints) => endpoints,
        Err(error) => return exit::refuse_to_start(PROGRAM, error, exit::CONFIGURATION),
    };
    let all = endpoints.iter().flat_map(|it| [Some(&it.endpoint), it.token_endpoint.as_ref()]).flatten();
    for endpoint in all.filter(|it| it.addresses().is_empty()) {
        tracing::warn!(
            "{} does not resolve (yet); it is tried again when there is work",
            endpoint.host_header()
        );
    }
    let identity = Identity {
        names: Arc::clone(&config.names),
        instance: config.instance,
        driver: driver.name(),
        start_us: clock.now().monotonic_us - start_us,
    };
    tracing::info!(
        "gateway {} listens after {} µs on {driver:?}; {} thread(s); {}",
        config.instance,
        identity.start_us,
        config.thread_count,
        config.socket.display()
    );
    let result =
        run_threads(&config, driver, listeners, &endpoints, clock, incarnation, identity, &stop, &reloads);
    socket_files.iter().for_each(SocketFile::remove);
    match result {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => exit::refuse_to_start(PROGRAM, error, exit::ENVIRONMENT),
    }
}

/// Blocks the signals that are waited for, in this thread and all that it starts.
fn block_signals() -> std::io::Result<SigSet> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    Ok(signals)
}

/// A stream that ends at SIGTERM or SIGINT, for every thread that reads a clone of it: nobody has to look now and then. A thread of its
/// own waits for the signals, since handlers would interrupt the rings; at SIGHUP it reads the processors again.
fn stop_on_signal(signals: SigSet, reloads: Arc<Reloads>) -> std::io::Result<UnixStream> {
    let (stop, open) = UnixStream::pair()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        loop {
            match signals.wait() {
                Ok(Signal::SIGHUP) => reloads.read_again(&Env::of_process()),
                Ok(signal) => break tracing::info!("{signal}: stopping"),
                Err(error) => break tracing::error!("waiting for signals: {error}"),
            }
        }
        drop(open);
    })?;
    Ok(stop)
}

#[expect(clippy::too_many_arguments, reason = "what a process has at start, said once")]
fn run_threads(
    config: &Config,
    driver: Driver,
    listeners: Vec<UnixListener>,
    endpoints: &[Reached],
    clock: Clock,
    incarnation: u64,
    identity: Identity,
    stop: &UnixStream,
    reloads: &Arc<Reloads>,
) -> std::io::Result<()> {
    stop.set_nonblocking(driver == Driver::Epoll)?;
    let mut boards = Board::for_threads(identity, usize::from(config.thread_count)).into_iter();
    // A listener for each thread: HAProxy gives each its turn, and shows what it has.
    let mut listeners = listeners.into_iter();
    let mut start = |thread: u16| -> std::io::Result<Thread> {
        let listener = listeners.next().expect("a listener for each thread");
        listener.set_nonblocking(driver == Driver::Epoll)?;
        let mut config = config.clone();
        config.dispatcher.seed ^= u64::from(thread) << 48;
        Ok(Thread {
            hello: Hello {
                protocol_version: PROTOCOL_VERSION,
                role: Role::Gateway,
                instance: config.instance,
                thread,
                processors: processors_fingerprint(config.names.iter()),
                incarnation,
            },
            config,
            driver,
            listener,
            endpoints: endpoints.to_vec(),
            clock,
            board: boards.next().expect("a board for each thread"),
            stop: stop.try_clone()?,
            woken: reloads.subscribe()?,
            reloads: Arc::clone(reloads),
        })
    };
    let first = start(0)?;
    let mut others = Vec::new();
    for number in 1..config.thread_count {
        let thread = start(number)?;
        let name = format!("gateway-{number}");
        others.push(std::thread::Builder::new().name(name).spawn(move || {
            // At once, not when the first thread ends: a gateway that lacks a thread looks well and is not.
            thread.run().unwrap_or_else(|error| {
                exit::fatal(format_args!("thread {number}: {error}"), exit::ENVIRONMENT)
            });
        })?);
    }
    first.run()?;
    for other in others {
        other.join().expect("a panic aborts the process");
    }
    Ok(())
}

/// Everything that one thread begins with.
struct Thread {
    hello: Hello,
    config: Config,
    driver: Driver,
    listener: UnixListener,
    endpoints: Vec<Reached>,
    clock: Clock,
    board: BoardSeed,
    stop: UnixStream,
    /// A byte comes when `reloads` has something new.
    woken: UnixStream,
    reloads: Arc<Reloads>,
}

impl Thread {
    /// Serves until `stop` ends, then drains.
    fn run(self) -> std::io::Result<()> {
        if self.config.pinned {
            self.pin();
        }
        driver::run(self.driver, self.serve())?
    }

    /// Each thread of each gateway on a core of its own, as far as they go round.
    fn pin(&self) {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let number = usize::from(self.hello.instance - 1) * usize::from(self.config.thread_count)
            + usize::from(self.hello.thread);
        if cores.is_empty() || !core_affinity::set_for_current(cores[number % cores.len()]) {
            tracing::warn!(
                "thread {} could not be pinned to a core; it runs wherever it is put",
                self.hello.thread
            );
        }
    }

    async fn serve(self) -> std::io::Result<()> {
        let core = Core::start(&self.config, self.endpoints, self.clock, self.board.plant())?;
        let (link_core, socket) = (Rc::clone(&core), self.config.aggregator_socket.clone());
        monoio::spawn(async move { link::maintain(link_core, &socket, self.hello).await });
        monoio::spawn(Rc::clone(&core).keep_time());
        self.woken.set_nonblocking(self.driver == Driver::Epoll)?;
        let woken = monoio::net::UnixStream::from_std(self.woken)?;
        monoio::spawn(self.reloads.follow(woken, Rc::clone(&core)));
        if !self.config.shift.is_zero() {
            // HAProxy deals out shifts to gateways of one thread alone.
            let sides = if self.config.thread_count == 1 { 2 } else { 1 };
            let awaiting = Rc::clone(&core);
            let pacing = Rc::clone(&core.pacer).run(
                self.config.shift,
                sides,
                move || awaiting.is_awaited(),
                std::thread::sleep,
            );
            monoio::spawn(async move {
                if let Err(error) = pacing.await {
                    tracing::warn!("this thread does not rest: {error}");
                }
            });
        }

        let listener = monoio::net::UnixListener::from_std(self.listener)?;
        let server = Server::new(HttpConfig::default());
        let serving = monoio::spawn({
            let (server, front) = (Rc::clone(&server), Rc::new(Front(Rc::clone(&core))));
            async move { server.serve(listener, front).await }
        });
        // Nothing is ever written to it: whatever ends the read, ends this.
        let mut stop = monoio::net::UnixStream::from_std(self.stop)?;
        if let (Err(error), _) = stop.read(vec![0]).await {
            tracing::error!("waiting for the stop: {error}");
        }
        let wait = Duration::from_millis(self.config.drain_ms_max);
        let start = std::time::Instant::now();
        server.stop();
        if monoio::time::timeout(wait, serving).await.is_err() {
            tracing::warn!("{} connections are still busy", server.connections_len());
        }
        core.drain(wait.saturating_sub(start.elapsed())).await;
        Ok(())
    }
}
