//! Where the processor listens, and its connections.
//!
//! A processor can move to another address, as a container does that starts again: its listener closes, every connection ends, and it
//! listens at the new address as soon as that is free. Two of them that are told to move at the same time exchange their addresses.

use std::cell::Cell;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use super::{GARBAGE, Service, Severed, routes};
use crate::service::tls::Tls;

/// How long a new address may be another's before it is tried again.
const BIND_AGAIN: Duration = Duration::from_millis(5);

/// A caller that never ends its handshake holds a connection for so long.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// In an answer: the processor goes there once the answer has left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move(pub(super) SocketAddr);

/// Serves the processor on this listener, and where it moves to, until the returned future is dropped.
///
/// Must run inside a [`tokio::task::LocalSet`], as its connections are tasks of that set.
///
/// # Errors
/// The processor moved to an address at which nobody can listen here.
pub async fn serve(listener: TcpListener, service: Rc<Service>, tls: Option<Tls>) -> io::Result<()> {
    let clock = Rc::clone(&service);
    tokio::task::spawn_local(async move { clock.keep_time().await });
    service.address.send_replace(Some(listener.local_addr()?));
    let mut moved = service.address.subscribe();
    let mut listener = listener;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (service, tls) = (Rc::clone(&service), tls.clone());
                    tokio::task::spawn_local(async move { serve_stream(stream, service, tls).await });
                }
                // A caller that left before it was accepted, or no descriptor free: let others finish first.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            },
            _ = moved.changed() => {
                let address = moved.borrow_and_update().expect("set before anything was accepted");
                drop(listener);
                listener = bind(address).await?;
            }
        }
    }
}

/// Listens at an address that another processor may be about to leave.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => tokio::time::sleep(BIND_AGAIN).await,
            other => return other,
        }
    }
}

/// What a connection runs over.
trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// The socket below.
    fn socket(&self) -> &TcpStream;
}

impl Transport for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Transport for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// A connection until it ends, or the processor moves.
async fn serve_stream(stream: TcpStream, service: Rc<Service>, tls: Option<Tls>) {
    // Each write leaves as a segment of its own, which is what makes a late last chunk visible.
    if stream.set_nodelay(true).is_err() {
        return; // The peer has gone already.
    }
    let mut moved = service.address.subscribe();
    let served = async {
        let Some(tls) = tls else { return serve_connection(stream, &service).await };
        // A handshake that fails has told its caller why.
        match tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve_connection(stream, &service).await,
            Ok(Err(_)) | Err(_) => None,
        }
    };
    let next = tokio::select! {
        next = served => next,
        _ = moved.changed() => None,
    };
    if let Some(Move(address)) = next {
        service.address.send_replace(Some(address));
    }
}

pub(super) fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Answers are small: one copy into one buffer is cheaper than a vector of three.
    builder.header_read_timeout(None).writev(false);
    builder
}

/// A connection to its end. Says where the processor moves to, if one of its requests asked for that.
async fn serve_connection<Stream: Transport>(stream: Stream, service: &Rc<Service>) -> Option<Move> {
    let asked = Cell::new(None);
    let mut connection = http1().serve_connection(
        TokioIo::new(stream),
        service_fn(|request| {
            let (service, asked) = (Rc::clone(service), &asked);
            // Boxed, since hyper gives the socket back only from a connection that it may move.
            Box::pin(async move {
                let response = routes::route(service, request).await?;
                if let Some(next) = response.extensions().get::<Move>() {
                    asked.set(Some(*next));
                }
                Ok::<_, Severed>(response)
            })
        }),
    );
    let ended = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    let mut stream = connection.into_parts().io.into_inner();
    match ended {
        // Over TLS that says that nothing was cut off. A caller that has gone needs no goodbye.
        Ok(()) => stream.shutdown().await.unwrap_or_default(),
        // Any other error is malformed HTTP, which hyper has answered, or a connection that the caller ended.
        Err(error) => {
            if let Some(severed) = error.source().and_then(|source| source.downcast_ref::<Severed>()) {
                sever(stream, *severed).await;
            }
        }
    }
    asked.get()
}

/// Ends a connection without an answer.
async fn sever<Stream: Transport>(mut stream: Stream, severed: Severed) {
    // If the caller is quicker to leave than we are, the fault has no witness; nothing to do about that.
    match severed {
        Severed::Closed => {}
        Severed::Reset => stream.socket().set_zero_linger().unwrap_or_default(),
        Severed::Garbage => stream.write_all(GARBAGE).await.unwrap_or_default(),
    }
}
