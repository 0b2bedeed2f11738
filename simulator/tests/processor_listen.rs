//! Where `processor` listens, and over what: it moves to other addresses, and serves over TLS.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "shared with processor_http, which uses all of it")]

mod common;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::{Processor, TOKEN, payment_number, request};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn two_exchange_their_addresses_with_all_they_hold() {
    let mut processors = [Processor::start(&[]), Processor::start(&[])];
    let mut kept = processors.each_ref().map(Processor::connect);
    assert_eq!(kept[0].exchange(&payment_number(1)).status, 200);
    assert_eq!(kept[1].exchange(&payment_number(2)).status, 200);

    let addresses = processors.each_ref().map(|processor| processor.address);
    for (processor, there) in processors.iter().zip([addresses[1], addresses[0]]) {
        let body = format!(r#"{{"address":"{there}"}}"#);
        let answer = admin_when_there(processor, "PUT", "/admin/configurations/address", &body);
        assert_eq!(answer, format!(r#"{{"config":"address","was":"{}","is":"{there}"}}"#, processor.address));
    }
    // What was connected is not any more.
    for connection in &mut kept {
        assert_eq!(connection.drain().0, b"");
    }
    let [first, second] = &mut processors;
    std::mem::swap(&mut first.address, &mut second.address);
    for (processor, number) in processors.iter().zip([1, 2]) {
        let id = payment_number(number).split('"').nth(3).unwrap().to_owned();
        let started = Instant::now();
        loop {
            let listed = admin_when_there(processor, "GET", "/admin/payments", "");
            assert_eq!(listed.lines().count(), 1, "{listed}");
            if listed.contains(&id) {
                break;
            }
            // The other one has said that it leaves, and has not yet.
            assert!(started.elapsed() < LIMIT, "the other one is there still: {listed}");
        }
    }
}

/// The body of an answer: while both move, nobody may listen, and who came to the one that leaves is hung up on.
fn admin_when_there(processor: &Processor, method: &str, path: &str, body: &str) -> String {
    let started = Instant::now();
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect(processor.address)?;
        stream.set_read_timeout(Some(LIMIT))?;
        // An answer that ends with its connection.
        let request = request(method, path, TOKEN, body).replace("HTTP/1.1", "HTTP/1.0");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        assert!(head.contains(" 200 "), "{answer}");
        Ok(body.to_owned())
    };
    loop {
        match ask() {
            Ok(body) => return body,
            Err(error) => assert!(started.elapsed() < LIMIT, "{}: {error}", processor.address),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_address_that_is_none_is_refused() {
    let processor = Processor::start(&[]);
    let answer = processor.admin("PUT", "/admin/configurations/address", r#"{"address":"here"}"#);
    assert_eq!(answer.status, 400);
    assert_eq!(processor.admin("GET", "/admin/statistics", "").status, 200, "and it stays");
}

#[test]
fn over_tls_a_caller_without_a_certificate_learns_nothing() {
    let files = Files::new("mutual");
    let callers = files.path("ca.pem");
    let processor = files.processor(&["--tls-client-ca", callers.to_str().unwrap()]);
    let said = files.exchange(processor.address, true, &payment_number(1)).unwrap();
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    assert!(files.exchange(processor.address, false, &payment_number(2)).is_err());
    // Plain text is no handshake.
    let mut plain = processor.connect();
    plain.send(&payment_number(3));
    assert!(!plain.drain().0.starts_with(b"HTTP"));
}

#[test]
fn without_an_authority_for_callers_everybody_is_served_over_tls() {
    let files = Files::new("open");
    let processor = files.processor(&[]);
    let said = files.exchange(processor.address, false, &payment_number(1)).unwrap();
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
}

#[test]
fn files_that_are_none_are_named() {
    let files = Files::new("wrong");
    let path = |name: &str| files.path(name).display().to_string();
    for (arguments, expected) in [
        (vec!["--tls-certificate", "server.pem"], "--tls-key"),
        (vec!["--tls-certificate", "none.pem", "--tls-key", "server.key"], "none.pem: "),
        (vec!["--tls-certificate", "server.pem", "--tls-key", "server.pem"], "server.pem: "),
        (vec!["--tls-certificate", "server.pem", "--tls-key", "client.key"], "server.pem: "),
        (
            vec![
                "--tls-certificate",
                "server.pem",
                "--tls-key",
                "server.key",
                "--tls-client-ca",
                "server.key",
            ],
            "server.key: ",
        ),
    ] {
        let arguments = arguments.iter().map(|word| match word.starts_with("--") {
            true => (*word).to_owned(),
            false => path(word),
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_processor"));
        let output = command.args(["--listen", "127.0.0.1:0"]).args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
    }
}

/// An authority, a server's certificate and a client's, as files.
struct Files {
    folder: PathBuf,
    roots: RootCertStore,
    client: (CertificateDer<'static>, PrivateKeyDer<'static>),
}

impl Files {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("galo-processor-tls-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        let identity = |file: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            fs::write(folder.join(format!("{file}.pem")), certificate.pem()).unwrap();
            fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
            (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        };
        identity("server");
        let client = identity("client");
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).unwrap();
        Self { folder, roots, client }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    fn processor(&self, more: &[&str]) -> Processor {
        let [certificate, key] = [self.path("server.pem"), self.path("server.key")];
        let mut arguments =
            vec!["--tls-certificate", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
        arguments.extend(more);
        Processor::start(&arguments)
    }

    /// What comes back for a request, as far as it comes, with or without a certificate of the caller's own.
    fn exchange(&self, address: SocketAddr, as_client: bool, request: &str) -> io::Result<String> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let config = match as_client {
            true => {
                let (certificate, key) = &self.client;
                builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap()
            }
            false => builder.with_no_client_auth(),
        };
        let name = ServerName::from(address.ip());
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(LIMIT))?;
        let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket);
        stream.write_all(request.as_bytes())?;
        let mut answer = [0; 1_024];
        match stream.read(&mut answer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            len => Ok(String::from_utf8_lossy(&answer[..len]).into_owned()),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).unwrap_or_default();
    }
}
