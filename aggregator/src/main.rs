//! Galo's aggregator: the single writer of the ledger, on tokio-uring.
//!
//! Gateways connect over a unix socket; what they say goes to the engine's coordinator, what it decides goes back.
//! This crate moves bytes and owns buffers; it decides nothing. Where io_uring is blocked it runs on epoll, with one
//! warning.

mod admission;
mod config;
mod http;
mod journal;
mod metrics;
mod operator;
mod server;
mod stream;

use std::process::ExitCode;
use std::rc::Rc;

use galo_engine::coordinator::Coordinator;
use galo_engine::ledger::Ledger;
use galo_shell::arguments::{self, Asked};
use galo_shell::clock::{self, Clock};
use galo_shell::env::Env;
use galo_shell::socket::SocketFile;
use galo_shell::{exit, healthcheck, limits, log, socket, stop, uring};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::journal::directory::{OpenError, Opened};
use crate::journal::queue::Answers;
use crate::journal::writer::{self, Journal};
use crate::journal::{Sync, scrub, snapshot};
use crate::metrics::Metrics;
use crate::server::Shared;
use crate::stream::Driver;

/// For the test of what a payment costs; builds without debug assertions have the system's allocator alone.
#[cfg(debug_assertions)]
#[global_allocator]
static ALLOCATOR: galo_shell::allocation::Counting = galo_shell::allocation::Counting;

const PROGRAM: &str = "galo-aggregator";

/// For `--help`.
const PURPOSE: &str = "Galo's aggregator: keeps the ledger and its journal for the gateways.";

fn main() -> ExitCode {
    let start_us = Clock.now().monotonic_us;
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
        return healthcheck::run(PROGRAM, &config.http_socket);
    }
    let _last_lines = match log::start(&env) {
        Ok(flush) => flush,
        Err(error) => return exit::refuse_to_start(PROGRAM, error, exit::CONFIGURATION),
    };
    // What comes may take a while, a long journal above all.
    if let Err(error) = stop::at_once_until_serving() {
        return exit::refuse_to_start(PROGRAM, error, exit::ENVIRONMENT);
    }
    let sockets = [("AGGREGATOR_SOCKET", &config.socket), ("AGGREGATOR_HTTP_SOCKET", &config.http_socket)];
    if let Some(error) = sockets.iter().find_map(|(name, path)| socket::check(name, path).err()) {
        return exit::refuse_to_start(PROGRAM, error, exit::ENVIRONMENT);
    }
    let open_files_max = limits::raise_open_files();
    tracing::debug!("at most {open_files_max} open files");
    // The journal before the sockets: whoever connects finds the ledger whole.
    let opened = match open_journal(&config, incarnation, Clock) {
        Ok(opened) => opened,
        Err(error) => return exit::refuse_to_start(PROGRAM, &error, error.status()),
    };
    let table = match open_table(&config, opened.as_ref()) {
        Ok(table) => table,
        Err(error) => return exit::refuse_to_start(PROGRAM, &error, exit::JOURNAL),
    };
    let listeners = socket::bind("AGGREGATOR_SOCKET", &config.socket)
        .and_then(|gateways| Ok((gateways, socket::bind("AGGREGATOR_HTTP_SOCKET", &config.http_socket)?)));
    let ((gateways, gateways_file), (http, http_file)) = match listeners {
        Ok(listeners) => listeners,
        Err(error) => return exit::refuse_to_start(PROGRAM, error, exit::ENVIRONMENT),
    };
    let files = [gateways_file, http_file];
    let run = |driver| run(config, start_us, driver, opened, table, gateways, http, files);
    let result = match uring::probe() {
        Ok(()) => {
            let mut ring = tokio_uring::uring_builder();
            ring.setup_cqsize(4 * uring::RING_ENTRY_COUNT);
            tokio_uring::builder()
                .entries(uring::RING_ENTRY_COUNT)
                .uring_builder(&ring)
                .start(run(Driver::Uring))
        }
        Err(error) => {
            tracing::warn!("running on epoll, slower: {error}");
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .and_then(|runtime| tokio::task::LocalSet::new().block_on(&runtime, run(Driver::Epoll)))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::refuse_to_start(PROGRAM, error, exit::ENVIRONMENT),
    }
}

fn open_journal(config: &Config, incarnation: u64, clock: Clock) -> Result<Option<Opened>, OpenError> {
    if config.journal.sync == Sync::Memory {
        tracing::warn!(
            "JOURNAL_SYNC=memory: no journal; the death of this process loses every payment that it knows"
        );
        return Ok(None);
    }
    let begin_us = clock.now().monotonic_us;
    let mut opened = journal::directory::open(&config.journal, config.coordinator.ledger, incarnation)?;
    opened.replay_us = clock.now().monotonic_us - begin_us;
    tracing::info!(
        "{}: {} records replayed in {} ms, {} open payments found",
        config.journal.directory.display(),
        opened.recovered.records,
        opened.replay_us / 1_000,
        opened.recovered.ledger.conservation().open.count,
    );
    Ok(Some(opened))
}

/// The admission table, where there is one and the journal's policy covers what it promises.
fn open_table(
    config: &Config,
    opened: Option<&Opened>,
) -> Result<Option<admission::Opened>, admission::OpenError> {
    let Some(opened) = opened else { return Ok(None) };
    let Some(path) = config.admission_table.as_ref().filter(|_| config.journal.sync == Sync::Never) else {
        if config.admission_table.is_some() {
            tracing::info!(
                "ADMISSION_TABLE is not used with this JOURNAL_SYNC: gateways ask for each payment"
            );
        }
        admission::leave(&config.journal.directory, &opened.recovered)?;
        return Ok(None);
    };
    let ledger = config.coordinator.ledger;
    let ids_len_max = ledger.known_len_max.saturating_add(ledger.open_len_max);
    admission::open(path, &config.journal.directory, ids_len_max, &opened.recovered).map(Some)
}

/// Serves until SIGTERM or SIGINT.
#[expect(clippy::too_many_arguments, reason = "what a process has at start, said once")]
async fn run(
    config: Config,
    start_us: u64,
    driver: Driver,
    opened: Option<Opened>,
    table: Option<admission::Opened>,
    gateways: std::os::unix::net::UnixListener,
    http: std::os::unix::net::UnixListener,
    files: [SocketFile; 2],
) -> std::io::Result<()> {
    let clock = Clock;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    stop::serving();
    // Gateways read the processors' file again at a SIGHUP; whoever sends it to all of Galo does not mean to end the ledger.
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::task::spawn_local(async move {
        while hangup.recv().await.is_some() {
            tracing::warn!(
                "SIGHUP: nothing is read again; the names of processors are read at the start alone"
            );
        }
    });
    let (journal, ledger) = match opened {
        Some(opened) => {
            let (journal, ledger) = Journal::new(config.journal, driver, clock, opened);
            (Some(journal), ledger)
        }
        None => (None, Ledger::new(config.coordinator.ledger)),
    };
    let mut coordinator = Coordinator::recovered(config.coordinator, ledger, clock.now());
    if let Err(error) = coordinator.introduce(config.names.iter()) {
        exit::fatal(error, exit::CONFIGURATION);
    }
    if let Some(table) = table {
        let (registrar, journal_sequence, is_of_this_boot, is_abandoned) = table.into_parts();
        if let Err(corrupt) = coordinator.admit_by(registrar, journal_sequence, is_of_this_boot, is_abandoned)
        {
            server::refuse_table(corrupt);
        }
    }
    let shared = Shared::new(coordinator, journal.clone(), clock);
    if let Some(journal) = &journal {
        let deliver = {
            let shared = Rc::clone(&shared);
            move |answers: &mut Answers, next_sequence| {
                shared.written_until(next_sequence);
                shared.deliver(answers);
            }
        };
        tokio::task::spawn_local(writer::run(Rc::clone(journal), deliver));
        tokio::task::spawn_local(writer::sync_at_interval(Rc::clone(journal)));
        tokio::task::spawn_local(snapshot::run(Rc::clone(&shared), Rc::clone(journal)));
        tokio::task::spawn_local(scrub::run(Rc::clone(journal)));
    }
    let metrics = Rc::new(Metrics {
        names: config.names.clone(),
        driver,
        start_us: clock.now().monotonic_us - start_us,
    });
    tracing::info!(
        "ready after {} µs on {}; gateways connect at {}",
        metrics.start_us,
        driver.name(),
        config.socket.display()
    );
    tokio::task::spawn_local(server::tick(Rc::clone(&shared)));
    tokio::task::spawn_local(server::flush(Rc::clone(&shared)));
    let stopped = tokio::select! {
        result = server::serve(gateways, driver, Rc::clone(&shared)) => result,
        result = http::serve(http, Rc::clone(&shared), metrics) => result,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    shared.end_grants();
    if let Some(journal) = &journal {
        journal.finish().await;
    }
    files.iter().for_each(SocketFile::remove);
    tracing::info!("stopped");
    stopped
}
