//! TLS towards a processor: what is loaded at start, what one thread shares among its connections, what goes wrong.
//!
//! [`Tls`] is loaded once: the authorities that are trusted, the client's own certificate and key, the name that the
//! processor's certificate must bear. Each thread makes its own [`TlsClient`] of it, with its own store of session
//! tickets, so that no lock is shared. There is no early data: a request in it could be replayed.
//!
//! Keys and files' contents are never shown, neither in errors nor by `Debug`.

use std::cell::Cell;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use galo_profile::{Pem, Place, Secret};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CertificateError, RootCertStore, SignatureScheme};
use thiserror::Error;

/// Where Debian keeps the authorities that it trusts, all in one file.
const SYSTEM_CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How to speak TLS to one processor, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The authorities trusted for this processor; those of the system if none.
    pub ca: Option<Pem>,
    /// The client's certificate and what links it to an authority, its own first.
    pub client_cert: Option<Pem>,
    /// The key of the client's certificate, not encrypted.
    pub client_key: Option<Pem>,
    /// The name to ask for and to find in the processor's certificate, if not the URL's host.
    pub server_name: Option<String>,
}

/// Why TLS cannot be spoken as configured.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TlsError {
    /// A file that is not as expected.
    #[error("{file}: {problem}")]
    File {
        /// Which, and which key names it.
        file: String,
        /// What is wrong with it, without its contents.
        problem: String,
    },
    /// One without the other.
    #[error("a client's certificate and its key belong together: only one of them is given")]
    HalfIdentity,
    /// A name that is none.
    #[error("{0:?} is neither a host's name nor an IP address")]
    ServerName(String),
    /// Options for a processor that is spoken to in plain text.
    #[error("TLS options for a URL that begins with http:// are of no use; should it be https://?")]
    NotHttps,
}

/// What went wrong with TLS, as metrics and the log name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsProblem {
    /// The certificate is from an authority that is not trusted.
    UnknownIssuer,
    /// The certificate is for somebody else.
    WrongName,
    /// The certificate is no longer valid, or not yet.
    OutOfDate,
    /// The certificate has another fault.
    BadCertificate,
    /// The processor refused us, such as for want of a client's certificate.
    Refused,
    /// The connection ended within the handshake.
    CutOff,
    /// What came is no TLS that can be spoken.
    Protocol,
}

impl TlsProblem {
    /// All of them, in the order of [`ClientStats::tls_errors_total`](super::ClientStats::tls_errors_total).
    pub const ALL: [Self; 7] = [
        Self::UnknownIssuer,
        Self::WrongName,
        Self::OutOfDate,
        Self::BadCertificate,
        Self::Refused,
        Self::CutOff,
        Self::Protocol,
    ];

    /// As metrics name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownIssuer => "unknown_issuer",
            Self::WrongName => "wrong_name",
            Self::OutOfDate => "out_of_date",
            Self::BadCertificate => "bad_certificate",
            Self::Refused => "refused",
            Self::CutOff => "cut_off",
            Self::Protocol => "protocol",
        }
    }

    fn of(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => match error {
                CertificateError::UnknownIssuer => Self::UnknownIssuer,
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Self::WrongName
                }
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::OutOfDate,
                _ => Self::BadCertificate,
            },
            // Any other alert is our own doing or garbage.
            rustls::Error::AlertReceived(
                AlertDescription::HandshakeFailure
                | AlertDescription::NoCertificate
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
                | AlertDescription::UnrecognisedName
                | AlertDescription::CertificateRequired,
            ) => Self::Refused,
            _ => Self::Protocol,
        }
    }
}

/// What was loaded, for all threads.
#[derive(Clone)]
pub struct Tls(Arc<Loaded>);

struct Loaded {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    identity: Option<Arc<CertifiedKey>>,
    server_name: ServerName<'static>,
    /// The problems that were logged, a bit for each.
    named: AtomicU32,
}

impl Tls {
    /// Reads what was in the files, and the machine's authorities; `host` is the URL's.
    ///
    /// # Errors
    /// The first file or name that is not as expected.
    pub(super) fn load(options: &TlsOptions, host: &str) -> Result<Self, TlsError> {
        let name = options.server_name.as_deref().unwrap_or(host);
        let server_name =
            ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))?;
        let provider = Arc::new(ring::default_provider());
        let roots = match &options.ca {
            Some(pem) => load_roots(pem)?,
            None => load_system_roots()?,
        };
        let identity = match (&options.client_cert, &options.client_key) {
            (Some(certificate), Some(key)) => Some(Arc::new(load_identity(certificate, key, &provider)?)),
            (None, None) => None,
            _ => return Err(TlsError::HalfIdentity),
        };
        let roots = Arc::new(roots);
        Ok(Self(Arc::new(Loaded { provider, roots, identity, server_name, named: AtomicU32::new(0) })))
    }

    /// One thread's client.
    pub(super) fn client(&self, url: String) -> TlsClient {
        let identity = Arc::new(Identity { key: self.0.identity.clone(), asked: AtomicBool::new(false) });
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.0.provider));
        let mut config = builder
            .with_safe_default_protocol_versions()
            .expect("ring has suites for both versions")
            .with_root_certificates(Arc::clone(&self.0.roots))
            .with_client_cert_resolver(Arc::clone(&identity) as Arc<dyn ResolvesClientCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // One name: what rustls keeps for it, the last eight tickets, each good for one connection.
        config.resumption = Resumption::in_memory_sessions(8);
        TlsClient {
            loaded: Arc::clone(&self.0),
            config: Arc::new(config),
            identity,
            url,
            handshakes_total: Cell::new(0),
            resumed_total: Cell::new(0),
            errors_total: Rc::default(),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.0.server_name).finish_non_exhaustive()
    }
}

/// What one thread's connections to a processor share.
pub(super) struct TlsClient {
    loaded: Arc<Loaded>,
    config: Arc<rustls::ClientConfig>,
    identity: Arc<Identity>,
    url: String,
    pub(super) handshakes_total: Cell<u64>,
    pub(super) resumed_total: Cell<u64>,
    errors_total: Rc<Cell<[u64; TlsProblem::ALL.len()]>>,
}

impl TlsClient {
    pub(super) fn connection(&self) -> Result<rustls::ClientConnection, rustls::Error> {
        let mut connection =
            rustls::ClientConnection::new(Arc::clone(&self.config), self.loaded.server_name.clone())?;
        // A request is bounded before it comes here, and half of one must never be taken for the whole.
        connection.set_buffer_limit(None);
        Ok(connection)
    }

    /// Whether the processor has asked for a client's certificate since this was called last.
    pub(super) fn was_asked_for_certificate(&self) -> bool {
        // Same thread: rustls asks from within its calls.
        self.identity.asked.swap(false, Ordering::Relaxed)
    }

    pub(super) fn note(&self, error: &rustls::Error) {
        self.count(TlsProblem::of(error), error);
    }

    pub(super) fn note_cut_off(&self) {
        self.count(TlsProblem::CutOff, &"the connection ended within the handshake");
    }

    fn count(&self, problem: TlsProblem, error: &dyn fmt::Display) {
        let mut counts = self.errors_total.get();
        counts[problem as usize] += 1;
        self.errors_total.set(counts);
        let bit = 1 << problem as u32;
        if self.loaded.named.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            // Once: with a wrong certificate each attempt would say it again.
            tracing::error!(
                "TLS with {} as {:?}: {} ({error}); counted from now on, not logged again",
                self.url,
                self.loaded.server_name.to_str(),
                problem.name(),
            );
        }
    }

    pub(super) fn errors_total(&self) -> [u64; TlsProblem::ALL.len()] {
        self.errors_total.get()
    }
}

/// The client's certificate, if there is one, and whether it was asked for.
struct Identity {
    key: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("is_present", &self.key.is_some()).finish_non_exhaustive()
    }
}

fn load_roots(pem: &Pem) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in load_certificates(pem)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| TlsError::File {
            file: pem.to_string(),
            problem: format!("certificate {} is no authority's: {error}", index + 1),
        })?;
    }
    Ok(roots)
}

/// Debian's bundle is not ours: a certificate in it that cannot be read is left out.
fn load_system_roots() -> Result<RootCertStore, TlsError> {
    let path = PathBuf::from(SYSTEM_CA_FILE);
    let bytes = std::fs::read(&path)
        .map_err(|error| TlsError::File { file: SYSTEM_CA_FILE.to_owned(), problem: error.to_string() })?;
    let pem = Pem { path, pem: Secret::new(bytes), place: Place::default() };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(load_certificates(&pem)?);
    if added == 0 {
        let problem = "no authority in it; name one with the processor's CA file".to_owned();
        return Err(TlsError::File { file: pem.to_string(), problem });
    }
    Ok(roots)
}

fn load_certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let problem = |error: &pem::Error| TlsError::File {
        file: pem.to_string(),
        problem: describe(error, "no certificate in it (expected PEM: -----BEGIN CERTIFICATE-----)"),
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.pem.expose()).collect();
    let certificates = certificates.map_err(|error| problem(&error))?;
    if certificates.is_empty() { Err(problem(&pem::Error::NoItemsFound)) } else { Ok(certificates) }
}

fn load_identity(certificate: &Pem, key: &Pem, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = load_certificates(certificate)?;
    let der = PrivateKeyDer::from_pem_slice(key.pem.expose()).map_err(|error| TlsError::File {
        file: key.to_string(),
        problem: describe(
            &error,
            "no private key in it (expected PEM: PKCS#8, PKCS#1 or SEC1, not encrypted)",
        ),
    })?;
    CertifiedKey::from_der(chain, der, provider).map_err(|error| TlsError::File {
        file: key.to_string(),
        problem: match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("not the key of the certificate in {}", certificate.path.display())
            }
            _ => "a private key of a kind that is not known here, or a broken one".to_owned(),
        },
    })
}

/// In our own words: the crate's may show a line of the file.
fn describe(error: &pem::Error, nothing: &str) -> String {
    match error {
        pem::Error::NoItemsFound => nothing.to_owned(),
        _ => "broken PEM".to_owned(),
    }
}
