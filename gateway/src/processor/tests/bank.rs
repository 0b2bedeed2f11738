//! Processors that speak TLS: rustls's server side over the blocking sockets of these tests, and an authority of their own.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use galo_profile::{Pem, Place, Secret};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};

use super::super::{Endpoint, TlsOptions};
use super::{Bench, Peer, Request, Server, whole_request};

/// The name that these processors' certificates bear; the tests connect to a number.
pub(super) const NAME: &str = "processor.test";

/// An authority.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(super) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    pem: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two authorities of one name would be told apart by their signatures alone.
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("authority {number}"));
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(super) fn identity(&self, name: &str) -> Identity {
        self.identity_until(name, 2100)
    }

    pub(super) fn identity_until(&self, name: &str, year: i32) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(year, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { chain: vec![certificate.der().clone()], key, pem: certificate.pem() }
    }

    /// A file of this name, as a profile has it.
    pub(super) fn file(&self, name: &str, text: &str) -> Pem {
        Pem { path: Path::new("tls").join(name), pem: Secret::new(text.as_bytes()), place: Place::default() }
    }

    /// What a client needs to trust this authority.
    pub(super) fn options(&self) -> TlsOptions {
        TlsOptions {
            ca: Some(self.file("ca.pem", &self.issuer.pem())),
            server_name: Some(NAME.to_owned()),
            ..TlsOptions::default()
        }
    }

    /// As [`Authority::options`], with a certificate of the client's own.
    pub(super) fn options_as(&self, client: &Identity) -> TlsOptions {
        TlsOptions {
            client_cert: Some(self.file("client.pem", &client.pem)),
            client_key: Some(self.file("client.key", &client.key.serialize_pem())),
            ..self.options()
        }
    }

    /// A server with a certificate of this authority.
    pub(super) fn server_config(&self) -> ServerConfig {
        server_config(&self.identity(NAME), rustls::DEFAULT_VERSIONS, None)
    }

    /// One that wants a client's certificate of this authority.
    pub(super) fn strict_config(&self, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
        server_config(&self.identity(NAME), versions, Some(self))
    }
}

impl Identity {
    pub(super) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// With its certificate `count` times over, of which the first one counts.
    pub(super) fn repeated(mut self, count: usize) -> Self {
        let certificate = self.chain[0].clone();
        self.chain = vec![certificate; count];
        self
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }
}

pub(super) fn server_config(
    identity: &Identity,
    versions: &[&'static SupportedProtocolVersion],
    clients: Option<&Authority>,
) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(versions).unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = PrivateKeyDer::try_from(identity.key.serialize_der()).unwrap();
    let mut config = builder.with_single_cert(identity.chain.clone(), key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// The server's side of a TLS connection. All its methods tolerate that the client has gone.
pub(super) struct Session<'a> {
    pub(super) peer: &'a mut Peer,
    pub(super) tls: ServerConnection,
    unread: Vec<u8>,
}

impl<'a> Session<'a> {
    pub(super) fn new(peer: &'a mut Peer, config: &Arc<ServerConfig>) -> Self {
        let mut tls = ServerConnection::new(Arc::clone(config)).unwrap();
        tls.set_buffer_limit(None);
        Self { peer, tls, unread: Vec::new() }
    }

    /// Reads once from the socket; `false` when the client has gone or makes no sense. What is to be sent stays.
    pub(super) fn read(&mut self) -> bool {
        matches!(self.tls.read_tls(&mut self.peer.stream), Ok(1..)) && self.tls.process_new_packets().is_ok()
    }

    /// What is to be sent, in order.
    pub(super) fn outgoing(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    pub(super) fn flush(&mut self) {
        let bytes = self.outgoing();
        self.peer.send(bytes);
    }

    /// The next whole request, `None` when the client has gone.
    pub(super) fn request(&mut self) -> Option<Request> {
        loop {
            let mut reader = self.tls.reader();
            while let Ok(bytes @ [_, ..]) = reader.fill_buf() {
                self.unread.extend_from_slice(bytes);
                let size = bytes.len();
                reader.consume(size);
            }
            if let Some(size) = whole_request(&self.unread) {
                let text = String::from_utf8(self.unread.drain(..size).collect()).unwrap();
                return Some(Request { text });
            }
            let is_there = self.read();
            // Alerts as well.
            self.flush();
            if !is_there {
                return None;
            }
        }
    }

    /// `text` as the bytes that carry it, in one record for each piece.
    pub(super) fn seal<'b>(&mut self, pieces: impl IntoIterator<Item = &'b [u8]>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in pieces {
            self.tls.writer().write_all(piece).unwrap();
            bytes.extend(self.outgoing());
        }
        bytes
    }

    pub(super) fn send(&mut self, text: impl AsRef<[u8]>) {
        let bytes = self.seal([text.as_ref()]);
        self.peer.send(bytes);
    }
}

/// A server whose connections are handled by `script`.
pub(super) fn sealed_server(
    config: ServerConfig,
    script: impl Fn(usize, &mut Session<'_>) + Send + Sync + 'static,
) -> Server {
    let config = Arc::new(config);
    Server::start(move |number, peer| script(number, &mut Session::new(peer, &config)))
}

/// One that numbers the requests of all its connections and answers each by `answer`.
pub(super) fn sealed_answering(
    config: ServerConfig,
    answer: impl Fn(usize, &Request, &mut Session<'_>) + Send + Sync + 'static,
) -> Server {
    let requests = AtomicUsize::new(0);
    sealed_server(config, move |_, session| {
        while let Some(request) = session.request() {
            answer(requests.fetch_add(1, Ordering::SeqCst), &request, session);
        }
    })
}

/// The address of a server that speaks TLS.
pub(super) fn secured(server: &Server, options: &TlsOptions) -> Endpoint {
    let url = format!("https://{}", server.address);
    Endpoint::at(&url).secure(options).unwrap()
}

/// A client of such a server.
pub(super) fn sealed_bench(server: &Server, options: &TlsOptions) -> Bench {
    Bench::with(&server.url(), |config| config.endpoint = secured(server, options))
}
