//! `[processor.notification]`: a processor says that something has happened to a payment.
//!
//! It is never believed. All that is read of it is an id, whose next look-up comes sooner; the signature keeps strangers from
//! causing look-ups, not from causing bookings.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use galo_engine::CorrelationId;
use ring::hmac;
use thiserror::Error;

use crate::files::Files;
use crate::json::Scalar;
use crate::lookup::read_id;
use crate::rules::{Headers, pointer};
use crate::secret::Secret;
use crate::table::Table;
use crate::text::is_header_name;

/// Why a notification is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    /// The header with the signature is missing, or is none.
    #[error("no signature that can be read")]
    NoSignature,
    /// It is not what the body and the secret give.
    #[error("the signature does not fit")]
    BadSignature,
    /// The body names no payment.
    #[error("no payment's id in the body")]
    NoId,
}

/// `[processor.notification]`, compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notification {
    id: String,
    hmac: Option<Hmac>,
}

#[derive(Clone, PartialEq, Eq)]
struct Hmac {
    header: String,
    prefix: String,
    secret: Secret,
    encoding: Encoding,
    signed: Signed,
}

impl fmt::Debug for Hmac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hmac({}, {:?})", self.header, self.secret)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Encoding {
    Hex,
    Base64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Signed {
    /// The body.
    Body,
    /// A time, a dot and the body; the header is `t=TIME,v1=SIGNATURE`, perhaps with more than one signature.
    TimeAndBody,
}

impl Notification {
    /// The payment that a notification is about.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn notified(&self, headers: &dyn Headers, body: &[u8]) -> Result<CorrelationId, Refusal> {
        if let Some(hmac) = &self.hmac {
            hmac.verify(headers, body)?;
        }
        let text = str::from_utf8(body).ok().and_then(|body| Scalar::at(body, &self.id));
        text.and_then(|scalar| read_id(&scalar.text)).ok_or(Refusal::NoId)
    }

    pub(crate) fn read(mut table: Table<'_>, files: &Files<'_>) -> Option<Self> {
        let id = table.need("id", "the pointer to the payment's id").and_then(|entry| pointer(&entry));
        let has_hmac = table.get("hmac").is_some();
        let hmac = table.table("hmac").and_then(|hmac| Hmac::read(hmac, files));
        table.finish();
        // A signature that cannot be read must not become none at all.
        if has_hmac && hmac.is_none() { None } else { Some(Self { id: id?, hmac }) }
    }
}

impl Hmac {
    fn read(mut table: Table<'_>, files: &Files<'_>) -> Option<Self> {
        let header = table.need("header", "the name of the header with the signature").and_then(|entry| {
            entry.read(|text| {
                is_header_name(text).then(|| text.to_owned()).ok_or_else(|| "a header's name".to_owned())
            })
        });
        let secret = table.need("secret_file", "the path of the file that holds the secret");
        let secret = secret.and_then(|entry| files.secret(&entry));
        table.word("algorithm", &[("sha256", ())]);
        let encodings = [("hex", Encoding::Hex), ("base64", Encoding::Base64)];
        let encoding = table.word("encoding", &encodings).unwrap_or(Encoding::Hex);
        let signs = [("body", Signed::Body), ("time.body", Signed::TimeAndBody)];
        let signed = table.word("signed", &signs).unwrap_or(Signed::Body);
        let prefix = table.text("prefix").unwrap_or_default().to_owned();
        table.finish();
        Some(Self { header: header?, prefix, secret: secret?, encoding, signed })
    }

    fn verify(&self, headers: &dyn Headers, body: &[u8]) -> Result<(), Refusal> {
        let header = headers.value(&self.header).and_then(|value| str::from_utf8(value).ok());
        let header = header.ok_or(Refusal::NoSignature)?.trim();
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.expose());
        // `verify` compares in constant time.
        match self.signed {
            Signed::Body => {
                let tag =
                    header.strip_prefix(self.prefix.as_str()).and_then(|text| self.encoding.decode(text));
                let tag = tag.ok_or(Refusal::NoSignature)?;
                hmac::verify(&key, body, &tag).map_err(|_| Refusal::BadSignature)
            }
            Signed::TimeAndBody => {
                let pairs = || header.split(',').filter_map(|pair| pair.trim().split_once('='));
                let (_, time) = pairs().find(|(name, _)| *name == "t").ok_or(Refusal::NoSignature)?;
                let message = [time.as_bytes(), b".", body].concat();
                let mut refusal = Refusal::NoSignature;
                for (_, text) in pairs().filter(|(name, _)| *name == "v1").take(4) {
                    let Some(tag) = self.encoding.decode(text) else { continue };
                    if hmac::verify(&key, &message, &tag).is_ok() {
                        return Ok(());
                    }
                    refusal = Refusal::BadSignature;
                }
                Err(refusal)
            }
        }
    }
}

impl Encoding {
    fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Base64 => STANDARD.decode(text).ok(),
            Self::Hex => {
                let digit =
                    |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let pairs = text.as_bytes().chunks(2);
                pairs.map(|pair| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";
    const BODY: &str = r#"{"id":"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3"}"#;

    fn notification(encoding: Encoding, signed: Signed, prefix: &str) -> Notification {
        let hmac = Hmac {
            header: "X-Signature".to_owned(),
            prefix: prefix.to_owned(),
            secret: Secret::new(*b"secret"),
            encoding,
            signed,
        };
        Notification { id: "/id".to_owned(), hmac: Some(hmac) }
    }

    fn hex(message: &str) -> String {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"secret"), message.as_bytes());
        tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn notified(notification: &Notification, signature: &str, body: &str) -> Result<String, Refusal> {
        let headers = [("x-signature", signature.as_bytes())];
        notification.notified(&headers, body.as_bytes()).map(|id| id.to_string())
    }

    /// RFC 4231, test case 2.
    #[test]
    fn the_signature_is_the_rfcs() {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"Jefe"), b"what do ya want for nothing?");
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn only_a_signed_body_names_a_payment() {
        let plain = notification(Encoding::Hex, Signed::Body, "sha256=");
        let good = format!("sha256={}", hex(BODY));
        assert_eq!(notified(&plain, &good, BODY).as_deref(), Ok(ID));
        assert_eq!(notified(&plain, &good, &BODY.replace('4', "5")), Err(Refusal::BadSignature));
        assert_eq!(notified(&plain, &good[..good.len() - 2], BODY), Err(Refusal::BadSignature));
        for none in ["", "sha256=zz", "sha256=abc", &hex(BODY)] {
            assert_eq!(notified(&plain, none, BODY), Err(Refusal::NoSignature), "{none}");
        }
        let none: [(&str, &[u8]); 0] = [];
        assert_eq!(plain.notified(&none, BODY.as_bytes()), Err(Refusal::NoSignature));
        let elsewhere = r#"{"ID":"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3"}"#;
        assert_eq!(notified(&plain, &format!("sha256={}", hex(elsewhere)), elsewhere), Err(Refusal::NoId));
    }

    #[test]
    fn base64_and_a_time_are_understood() {
        let base64 = notification(Encoding::Base64, Signed::Body, "");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"secret"), BODY.as_bytes());
        assert_eq!(notified(&base64, &STANDARD.encode(tag.as_ref()), BODY).as_deref(), Ok(ID));

        let timed = notification(Encoding::Hex, Signed::TimeAndBody, "");
        let good = hex(&format!("17.{BODY}"));
        let other = hex(BODY);
        assert_eq!(notified(&timed, &format!("t=17,v1={other},v1={good},v0=x"), BODY).as_deref(), Ok(ID));
        assert_eq!(notified(&timed, &format!("t=18,v1={good}"), BODY), Err(Refusal::BadSignature));
        assert_eq!(notified(&timed, &format!("v1={good}"), BODY), Err(Refusal::NoSignature));
        assert_eq!(notified(&timed, "t=17", BODY), Err(Refusal::NoSignature));
    }

    #[test]
    fn without_a_secret_anyone_may_say_so() {
        let open = Notification { id: "/id".to_owned(), hmac: None };
        assert_eq!(notified(&open, "", BODY).as_deref(), Ok(ID));
        let digits = BODY.replace('-', "");
        assert_eq!(notified(&open, "", &digits).as_deref(), Ok(ID), "an id without hyphens");
    }
}
