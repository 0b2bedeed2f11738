//! Certificates of this run's own, and a client that shows one: for processors that want to know who calls.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::client::PATIENCE;

/// An authority that vouches for a server at this machine's address and for one client.
pub(crate) struct Authority {
    client: Arc<ClientConfig>,
}

impl Authority {
    /// Makes all of it anew, and leaves in the folder `ca.pem`, `server.pem` and `client.pem` with their `.key`s.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self, String> {
        let wrong = |error: rcgen::Error| error.to_string();
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
        };
        let mut params = CertificateParams::new(Vec::new()).map_err(wrong)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().map_err(wrong)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(wrong)?;
        write("ca.pem", issuer.pem())?;
        let identity = |name: &str| {
            let key = KeyPair::generate().map_err(wrong)?;
            let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).map_err(wrong)?;
            let certificate = params.signed_by(&key, &issuer).map_err(wrong)?;
            write(&format!("{name}.pem"), certificate.pem())?;
            write(&format!("{name}.key"), key.serialize_pem())?;
            let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
            Ok::<_, String>((certificate.der().clone(), key))
        };
        identity("server")?;
        let (certificate, key) = identity("client")?;
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).map_err(|error| error.to_string())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder.with_root_certificates(roots).with_client_auth_cert(vec![certificate], key)
            })
            .map_err(|error| error.to_string())?;
        Ok(Self { client: Arc::new(client) })
    }

    /// Status and body of an answer that ends with its connection.
    pub(crate) fn ask(&self, address: SocketAddr, request: &str) -> Result<(u16, String), String> {
        let failed = |error: std::io::Error| format!("{address}: {error}");
        let name = ServerName::from(address.ip());
        let session =
            ClientConnection::new(Arc::clone(&self.client), name).map_err(|error| error.to_string())?;
        let socket = TcpStream::connect(address).map_err(failed)?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let mut stream = StreamOwned::new(session, socket);
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(failed)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        match (status, answer.split_once("\r\n\r\n")) {
            (Some(status), Some((_, body))) => Ok((status, body.to_owned())),
            _ => Err(format!("{address} answers {answer:?}")),
        }
    }
}
