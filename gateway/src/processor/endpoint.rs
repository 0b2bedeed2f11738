//! Where a processor listens: its URL, taken apart and resolved once at start.
//!
//! A URL that cannot be understood is a configuration error and ends start-up. A host name that does not resolve
//! is not: under Docker a stopped container loses its name, and a gateway that restarts during a processor's
//! outage must still accept payments. Such an endpoint starts without addresses; [`super::Client`] resolves
//! again as attempts fail, and while they do not. Nothing here runs on the ring's thread after start.

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::time::Duration;
use std::{fmt, thread};

use thiserror::Error;

use super::resolver::{self, Resolver};
use super::tls::{Tls, TlsError, TlsOptions};

/// How long start-up waits for a name server: a configuration mistake must be reported within a second.
const RESOLVE_WAIT_MS_MAX: u64 = 800;

/// What is wrong with a processor's URL, in words that fit behind the variable's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// Not a URL with a scheme and a host.
    #[error("is not a URL (expected http[s]://host[:port][/prefix])")]
    NotUrl,
    /// A scheme other than http and https.
    #[error("has a scheme that is not spoken here (expected http[s]://host[:port][/prefix])")]
    NotHttp,
    /// A user or a password before the host.
    #[error("names a user (expected http[s]://host[:port][/prefix], without user or password)")]
    HasUser,
    /// A query string behind the path.
    #[error("has a query (expected http[s]://host[:port][/prefix], without ? or #)")]
    HasQuery,
    /// No port number, or not one in 1..=65535.
    #[error("has no usable port (expected http[s]://host[:port][/prefix] with a port in 1..=65535)")]
    BadPort,
}

/// One processor's address: what to connect to and what to write into each request.
#[derive(Clone, Debug)]
pub struct Endpoint {
    is_https: bool,
    host: String,
    port: u16,
    host_header: String,
    path_prefix: String,
    addresses: Vec<SocketAddr>,
    tls: Option<Tls>,
    #[cfg(test)]
    resolver: Option<Resolver>,
}

impl Endpoint {
    /// Takes `http[s]://host[:port][/prefix]` apart and asks the resolver for the host's addresses.
    ///
    /// Blocks the thread for at most [`RESOLVE_WAIT_MS_MAX`] ms, so call it before the ring runs. A host that does
    /// not resolve leaves [`Endpoint::addresses`] empty, which is worth a warning but no failure.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] when the URL is unusable as it stands.
    pub fn parse_and_resolve(url: &str) -> Result<Self, EndpointError> {
        let mut endpoint = Self::parse(url)?;
        endpoint.addresses = match endpoint.host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, endpoint.port)],
            Err(_) => {
                let answer = endpoint.resolve_in_thread();
                answer
                    .and_then(|answer| answer.recv_timeout(Duration::from_millis(RESOLVE_WAIT_MS_MAX)).ok())
                    .unwrap_or_default()
            }
        };
        Ok(endpoint)
    }

    fn parse(url: &str) -> Result<Self, EndpointError> {
        if url.contains('#') {
            // `http::Uri` drops a fragment silently; a silent drop hides a mistake.
            return Err(EndpointError::HasQuery);
        }
        let uri: http::Uri = url.parse().map_err(|_| EndpointError::NotUrl)?;
        let scheme = uri.scheme().ok_or(EndpointError::NotUrl)?;
        let is_https = *scheme == http::uri::Scheme::HTTPS;
        if !is_https && *scheme != http::uri::Scheme::HTTP {
            return Err(EndpointError::NotHttp);
        }
        let authority = uri.authority().ok_or(EndpointError::NotUrl)?;
        if authority.as_str().contains('@') {
            return Err(EndpointError::HasUser);
        }
        if uri.query().is_some() {
            return Err(EndpointError::HasQuery);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(EndpointError::NotUrl);
        }
        let port = match authority.port_u16() {
            Some(0) => return Err(EndpointError::BadPort),
            Some(port) => port,
            None if authority.as_str() == authority.host() => {
                if is_https {
                    443
                } else {
                    80
                }
            }
            None => return Err(EndpointError::BadPort),
        };
        Ok(Self {
            is_https,
            host: host.to_owned(),
            port,
            host_header: authority.as_str().to_owned(),
            path_prefix: uri.path().trim_end_matches('/').to_owned(),
            addresses: Vec::new(),
            tls: None,
            #[cfg(test)]
            resolver: None,
        })
    }

    /// Reads what TLS needs, if the URL says `https://`; without that, such an endpoint must not be used.
    ///
    /// # Errors
    ///
    /// [`TlsError`] names the first file that is not as expected, and options that a URL with `http://` has no use for.
    pub fn secure(mut self, options: &TlsOptions) -> Result<Self, TlsError> {
        if self.is_https {
            self.tls = Some(Tls::load(options, &self.host)?);
        } else if *options != TlsOptions::default() {
            return Err(TlsError::NotHttps);
        }
        Ok(self)
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The addresses found at start, in the resolver's order; empty when the host did not resolve.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The value of the `Host` header: the URL's authority as it was written.
    #[must_use]
    pub fn host_header(&self) -> &str {
        &self.host_header
    }

    /// What stands before `/payments` in each request's path: empty, or starting and not ending with a slash.
    #[must_use]
    pub fn path_prefix(&self) -> &str {
        &self.path_prefix
    }

    /// Whether asking the resolver again could change anything.
    pub(super) fn is_by_name(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
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
        let (host, port) = (self.host.clone(), self.port);
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
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.host_header, self.path_prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let endpoint = Endpoint::parse_and_resolve("http://127.0.0.1:18300").unwrap();
        assert_eq!(endpoint.addresses(), ["127.0.0.1:18300".parse::<SocketAddr>().unwrap()]);
        assert_eq!((endpoint.host_header(), endpoint.path_prefix()), ("127.0.0.1:18300", ""));
        assert!(!endpoint.is_by_name());

        let endpoint = Endpoint::parse_and_resolve("http://127.0.0.1/a/b/").unwrap();
        assert_eq!(endpoint.addresses(), ["127.0.0.1:80".parse::<SocketAddr>().unwrap()]);
        assert_eq!((endpoint.host_header(), endpoint.path_prefix()), ("127.0.0.1", "/a/b"));
        assert_eq!(endpoint.to_string(), "http://127.0.0.1/a/b");

        let endpoint = Endpoint::parse_and_resolve("http://[::1]:18300/").unwrap();
        assert_eq!(endpoint.addresses(), ["[::1]:18300".parse::<SocketAddr>().unwrap()]);
        assert_eq!(endpoint.host_header(), "[::1]:18300");
    }

    #[test]
    fn https_has_its_own_port_and_says_so() {
        let endpoint = Endpoint::parse_and_resolve("https://127.0.0.1/a").unwrap();
        assert_eq!(endpoint.addresses(), ["127.0.0.1:443".parse::<SocketAddr>().unwrap()]);
        assert_eq!((endpoint.is_https(), endpoint.to_string().as_str()), (true, "https://127.0.0.1/a"));

        let plain = Endpoint::parse_and_resolve("http://127.0.0.1").unwrap();
        assert!(!plain.is_https() && plain.clone().secure(&TlsOptions::default()).is_ok());
        let options = TlsOptions { server_name: Some("bank".to_owned()), ..TlsOptions::default() };
        assert_eq!(plain.secure(&options).unwrap_err(), TlsError::NotHttps);
    }

    #[test]
    fn a_name_is_resolved_and_an_unknown_name_is_no_error() {
        let endpoint = Endpoint::parse_and_resolve("http://localhost:18300").unwrap();
        assert!(endpoint.is_by_name());
        assert!(endpoint.addresses().iter().all(|address| address.ip().is_loopback()));
        assert!(!endpoint.addresses().is_empty());

        // RFC 6761 reserves `.invalid`: no resolver may know it.
        let endpoint = Endpoint::parse_and_resolve("http://processor.invalid:8080").unwrap();
        assert!(endpoint.addresses().is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("", EndpointError::NotUrl),
            ("processor:8080", EndpointError::NotUrl),
            ("/payments", EndpointError::NotUrl),
            ("http://", EndpointError::NotUrl),
            ("http://a b", EndpointError::NotUrl),
            ("http:// ", EndpointError::NotUrl),
            ("ftp://processor:8080", EndpointError::NotHttp),
            ("https://user@processor", EndpointError::HasUser),
            ("unix://run/processor", EndpointError::NotHttp),
            ("http://user:secret@processor", EndpointError::HasUser),
            ("http://processor/?a=b", EndpointError::HasQuery),
            ("http://processor/#part", EndpointError::HasQuery),
            ("http://processor:0", EndpointError::BadPort),
            ("http://processor:", EndpointError::BadPort),
        ];
        for (url, expected) in cases {
            assert_eq!(Endpoint::parse_and_resolve(url).unwrap_err(), expected, "{url:?}");
            assert!(!expected.to_string().contains('\n'));
        }
        for url in ["http://processor:65536", "http://processor:x", "http://processor:-1", "http://:8080"] {
            let error = Endpoint::parse_and_resolve(url).unwrap_err();
            assert!(matches!(error, EndpointError::NotUrl | EndpointError::BadPort), "{url:?}: {error}");
        }
    }
}
