//! Each header is sent once, and no credentials stand in the file.

use super::*;

fn text(lines: &str) -> String {
    own(&format!("request.path = \"/p/{{id}}\"\n{lines}"), "")
}

#[test]
fn a_name_stands_once_over_all_that_writes_headers() {
    let folder = Folder::new("twice");
    let none = "idempotency = { in = \"none\" }";
    let auth = "auth = { kind = \"header\", name = \"X-Key\", value_file = \"token\" }";
    let key = "idempotency = { in = \"header\", name = \"X-Once\" }";
    for (lines, expected) in [
        (
            format!("{none}\nrequest.headers = {{ X-Id = \"a\", x-id = \"b\" }}"),
            "6: processor.request.headers.x-id: expected each header once, in whatever case: another one stands before it (the value is not shown)",
        ),
        (
            format!("{auth}\n{none}\nrequest.headers.x-KEY = \"a\""),
            "7: processor.request.headers.x-KEY: expected each header once, in whatever case: auth sends this one (the value is not shown)",
        ),
        (
            format!("{key}\nrequest.headers.x-once = \"a\""),
            "6: processor.request.headers.x-once: expected each header once, in whatever case: idempotency sends this one (the value is not shown)",
        ),
        (
            format!("{auth}\n{}", key.replace("X-Once", "x-key")),
            "6: processor.idempotency.name = \"x-key\": expected another header than auth's",
        ),
        (
            format!("{auth}\n{none}\nlookup = {{ path = \"/p/{{id}}\", headers = {{ x-key = \"a\" }} }}"),
            "7: processor.lookup.headers.x-key: expected each header once, in whatever case: auth sends this one (the value is not shown)",
        ),
        (
            auth.replace("X-Key", "content-type") + "\n" + none,
            "5: processor.auth.name: expected a header that Galo does not write itself (the value is not shown)",
        ),
        (
            key.replace("X-Once", "Content-Type"),
            "5: processor.idempotency.name = \"Content-Type\": expected a header that Galo does not write itself",
        ),
    ] {
        assert_eq!(
            folder.parse(&text(&lines)).unwrap_err(),
            format!("processors.toml:{expected}"),
            "{lines}"
        );
    }
    // A look-up sends no key.
    let lookup = format!("{key}\nlookup = {{ path = \"/p/{{id}}\", headers = {{ x-once = \"a\" }} }}");
    folder.parse(&text(&lookup)).unwrap();
}

#[test]
fn what_galo_writes_and_what_lets_us_in_stands_in_no_file() {
    let folder = Folder::new("ours");
    let ours = [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Expect",
        "TE",
        "Upgrade",
        "Trailer",
    ];
    let credentials = ["Authorization", "proxy-authorization", "COOKIE"];
    let none = "idempotency = { in = \"none\" }";
    for name in ours.into_iter().chain(credentials) {
        let expected = if credentials.contains(&name) {
            "a header without credentials, which [processor.auth] reads from a file"
        } else {
            "a header that Galo does not write itself"
        };
        for place in ["request.headers", "lookup.headers"] {
            let lines = format!("{none}\nlookup.path = \"/p/{{id}}\"\n{place}.{name} = \"x\"");
            let expected = format!(
                "processors.toml:7: processor.{place}.{name}: expected {expected} (the value is not shown)"
            );
            assert_eq!(folder.parse(&text(&lines)).unwrap_err(), expected);
        }
        let lines = format!("idempotency = {{ in = \"header\", name = \"{name}\" }}");
        let mistake =
            format!("processors.toml:5: processor.idempotency.name = \"{name}\": expected {expected}");
        assert_eq!(folder.parse(&text(&lines)).unwrap_err(), mistake);
        let lines =
            format!("auth = {{ kind = \"header\", name = \"{name}\", value_file = \"token\" }}\n{none}");
        let read = folder.parse(&text(&lines));
        assert_eq!(read.is_ok(), credentials.contains(&name), "{name}: a file's credentials may be any");
    }
}

/// `headers` may say what the body is; then nothing else does.
#[test]
fn one_content_type_is_sent() {
    let lines = |name: &str| {
        format!(
            "idempotency.in = \"none\"\nrequest.body.a = 1\nrequest.headers.{name} = \"application/vnd.bank+json\""
        )
    };
    for name in ["Content-Type", "content-type"] {
        let request = rendered(&one(&text(&lines(name))), 1, "{}");
        let types: Vec<&str> =
            request.lines().filter(|line| line.to_lowercase().starts_with("content-type:")).collect();
        assert_eq!(types, [format!("{name}: application/vnd.bank+json")], "{request}");
    }
}
