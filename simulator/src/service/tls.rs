//! TLS in front of the service, with a certificate from files; callers may have to show one of their own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// A server's side of TLS.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read, or has nothing of the kind.
    #[error("{path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A certificate that is none, or that the key does not belong to.
    #[error("{path}: {source}")]
    Certificate {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Nothing that could vouch for callers.
    #[error("{path}: {source}")]
    Callers {
        /// The file of who vouches for them.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
}

impl Tls {
    /// Of PEM files: the certificate with its chain, its key, and who vouches for callers, who then must show a certificate.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_files(certificate: &Path, key: &Path, callers: Option<&Path>) -> Result<Self, TlsError> {
        let in_file = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::File { path, source }
        };
        let all = |path: &Path| -> Result<Vec<CertificateDer<'static>>, TlsError> {
            let certificates = CertificateDer::pem_file_iter(path).map_err(in_file(path))?;
            certificates.collect::<Result<_, _>>().map_err(in_file(path))
        };
        let chain = all(certificate)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(in_file(key))?;
        let of_certificate = |source| TlsError::Certificate { path: certificate.to_owned(), source };
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(of_certificate)?;
        let builder = match callers {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for root in all(path)? {
                    let wrong = |source| TlsError::Certificate { path: path.to_owned(), source };
                    roots.add(root).map_err(wrong)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let wrong = |source| TlsError::Callers { path: path.to_owned(), source };
                builder.with_client_cert_verifier(verifier.build().map_err(wrong)?)
            }
        };
        let config = builder.with_single_cert(chain, key).map_err(of_certificate)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}
