//! The processors' file, read again while the gateway runs (SIGHUP): as a whole, or not at all.
//!
//! The signals' thread reads and checks the file, looks the names up, and wakes each serving thread by a byte; that one takes the newest word and
//! goes on with it. What is on its way ends as it began, with the credentials and rules that it was sent by. Names, numbers and the hard
//! limits stay as they are until a restart: the journal knows processors by number, and the bounds on memory follow from the limits.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use galo_engine::PROCESSORS_LEN_MAX;
use galo_engine::dispatcher::ProcessorPolicy;
use galo_engine::router::RouterConfig;
use galo_profile::Processors;
use galo_shell::env::Env;
use galo_shell::processors;

use monoio::io::AsyncReadRent;

use crate::config::{Config, Reached, policies, reach_all, router_config};
use crate::core::Core;

/// What a thread goes on with.
pub struct Reloaded {
    /// Costs, patience, thresholds.
    pub router: RouterConfig,
    /// How each processor is treated.
    pub policies: [ProcessorPolicy; PROCESSORS_LEN_MAX],
    /// What and where each is.
    pub reached: Vec<Reached>,
}

/// See the module's documentation.
pub struct Reloads {
    thread_count: u16,
    running: Mutex<Processors>,
    latest: Mutex<Option<Arc<Reloaded>>>,
    wakers: Mutex<Vec<UnixStream>>,
}

impl Reloads {
    /// Of a gateway that starts with this configuration.
    #[must_use]
    pub fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            thread_count: config.thread_count,
            running: Mutex::new(config.processors.clone()),
            latest: Mutex::default(),
            wakers: Mutex::default(),
        })
    }

    /// A stream on which a byte comes whenever there is something new: for one thread.
    ///
    /// # Errors
    /// If there are no two descriptors left.
    pub fn subscribe(&self) -> std::io::Result<UnixStream> {
        let (waker, woken) = UnixStream::pair()?;
        // A thread that does not look for long must not hold up the signals.
        waker.set_nonblocking(true)?;
        let mut wakers = lock(&self.wakers);
        if lock(&self.latest).is_some() {
            // The file was read again while the threads began.
            (&waker).write_all(&[0])?;
        }
        wakers.push(waker);
        drop(wakers);
        Ok(woken)
    }

    /// Has a thread's core go on with the newest word whenever a byte comes on its stream.
    pub async fn follow(self: Arc<Self>, mut woken: monoio::net::UnixStream, core: Rc<Core>) {
        let mut buffer = vec![0; 16];
        loop {
            let (result, back) = woken.read(buffer).await;
            buffer = back;
            if !matches!(result, Ok(1..)) {
                return;
            }
            if let Some(reloaded) = self.latest() {
                core.reload(&reloaded);
            }
        }
    }

    /// The newest word.
    #[must_use]
    pub fn latest(&self) -> Option<Arc<Reloaded>> {
        lock(&self.latest).clone()
    }

    /// Reads the file again. What is wrong with it goes to the log, and nothing changes.
    pub fn read_again(&self, env: &Env) {
        if env.text(processors::FILE).is_none() {
            return tracing::warn!("SIGHUP: {} is not set, there is nothing to read again", processors::FILE);
        }
        match self.replace(env) {
            Ok(changed) => tracing::info!("SIGHUP: {} of the processors changed", changed),
            Err(problems) => {
                problems.lines().for_each(|problem| tracing::error!("SIGHUP: {problem}"));
                tracing::error!("SIGHUP: nothing was changed");
            }
        }
    }

    fn replace(&self, env: &Env) -> Result<usize, String> {
        let new = processors::read(env).map_err(|error| error.to_string())?;
        let mut running = lock(&self.running);
        new.may_replace(&running)?;
        if let Some(added) = new.iter().find(|it| running.by_name(&it.name).is_none()) {
            return Err(format!("processor \"{}\" is new: only a restart may add it", added.name));
        }
        // The aggregator, which says when health is checked, reads the file at its start alone.
        let every_ms = |it: &galo_profile::Processor| it.health.as_ref().map(|health| health.every_ms);
        let is_same_check = |it: &&galo_profile::Processor| {
            running.by_name(&it.name).is_some_and(|old| every_ms(old) == every_ms(it))
        };
        if let Some(changed) = new.iter().find(|it| !is_same_check(it)) {
            return Err(format!(
                "processor \"{}\": only a restart, of the aggregator first, may change whether there is a health check, or its every_ms",
                changed.name
            ));
        }
        let is_same_limit = |it: &&galo_profile::Processor| {
            running.by_name(&it.name).is_some_and(|old| old.limits.concurrency == it.limits.concurrency)
        };
        if let Some(changed) = new.iter().find(|it| !is_same_limit(it)) {
            return Err(format!(
                "processor \"{}\": only a restart may change limits.concurrency",
                changed.name
            ));
        }
        let reached = reach_all(&new).map_err(|error| error.to_string())?;
        for moved in new.iter() {
            let before = running.by_name(&moved.name).filter(|old| old.url != moved.url);
            if let Some(old) = before {
                tracing::warn!(
                    "SIGHUP: processor \"{}\" is at {} now, and was at {}: what it has in doubt from there is settled here",
                    moved.name,
                    moved.url,
                    old.url
                );
            }
        }
        let changed = new.iter().filter(|it| running.by_name(&it.name) != Some(*it)).count();
        let (router, policies) = (router_config(&new), policies(&new, self.thread_count));
        *lock(&self.latest) = Some(Arc::new(Reloaded { router, policies, reached }));
        *running = new;
        for waker in &mut *lock(&self.wakers) {
            // Full: it has not looked since the last time, and will find the newest word all the same.
            if let Err(error) = waker.write(&[0]) {
                tracing::debug!("a thread that is not woken: {error}");
            }
        }
        Ok(changed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
