//! The aggregator's own HTTP: metrics, liveness, readiness, and what an operator needs, on a unix socket. HAProxy's stats port shows the
//! metrics alone.
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
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;

use crate::metrics::Metrics;
use crate::operator;
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
            let service =
                service_fn(async |request| Ok::<_, Infallible>(respond(request, &shared, &metrics).await));
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

async fn respond(request: Request<Incoming>, shared: &Shared, metrics: &Metrics) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let (path, method) = (parts.uri.path(), parts.method);
    if let Some(id) = operator::settled_id(path) {
        return match method {
            Method::POST => operator::settle(shared, &metrics.names, id, body).await,
            _ => method_not_allowed("POST"),
        };
    }
    if !matches!(path, "/metrics" | "/health" | "/ready" | "/payments") {
        return problem(StatusCode::NOT_FOUND, "not-found", "Not found", "there is nothing at this path");
    }
    if !matches!(method, Method::GET | Method::HEAD) {
        return method_not_allowed("GET, HEAD");
    }
    match path {
        "/metrics" => {
            shared.take_grants();
            let oldest = metrics.oldest_in_doubt(shared).await;
            let page = shared
                .look(|c| metrics.render(c, oldest, shared.now().unix_ms, shared.journal().map(Rc::as_ref)));
            respond_with(StatusCode::OK, "text/plain; version=0.0.4", page)
        }
        "/payments" => operator::list(shared, &metrics.names, parts.uri.query().unwrap_or("")).await,
        // Ready as soon as it listens: there is nothing that it waits for.
        _ => json(r#"{"status":"ok"}"#.to_owned()),
    }
}

fn method_not_allowed(allow: &'static str) -> Response<Full<Bytes>> {
    let mut response = problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "Method not allowed",
        "this path serves other methods; Allow lists them",
    );
    response.headers_mut().insert(ALLOW, allow.parse().expect("a valid header value"));
    response
}

/// A refusal; the texts are ours and stand in JSON as they are, but for quotes.
pub fn problem(status: StatusCode, kind: &str, title: &str, detail: &str) -> Response<Full<Bytes>> {
    let detail = detail.replace('"', r#"\""#);
    let text = format!(
        r#"{{"type":"/problems/{kind}","title":"{title}","status":{},"detail":"{detail}"}}"#,
        status.as_u16()
    );
    respond_with(status, "application/problem+json", text)
}

/// An answer.
pub fn json(text: String) -> Response<Full<Bytes>> {
    respond_with(StatusCode::OK, "application/json", text)
}

fn respond_with(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type.parse().expect("a valid header value"));
    response
}
