//! The profiles that come with Galo, compiled in. Each names its public source.

/// Name and text.
const SHIPPED: [(&str, &str); 6] = [
    ("contest", include_str!("../profiles/contest.toml")),
    ("stripe", include_str!("../profiles/stripe.toml")),
    ("adyen", include_str!("../profiles/adyen.toml")),
    ("mercadopago", include_str!("../profiles/mercadopago.toml")),
    ("pix", include_str!("../profiles/pix.toml")),
    ("localstripe", include_str!("../profiles/localstripe.toml")),
];

/// Their names.
pub fn names() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// The text of one: the keys of a `[[processor]]` table without that head.
#[must_use]
pub fn text(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(have, _)| *have == name).map(|(_, text)| *text)
}
