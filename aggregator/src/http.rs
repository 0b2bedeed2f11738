//! The aggregator's own HTTP: metrics, liveness, readiness, on a unix socket behind HAProxy's stats port.
//!
//! Not on any payment's way, so a well-kept server (hyper) rather than a fast one. Whoever reaches the socket can take no more than
//! [`CONNECTIONS_MAX`] connections, each for one request and [`REQUEST_TIMEOUT`]; others wait in the listener's backlog.

use std::convert::Infallible;
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;

use crate::metrics::Metrics;
use crate::server::Shared;

/// HAProxy's, a healthcheck's and an engineer's, many times over.
const CONNECTIONS_MAX: usize = 64;

/// How long a request may take to come, and its answer to be read.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until the process ends.
///
/// # Errors
/// If the listener cannot be used at all.
pub async fn serve(listener: UnixListener, shared: Rc<Shared>, metrics: Rc<Metrics>) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes it");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (shared, metrics) = (Rc::clone(&shared), Rc::clone(&metrics));
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| {
                let response = respond(&request, &shared, &metrics);
                async { Ok::<_, Infallible>(response) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.max_buf_size(16 << 10).half_close(false).keep_alive(false);
            let serving = server.serve_connection(TokioIo::new(stream), service);
            match tokio::time::timeout(REQUEST_TIMEOUT, serving).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!("http: {error}"),
                Err(_) => {
                    tracing::debug!("http: a request or its reader took longer than {REQUEST_TIMEOUT:?}")
                }
            }
            drop(place);
        });
    }
}

fn respond<B>(request: &Request<B>, shared: &Shared, metrics: &Metrics) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !matches!(path, "/metrics" | "/health" | "/ready") {
        return problem(StatusCode::NOT_FOUND, "not-found", "No such path");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response =
            problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed");
        response.headers_mut().insert(ALLOW, "GET, HEAD".parse().expect("a valid header value"));
        return response;
    }
    // Ready as soon as it listens: there is nothing that it waits for.
    match path {
        "/metrics" => body(
            StatusCode::OK,
            "text/plain; version=0.0.4",
            shared.look(|c| metrics.render(c, shared.journal().map(Rc::as_ref))),
        ),
        _ => body(StatusCode::OK, "application/json", r#"{"status":"ok"}"#.to_owned()),
    }
}

fn problem(status: StatusCode, kind: &str, title: &str) -> Response<Full<Bytes>> {
    let text = format!(r#"{{"type":"/problems/{kind}","title":"{title}","status":{}}}"#, status.as_u16());
    body(status, "application/problem+json", text)
}

fn body(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type.parse().expect("a valid header value"));
    response
}
