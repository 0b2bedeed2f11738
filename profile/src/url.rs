//! A processor's URL, taken apart; nothing is resolved here.

use std::fmt;
use std::net::IpAddr;

/// What is accepted, in the words of the messages.
pub(crate) const EXPECTED: &str =
    "http://host[:port][/prefix] or https://host[:port][/prefix], without user, ? or #";

/// Where requests go: what to connect to, and what to write into each of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// Behind TLS.
    pub https: bool,
    /// A name or an address, without brackets.
    pub host: String,
    /// The port; 80 or 443 where none is written.
    pub port: u16,
    /// The value of the `Host` header: the authority as it was written.
    pub authority: String,
    /// What stands before each request's path: empty, or beginning and not ending with a slash.
    pub path_prefix: String,
}

/// Whether a text that is no URL of ours may hold a password or a key.
pub(crate) fn may_hold_secret(text: &str) -> bool {
    text.contains(['@', '?'])
}

/// Whether a certificate can have this name: a host's (RFC 1123, section 2.1, and underscores), or an address without brackets.
pub(crate) fn is_certified_name(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    let is_label = |label: &str| {
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        (1..=63).contains(&label.len()) && plain && !label.starts_with('-') && !label.ends_with('-')
    };
    let mut labels = text.strip_suffix('.').unwrap_or(text).rsplit('.');
    // What ends in a number is an address, or none.
    let ends_in_number = labels.clone().next().is_some_and(|last| {
        let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
        last.bytes().all(|byte| byte.is_ascii_digit())
            || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    });
    text.len() <= 253 && labels.all(is_label) && !ends_in_number
}

impl Url {
    /// Takes a text apart. `None`: it is no `http://` or `https://host[:port][/prefix]` without user, `?` and `#`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // `http::Uri` drops a fragment silently; a silent drop hides a mistake.
        if text.contains('#') {
            return None;
        }
        let uri: http::Uri = text.parse().ok()?;
        let https = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = match authority.port_u16() {
            Some(0) => return None,
            Some(port) => port,
            None if authority.as_str() != authority.host() => return None,
            None if https => 443,
            None => 80,
        };
        let path_prefix = uri.path().trim_end_matches('/').to_owned();
        let usable = !host.is_empty()
            && (!https || is_certified_name(host))
            && path_prefix.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
        usable.then(|| Self {
            https,
            host: host.to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            path_prefix,
        })
    }

    /// The whole path of a text that is a URL: its end is left as it is, since it is no prefix of another.
    pub(crate) fn path(text: &str) -> String {
        text.parse().map_or_else(|_| "/".to_owned(), |uri: http::Uri| uri.path().to_owned())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path_prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, https, host, port, authority, prefix) in [
            ("http://bank", false, "bank", 80, "bank", ""),
            ("https://api.bank.test/", true, "api.bank.test", 443, "api.bank.test", ""),
            ("https://bank:8443/v1/", true, "bank", 8443, "bank:8443", "/v1"),
            ("http://[::1]:8001/a/b", false, "::1", 8001, "[::1]:8001", "/a/b"),
        ] {
            let url = Url::parse(text).expect(text);
            assert_eq!((url.https, url.host.as_str(), url.port), (https, host, port), "{text}");
            assert_eq!((url.authority.as_str(), url.path_prefix.as_str()), (authority, prefix), "{text}");
        }
        for text in [
            "",
            "bank",
            "bank:80",
            "ftp://bank",
            "/pay",
            "http://",
            "http://u:p@bank",
            "http://bank?x=1",
            "http://bank/#x",
            "http://bank:0",
            "http://bank:",
            "http://bank:99999",
            "http://ba nk",
            "http://bank/\r\nX: y",
            "https://-bad-..x",
            "https://a..b",
        ] {
            assert_eq!(Url::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_certificates_name_is_a_hosts_or_an_address() {
        let long = "a".repeat(63);
        let longest = format!("{long}.{long}.{long}.{}", &long[..61]);
        for text in ["a", "bank.test", "bank.test.", "b-1.x_y.0a", "127.0.0.1", "::1", "1.2.3.b", &longest] {
            assert!(is_certified_name(text), "{text}");
        }
        let beyond = [format!("{longest}a"), format!("{long}a.b")];
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "-a.b",
            "a-.b",
            "a.-",
            "a:b",
            "a b",
            "*.b",
            "é",
            "[::1]",
            "127.0.0",
            "1.2.3.4.5",
            "a.1",
            "a.0x1f",
            "a.0x",
            "1::2::3",
            &beyond[0],
            &beyond[1],
        ] {
            assert!(!is_certified_name(text), "{text}");
        }
    }
}
