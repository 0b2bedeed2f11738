//! Payment providers as their public APIs show them: Stripe, localstripe, Adyen, Mercado Pago, and Pix at a bank.
//!
//! [`Books`] is what every provider has: payments with their states, and the keys under which they were asked for. A [`Dialect`] is
//! what tells one provider from another: its routes, how a request is read, and how each thing that can come of it is said. What the
//! dialects rest on, and what of it was not verified, stands in `docs/processor.md`; the shipped profile of the same name is what
//! Galo believes of the same provider.
//!
//! Nothing here reads a clock, opens a socket or throws dice: callers pass the Unix time in milliseconds. Narrower than the originals:
//! one merchant, one way to create a payment, no capture, refund or cancellation.

mod adyen;
mod books;
mod dialect;
mod mercadopago;
mod pix;
mod stripe;

pub use books::{Books, Claim, Entry, Order, Said, State, View};
pub use dialect::{Ask, Auth, Dialect, Does, Format, KeyRule, Matched, Notice, Reply, Signer, Trouble};
