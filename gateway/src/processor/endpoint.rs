//! Where a processor listens: its URL, taken apart and resolved once at start.
//!
//! A URL that cannot be understood is a configuration error and ends start-up. A host name that does not resolve
//! is not: under Docker a stopped container loses its name, and a gateway that restarts during a processor's
//! outage must still accept payments. Such an endpoint starts without addresses; [`super::Client`] resolves
//! again as attempts fail. Nothing here runs on the ring's thread after start.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::time::Duration;
use std::{fmt, io, thread};

use thiserror::Error;

/// How long start-up waits for a name server: a configuration mistake must be reported within a second.
const RESOLVE_WAIT_MS_MAX: u64 = 800;

/// Addresses tried per name. More than a handful would only spend the connect timeout.
const ADDRESSES_LEN_MAX: usize = 8;

/// What is wrong with a processor's URL, in words that fit behind the variable's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// Not a URL with a scheme and a host.
    #[error("is not a URL (expected http://host[:port][/prefix])")]
    NotUrl,
    /// A scheme other than http.
    #[error("has a scheme that is not spoken here (expected http://host[:port][/prefix])")]
    NotHttp,
    /// A user or a password before the host.
    #[error("names a user (expected http://host[:port][/prefix], without user or password)")]
    HasUser,
    /// A query string behind the path.
    #[error("has a query (expected http://host[:port][/prefix], without ? or #)")]
    HasQuery,
    /// No port number, or not one in 1..=65535.
    #[error("has no usable port (expected http://host[:port][/prefix] with a port in 1..=65535)")]
    BadPort,
}

/// One processor's address: what to connect to and what to write into each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    host_header: String,
    path_prefix: String,
    addresses: Vec<SocketAddr>,
}

impl Endpoint {
    /// Takes `http://host[:port][/prefix]` apart and asks the resolver for the host's addresses.
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
        if *scheme != http::uri::Scheme::HTTP {
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
            None if authority.as_str() == authority.host() => 80,
            None => return Err(EndpointError::BadPort),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            host_header: authority.as_str().to_owned(),
            path_prefix: uri.path().trim_end_matches('/').to_owned(),
            addresses: Vec::new(),
        })
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

    /// Starts a thread that resolves the name and sends what it found, if anything. `None` when no thread starts:
    /// the next failure asks again.
    pub(super) fn resolve_in_thread(&self) -> Option<mpsc::Receiver<Vec<SocketAddr>>> {
        let (sender, receiver) = mpsc::channel();
        let (host, port) = (self.host.clone(), self.port);
        thread::Builder::new()
            .name("resolve".to_owned())
            .spawn(move || {
                if let Ok(found) = resolve(&host, port) {
                    // A receiver that gave up waiting is no failure of this thread.
                    sender.send(found).unwrap_or_default();
                }
            })
            .ok()?;
        Some(receiver)
    }

    #[cfg(test)]
    pub(super) fn with_addresses(mut self, addresses: Vec<SocketAddr>) -> Self {
        self.addresses = addresses;
        self
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host_header, self.path_prefix)
    }
}

fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.take(ADDRESSES_LEN_MAX).collect())
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
            ("https://processor:8080", EndpointError::NotHttp),
            ("unix://run/processor", EndpointError::NotHttp),
            ("http://user:secret@processor", EndpointError::HasUser),
            ("http://processor/?a=b", EndpointError::HasQuery),
            ("http://processor/#part", EndpointError::HasQuery),
            ("http://processor:0", EndpointError::BadPort),
            ("http://processor:", EndpointError::BadPort),
        ];
        for (url, expected) in cases {
            assert_eq!(Endpoint::parse_and_resolve(url), Err(expected), "{url:?}");
            assert!(!expected.to_string().contains('\n'));
        }
        for url in ["http://processor:65536", "http://processor:x", "http://processor:-1", "http://:8080"] {
            let error = Endpoint::parse_and_resolve(url).unwrap_err();
            assert!(matches!(error, EndpointError::NotUrl | EndpointError::BadPort), "{url:?}: {error}");
        }
    }
}
