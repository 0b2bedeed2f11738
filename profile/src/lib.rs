//! What a payment processor is, as configuration: one TOML file, read and checked as a whole (`docs/processors.md`).
//!
//! The map, from the outside in:
//! - [`Processors`] is the file: read it with [`Processors::read`], or make the contest's two with [`Processors::contest`].
//! - [`Processor`] is one table of it, compiled: [`Request`] turns a payment into bytes, [`Answers`] turns an answer into a
//!   verdict, [`Lookup`] finds out what is stored, [`Notification`] reads whom a notification is about, [`Tokens`] keeps an
//!   OAuth2 token fresh.
//! - [`shipped`] has the profiles that come with Galo.
//!
//! Sans-IO but for reading the files it is pointed at: no socket, no clock. What comes from a client or a processor never panics
//! here, is never believed to be short, and never changes a request's structure; secrets come from files and are never shown.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod auth;
mod error;
mod file;
mod files;
mod health;
mod json;
mod lookup;
mod notify;
mod processor;
mod request;
mod routing;
mod rules;
mod secret;
pub mod shipped;
mod table;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod url;

pub use auth::{Auth, OAuth2, Tokens};
pub use error::{Error, Errors};
pub use file::Processors;
pub use health::{Health, HealthReport};
pub use lookup::{Found, Lookup, Said, Search, State};
pub use notify::{Notification, Refusal};
pub use processor::{Connection, Cost, Limits, Pem, Place, Processor, Tls};
pub use request::{Idempotency, Request};
pub use routing::Routing;
pub use rules::{Answers, Headers, Page, TEXT_SIZE_MAX};
pub use secret::Secret;
pub use template::{KeyForm, Members, Payment, Unrenderable};
pub use url::Url;
