//! Where a processor listens: its URL's host, resolved once at start.
//!
//! A host name that does not resolve is no mistake: under Docker a stopped container loses its name, and a gateway that restarts during a processor's
//! outage must still accept payments. Such an endpoint starts without addresses; [`super::Client`] resolves
//! again as attempts fail, and while they do not. Nothing here runs on the ring's thread after start.

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::time::Duration;
use std::{fmt, thread};

use galo_profile::Url;

use super::resolver::{self, Resolver};
use super::tls::{Tls, TlsError, TlsOptions};

/// How long start-up waits for a name server: a configuration mistake must be reported within a second.
const RESOLVE_WAIT_MS_MAX: u64 = 800;

/// One processor's address: what to connect to and what to write into each request.
#[derive(Clone, Debug)]
pub struct Endpoint {
    url: Url,
    addresses: Vec<SocketAddr>,
    tls: Option<Tls>,
    #[cfg(test)]
    resolver: Option<Resolver>,
}

impl Endpoint {
    /// Asks the resolver for the addresses of a URL's host.
    ///
    /// Blocks the thread for at most [`RESOLVE_WAIT_MS_MAX`] ms, so call it before the ring runs. A host that does
    /// not resolve leaves [`Endpoint::addresses`] empty, which is worth a warning but no failure.
    #[must_use]
    pub fn resolve(url: &Url) -> Self {
        let mut endpoint = Self {
            url: url.clone(),
            addresses: Vec::new(),
            tls: None,
            #[cfg(test)]
            resolver: None,
        };
        endpoint.addresses = match url.host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, url.port)],
            Err(_) => {
                let answer = endpoint.resolve_in_thread();
                answer
                    .and_then(|answer| answer.recv_timeout(Duration::from_millis(RESOLVE_WAIT_MS_MAX)).ok())
                    .unwrap_or_default()
            }
        };
        endpoint
    }

    /// Of a URL as it is written.
    #[cfg(test)]
    pub(super) fn at(url: &str) -> Self {
        Self::resolve(&Url::parse(url).expect("a good URL"))
    }

    /// Reads what TLS needs, if the URL says `https://`; without that, such an endpoint must not be used.
    ///
    /// # Errors
    ///
    /// [`TlsError`] names the first file that is not as expected, and options that a URL with `http://` has no use for.
    pub fn secure(mut self, options: &TlsOptions) -> Result<Self, TlsError> {
        if self.url.https {
            self.tls = Some(Tls::load(options, &self.url.host)?);
        } else if *options != TlsOptions::default() {
            return Err(TlsError::NotHttps);
        }
        Ok(self)
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.url.https
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(super) fn host(&self) -> &str {
        &self.url.host
    }

    pub(super) fn port(&self) -> u16 {
        self.url.port
    }

    /// The addresses found at start, in the resolver's order; empty when the host did not resolve.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The value of the `Host` header: the URL's authority as it was written.
    #[must_use]
    pub fn host_header(&self) -> &str {
        &self.url.authority
    }

    /// Whether asking the resolver again could change anything.
    pub(super) fn is_by_name(&self) -> bool {
        self.url.host.parse::<IpAddr>().is_err()
    }

    /// Who is asked for the addresses again; nobody where that could change nothing.
    pub(super) fn resolver(&self) -> Option<Resolver> {
        #[cfg(test)]
        if self.resolver.is_some() {
            return self.resolver.clone();
        }
        if !self.is_by_name() {
            return None;
        }
        let started = Resolver::shared();
        started.inspect_err(|error| tracing::error!("{self} keeps its addresses: no thread: {error}")).ok()
    }

    /// Resolves the name on a thread of its own, so that names at start do not wait for each other. `None` when no
    /// thread starts.
    fn resolve_in_thread(&self) -> Option<mpsc::Receiver<Vec<SocketAddr>>> {
        let (sender, receiver) = mpsc::channel();
        let (host, port) = (self.url.host.clone(), self.url.port);
        thread::Builder::new()
            .name("resolve".to_owned())
            .spawn(move || {
                if let Ok(found) = resolver::look_up(&host, port) {
                    // A receiver that gave up waiting is no failure of this thread.
                    sender.send(found).unwrap_or_default();
                }
            })
            .ok()?;
        Some(receiver)
    }

    /// Asks `resolver` for the addresses from now on, even if the URL has a number.
    #[cfg(test)]
    pub(super) fn with_resolver(mut self, resolver: Resolver) -> Self {
        self.resolver = Some(resolver);
        self
    }

    #[cfg(test)]
    pub(super) fn with_addresses(mut self, addresses: Vec<SocketAddr>) -> Self {
        self.addresses = addresses;
        self
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_no_resolver() {
        for (url, address, host_header) in [
            ("http://127.0.0.1:18300", "127.0.0.1:18300", "127.0.0.1:18300"),
            ("http://127.0.0.1/a/b/", "127.0.0.1:80", "127.0.0.1"),
            ("http://[::1]:18300/", "[::1]:18300", "[::1]:18300"),
        ] {
            let endpoint = Endpoint::at(url);
            assert_eq!(endpoint.addresses(), [address.parse::<SocketAddr>().unwrap()]);
            assert_eq!(endpoint.host_header(), host_header);
            assert!(!endpoint.is_by_name());
        }
        assert_eq!(Endpoint::at("http://127.0.0.1/a/b/").to_string(), "http://127.0.0.1/a/b");
    }

    #[test]
    fn https_has_its_own_port_and_says_so() {
        let endpoint = Endpoint::at("https://127.0.0.1/a");
        assert_eq!(endpoint.addresses(), ["127.0.0.1:443".parse::<SocketAddr>().unwrap()]);
        assert_eq!((endpoint.is_https(), endpoint.to_string().as_str()), (true, "https://127.0.0.1/a"));

        let plain = Endpoint::at("http://127.0.0.1");
        assert!(!plain.is_https() && plain.clone().secure(&TlsOptions::default()).is_ok());
        let options = TlsOptions { server_name: Some("bank".to_owned()), ..TlsOptions::default() };
        assert_eq!(plain.secure(&options).unwrap_err(), TlsError::NotHttps);
    }

    #[test]
    fn a_name_is_resolved_and_an_unknown_name_is_no_error() {
        let endpoint = Endpoint::at("http://localhost:18300");
        assert!(endpoint.is_by_name());
        assert!(endpoint.addresses().iter().all(|address| address.ip().is_loopback()));
        assert!(!endpoint.addresses().is_empty());

        // RFC 6761 reserves `.invalid`: no resolver may know it.
        let endpoint = Endpoint::at("http://processor.invalid:8080");
        assert!(endpoint.addresses().is_empty());
    }
}
