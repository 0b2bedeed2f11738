//! Notifications: a POST to one URL for each payment that was decided on.
//!
//! One that is not answered 2xx within [`ANSWER_TIME`] is sent again, [`TRIES`] times in all, with growing pauses. Real providers go on
//! for days; a caller must not need that.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use hyper::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{Provider, unix_ms};
use crate::provider::{Notice, Signer};
use crate::service::Service;

const TRIES: u32 = 4;
const ANSWER_TIME: Duration = Duration::from_secs(5);
const PAUSE_FIRST: Duration = Duration::from_millis(250);

/// Where notifications go, and what signs them.
#[derive(Clone)]
pub struct Webhook {
    host: String,
    port: u16,
    target: String,
    secret: Option<Vec<u8>>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Webhook(http://{}:{}{})", self.host, self.port, self.target)
    }
}

/// A URL that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}: expected http://host[:port][/path]")]
pub struct WebhookError(String);

impl FromStr for Webhook {
    type Err = WebhookError;

    fn from_str(text: &str) -> Result<Self, WebhookError> {
        let error = || WebhookError(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| error())?;
        let authority = uri.authority().filter(|it| !it.as_str().contains('@')).ok_or_else(error)?;
        if uri.scheme_str() != Some("http") {
            return Err(error());
        }
        Ok(Webhook {
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(80),
            target: uri.path_and_query().map_or("/", |it| it.as_str()).to_owned(),
            secret: None,
        })
    }
}

impl Webhook {
    /// Signed with this secret.
    #[must_use]
    pub fn signed(self, secret: Vec<u8>) -> Self {
        Webhook { secret: Some(secret), ..self }
    }

    async fn send(&self, notice: &Notice) -> io::Result<bool> {
        // A literal of IPv6 is written in brackets in a URL, and without in an address.
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let mut stream = TcpStream::connect((host, self.port)).await?;
        let mut head = format!(
            "POST {} HTTP/1.1\r\nHost: {}:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n",
            self.target,
            self.host,
            self.port,
            notice.body.len()
        );
        for (name, value) in &notice.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n{}", notice.body).as_bytes()).await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        Ok(status.starts_with(b"HTTP/1.") && status[9] == b'2')
    }
}

/// Tells of a payment once it is decided on.
pub(super) async fn tell(service: Rc<Service>, provider: Rc<Provider>, number: usize) {
    let Some(webhook) = &provider.webhook else { return };
    let decided_ms = provider.books.borrow().view(number, 0).map_or(0, |view| view.entry.decided_ms);
    let wait_ms = u64::try_from(decided_ms.saturating_sub(unix_ms())).unwrap_or(0);
    sleep(Duration::from_millis(wait_ms)).await;
    let (notice, is_lost) = {
        let books = provider.books.borrow();
        // A purge may have come between.
        let Some(view) = books.view(number, decided_ms) else { return };
        let signer = Signer { secret: webhook.secret.clone(), now_s: unix_ms() / 1_000 };
        let order = &view.entry.order;
        let is_lost = service.terms.borrow().lose_notifications.picks(order.id(), order.amount_cents);
        ((provider.dialect.notice)(&view, &signer), is_lost)
    };
    let Some(notice) = notice else { return };
    if is_lost {
        provider.count(|counts| counts.lost += 1);
        return;
    }
    let mut pause = PAUSE_FIRST;
    for _ in 0..TRIES {
        if let Ok(Ok(true)) = timeout(ANSWER_TIME, webhook.send(&notice)).await {
            provider.count(|counts| counts.notified += 1);
            return;
        }
        sleep(pause).await;
        pause *= 2;
    }
    provider.count(|counts| counts.unheard += 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_notifications_go() {
        let read = |text: &str| text.parse::<Webhook>().map(|it| (it.host, it.port, it.target));
        let expected = |host: &str, port, target: &str| Ok((host.to_owned(), port, target.to_owned()));
        assert_eq!(
            read("http://localhost:9999/notifications/stripe"),
            expected("localhost", 9999, "/notifications/stripe")
        );
        assert_eq!(read("http://[::1]"), expected("[::1]", 80, "/"));
        for text in ["https://localhost", "localhost:80/x", "/x", "http://", "http://a:b@c"] {
            assert_eq!(read(text), Err(WebhookError(text.to_owned())));
        }
    }
}
