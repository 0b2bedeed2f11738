//! The token that a processor's requests carry (OAuth2 client credentials), asked for ahead of time.
//!
//! When to ask is `galo_profile::Tokens`' to say; this sends what it says, on a connection of its own, and tells it what came back. It never shows
//! a token, and an attempt without one is not sent.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use galo_profile::{Auth, Secret, Tokens};
use galo_shell::clock::Clock;
use monoio::time::timeout;

use super::client::{Client, ClientConfig};
use super::connector::Connector;
use crate::wake::Flag;

/// How long the authorization server may take.
const ASK_MS_MAX: u64 = 10_000;

/// See the module's documentation.
pub(super) struct TokenKeeper {
    tokens: RefCell<Tokens>,
    connector: Connector,
    /// It may be due sooner than it was, or never again.
    stirred: Rc<Flag>,
}

impl TokenKeeper {
    /// `None` for a processor without tokens.
    pub(super) fn new(config: &ClientConfig) -> Option<Self> {
        let (Auth::OAuth2(oauth2), Some(endpoint)) = (&config.profile.auth, &config.token_endpoint) else {
            return None;
        };
        let connect_timeout = Duration::from_millis(config.connect_timeout_ms);
        Some(Self {
            tokens: RefCell::new(Tokens::new((**oauth2).clone())),
            stirred: Rc::default(),
            connector: Connector::new(endpoint.clone(), connect_timeout, config.socket),
        })
    }

    /// The token that is valid now, if there is one.
    pub(super) fn current(&self) -> Option<Secret> {
        self.tokens.borrow().token(Clock.now()).cloned()
    }

    /// The processor did not accept a request with this token, which may have been replaced since.
    pub(super) fn refused(&self, token: &Secret) {
        self.tokens.borrow_mut().refused(token, Clock.now());
        self.stir();
    }

    /// Goes on with what another keeper of the same account has.
    pub(super) fn inherit(&self, before: &Self) {
        *self.tokens.borrow_mut() = before.tokens.borrow().successor();
        self.stir();
    }

    /// Has its task look at once.
    pub(super) fn stir(&self) {
        self.stirred.raise();
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Asks if it is time to; how long until it is again.
    async fn look(&self, name: &str) -> Duration {
        self.ask_if_due(name).await;
        // Nobody else asks, so there is a time.
        let due_us = self.tokens.borrow().due_us().unwrap_or(0);
        Duration::from_micros(due_us.saturating_sub(Clock.now().monotonic_us))
    }

    async fn ask_if_due(&self, name: &str) {
        let request = self.tokens.borrow_mut().needs(Clock.now()).map(|request| request.expose().to_vec());
        let Some(request) = request else { return };
        let asked = timeout(Duration::from_millis(ASK_MS_MAX), self.ask(request)).await;
        let mut tokens = self.tokens.borrow_mut();
        match asked {
            Ok(Some((status, body))) => {
                if !tokens.answered(status, &body, Clock.now()) {
                    tracing::warn!(
                        "processor {name}: the authorization server gave no token, status {status}"
                    );
                }
            }
            Ok(None) | Err(_) => {
                tokens.failed(Clock.now());
                tracing::warn!("processor {name}: the authorization server did not answer");
            }
        }
    }

    async fn ask(&self, request: Vec<u8>) -> Option<(u16, Vec<u8>)> {
        let mut connection = self.connector.connect().await.ok()?;
        let (result, _) = connection.send(request).await;
        result.ok()?;
        let head = connection.read_head().await.ok()?;
        let (status, mut body) = (head.status, Vec::new());
        connection.read_body(head, |piece| body.extend_from_slice(piece)).await.ok()?;
        Some((status, body))
    }
}

/// Keeps a client's token fresh for as long as the client lives.
pub(super) async fn keep(client: Weak<Client>) {
    while let Some(client) = client.upgrade().filter(|client| !client.is_closing())
        && let Some(tokens) = &client.tokens
    {
        let wait = tokens.look(&client.config.profile.name).await;
        let stirred = Rc::clone(&tokens.stirred);
        // It must not be held by who waits for its token to end.
        drop(client);
        if timeout(wait, stirred.lowered()).await.is_err() {
            tracing::trace!("it is time for another token");
        }
    }
}
