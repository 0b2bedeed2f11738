//! Texts with placeholders, `"/payments/{id}"`: taken apart once, at start.

/// A part of such a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    Literal(String),
    Placeholder(Placeholder),
}

/// What may stand in braces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Placeholder {
    Id,
    Key,
    Amount,
    Currency,
    RequestedAt,
    Reference,
    From,
    To,
    Client(String),
}

/// Where a text stands decides what it may name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// A path or a header of a request.
    Head,
    /// A path of a look-up.
    Lookup,
    Body,
}

impl Scope {
    const fn names(self) -> &'static str {
        match self {
            Self::Head => "{id} and {key}",
            Self::Lookup => "{id}, {key}, {reference}, {from} and {to}",
            Self::Body => "{id}, {key}, {amount}, {currency}, {requested_at} and {client.NAME}",
        }
    }

    fn placeholder(self, name: &str) -> Option<Placeholder> {
        let placeholder = match name {
            "id" => Placeholder::Id,
            "key" => Placeholder::Key,
            "amount" => Placeholder::Amount,
            "currency" => Placeholder::Currency,
            "requested_at" => Placeholder::RequestedAt,
            "reference" => Placeholder::Reference,
            "from" => Placeholder::From,
            "to" => Placeholder::To,
            _ => {
                let member = name.strip_prefix("client.")?;
                let usable =
                    (1..=64).contains(&member.len()) && member.bytes().all(|byte| byte.is_ascii_graphic());
                usable.then(|| Placeholder::Client(member.to_owned()))?
            }
        };
        let fits = match placeholder {
            Placeholder::Id | Placeholder::Key => true,
            Placeholder::Reference | Placeholder::From | Placeholder::To => self == Self::Lookup,
            Placeholder::Amount
            | Placeholder::Currency
            | Placeholder::RequestedAt
            | Placeholder::Client(_) => self == Self::Body,
        };
        fits.then_some(placeholder)
    }
}

/// Takes a text apart; `{{` and `}}` are braces.
///
/// # Errors
/// What was expected.
pub(crate) fn parts(text: &str, scope: Scope) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix(brace) {
            literal.push_str(brace);
            rest = behind;
            continue;
        }
        let close = rest.find('}').filter(|_| brace == "{");
        let Some(close) = close else {
            return Err("braces in pairs, and {{ or }} for one that stands for itself".to_owned());
        };
        let Some(placeholder) = scope.placeholder(&rest[..close]) else {
            // As in every value, what stands around an @ may be a password.
            let name = if rest[..close].contains('@') { "…" } else { &rest[..close] };
            return Err(format!("no placeholder but {}; {{{name}}} is none", scope.names()));
        };
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        parts.push(Part::Placeholder(placeholder));
        rest = &rest[close + 1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

/// Whether a text names one of these.
pub(crate) fn names(parts: &[Part], wanted: &[Placeholder]) -> bool {
    parts.iter().any(|part| matches!(part, Part::Placeholder(placeholder) if wanted.contains(placeholder)))
}

/// A header's name: a token of RFC 9110, section 5.6.2.
pub(crate) fn is_header_name(text: &str) -> bool {
    let special = b"!#$%&'*+-.^_`|~";
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || special.contains(&byte))
}

/// A header's value: visible ASCII, blanks inside only.
pub(crate) fn is_header_value(text: &str) -> bool {
    text.len() <= 1_024 && text.trim() == text && text.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_taken_apart() {
        let literal = |text: &str| Part::Literal(text.to_owned());
        let place = Part::Placeholder;
        for (text, expected) in [
            ("", vec![]),
            ("a", vec![literal("a")]),
            ("/p/{id}", vec![literal("/p/"), place(Placeholder::Id)]),
            ("{id}{key}", vec![place(Placeholder::Id), place(Placeholder::Key)]),
            ("{{id}}", vec![literal("{id}")]),
            (
                "é{client.a.b}é",
                vec![literal("é"), place(Placeholder::Client("a.b".to_owned())), literal("é")],
            ),
        ] {
            assert_eq!(parts(text, Scope::Body), Ok(expected), "{text}");
        }
        for text in
            ["{", "}", "{id", "id}", "{}", "{ID}", "{client.}", "{client.a b}", "{reference}", "{{id}"]
        {
            assert!(parts(text, Scope::Body).is_err(), "{text}");
        }
        assert!(parts("{reference}", Scope::Lookup).is_ok());
        for text in ["{amount}", "{client.x}", "{currency}"] {
            assert!(parts(text, Scope::Head).is_err() && parts(text, Scope::Lookup).is_err(), "{text}");
        }
    }
}
