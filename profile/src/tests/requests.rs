//! What goes out.

use galo_engine::CorrelationId;
use galo_engine::money::AmountCents;
use galo_engine::time::UnixMillis;
use proptest::prelude::*;

use super::*;
use crate::Unrenderable;

/// The bytes that the gateway's own `RequestTemplate` renders, for its own examples.
#[test]
fn the_contests_request_is_byte_for_byte_what_the_gateway_sends_today() {
    let processors =
        Processors::contest("http://127.0.0.1:8001/prefix/", "http://b", [500, 1_500], 400, 30_000).unwrap();
    let request = &processors.by_name("default").unwrap().request;
    let mut buffer = Vec::new();
    for (cents, at_ms, length, decimal, time) in [
        (99_999_999_999, 1_752_582_896_789, 119, "999999999.99", "2025-07-15T12:34:56.789Z"),
        (1, 0, 111, "0.01", "1970-01-01T00:00:00.000Z"),
        (1990, 1_752_582_896_000, 112, "19.90", "2025-07-15T12:34:56.000Z"),
    ] {
        let members = Members::default();
        let payment = Payment { requested_at: UnixMillis(at_ms), ..payment(cents, &members) };
        request.render(&payment, None, &mut buffer).unwrap();
        let expected = format!(
            "POST /prefix/payments HTTP/1.1\r\nHost: 127.0.0.1:8001\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n\
             {{\"correlationId\":\"{ID}\",\"amount\":{decimal},\"requestedAt\":\"{time}\"}}"
        );
        assert_eq!(String::from_utf8(buffer.clone()).unwrap(), expected);
    }
    // Once it has held the longest, the buffer never grows again.
    let capacity = buffer.capacity();
    request.render(&payment(99_999_999_999, &Members::default()), None, &mut buffer).unwrap();
    assert_eq!(buffer.capacity(), capacity);
    assert!(!request.needs_token() && request.client_members().is_empty());
}

#[test]
fn the_contests_queries_are_byte_for_byte_what_the_gateway_sends_today() {
    let processors =
        Processors::contest("http://127.0.0.1:8001", "http://b", [500, 1_500], 400, 30_000).unwrap();
    let processor = processors.by_name("default").unwrap();
    let tail = "HTTP/1.1\r\nHost: 127.0.0.1:8001\r\nConnection: close\r\n\r\n";
    let mut buffer = Vec::new();
    let search = processor.lookup.as_ref().unwrap().search(id(), UnixMillis(0), Some("x"));
    search.render(UnixMillis(0), None, &mut buffer).unwrap();
    assert_eq!(String::from_utf8(buffer.clone()).unwrap(), format!("GET /payments/{ID} {tail}"));
    processor.health.as_ref().unwrap().render(None, &mut buffer).unwrap();
    assert_eq!(String::from_utf8(buffer).unwrap(), format!("GET /payments/service-health {tail}"));
}

#[test]
fn a_json_body_has_every_kind_of_value() {
    let processor = one(&own(
        "",
        r#"
        [processor.request]
        method = "PUT"
        path = "/pay/{id}?k={key}"
        currency = "BRL"
        headers = { X-Id = "n {id}", Accept = "application/json" }
        [processor.request.body]
        text = "a \"quoted\" \\ {{brace}}\n\té\u0001"
        number = 1_000
        hex = 0x10
        float = 1.50
        yes = true
        list = [1, "{id}", ["{client.a}", "{client.absent}"], {}]
        money = "{amount}"
        words = "{amount} {currency} at {requested_at} by {client.name}"
        whole = "{client.a}"
        nothing = "{client.absent}"
        inner = { nothing = "{client.absent}", "k\"ey" = "{client.name}" }
        [processor.idempotency]
        in = "path"
        length_max = 35"#,
    ));
    let members = r#"{"a": {"x": [1, "]"]}, "name": "O\"Neill \u00e9", "unused": 1}"#;
    let text = rendered(&processor, 1_990, members);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(
        head.lines().collect::<Vec<_>>(),
        [
            &format!("PUT /v1/pay/{ID}?k={DIGITS} HTTP/1.1"),
            "Host: bank.test:8001",
            &format!("X-Id: n {ID}"),
            "Accept: application/json",
            "Content-Type: application/json",
            &format!("Content-Length: {}", body.len()),
        ]
    );
    assert_eq!(
        body,
        r#"{"text":"a \"quoted\" \\ {brace}\u000A\u0009é\u0001","number":1000,"hex":16,"float":1.50,"yes":true,"#.to_owned()
            + &format!(r#""list":[1,"{ID}",[{{"x": [1, "]"]}},null],{{}}],"money":19.90,"#)
            + r#""words":"19.90 BRL at 2025-07-15T12:34:56.789Z by O\"Neill \u00e9","whole":{"x": [1, "]"]},"#
            + r#""inner":{"k\"ey":"O\"Neill \u00e9"}}"#
    );
    assert_eq!(processor.request.client_members(), ["a", "absent", "name"]);
    serde_json::from_str::<serde_json::Value>(body).unwrap();
}

#[test]
fn a_form_is_encoded() {
    let processor = one(&own(
        "",
        r#"
        [processor.request]
        path = "/pay"
        format = "form"
        amount = { as = "minor" }
        [processor.request.body]
        nothing = "{client.absent}"
        amount = "{amount}"
        "a&b" = "x=y&z +é"
        at = "{requested_at}"
        list = [true, 2]
        whole = "{client.name}"
        object = "{client.object}"
        metadata = { id = "{id}", "n]" = "<{client.name}>" }
        [processor.idempotency]
        in = "header"
        name = "Idempotency-Key""#,
    ));
    let members = r#"{"name": "a&b=\"c\"\u00e9\ud83d\ude00\n\ud800.", "object": {"a": 1}}"#;
    let text = rendered(&processor, 1_990, members);
    let name = "a%26b%3D%22c%22%C3%A9%F0%9F%98%80%0A%EF%BF%BD.";
    assert!(text.contains(&format!(
        "\r\nIdempotency-Key: {ID}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    )));
    assert_eq!(
        text.split_once("\r\n\r\n").unwrap().1,
        format!(
            "amount=1990&a%26b=x%3Dy%26z+%2B%C3%A9&at=2025-07-15T12%3A34%3A56.789Z&list%5B0%5D=true&list%5B1%5D=2&\
             whole={name}&object=%7B%22a%22%3A+1%7D&metadata%5Bid%5D={ID}&metadata%5Bn%5D%5D=%3C{name}%3E"
        )
    );
    assert!(body(&processor, 5, "{}").starts_with("amount=5&"), "nothing before the first pair");
}

#[test]
fn amounts_are_written_in_every_form() {
    for (form, cents, expected) in [
        (r#"as = "number""#, 1_990, Some("19.90")),
        (r#"as = "string""#, 5, Some("\"0.05\"")),
        (r#"as = "minor""#, 1_990, Some("1990")),
        (r#"as = "minor", exponent = 0"#, 1_900, Some("19")),
        (r#"as = "minor", exponent = 0"#, 1_990, None),
        (r#"as = "minor", exponent = 1"#, 1_990, Some("199")),
        (r#"as = "minor", exponent = 3"#, 1_990, Some("19900")),
        (r#"as = "number", exponent = 0"#, 1_900, Some("19")),
        (r#"as = "number", exponent = 1"#, 1_990, Some("19.9")),
        (r#"as = "string", exponent = 4"#, 99_999_999_999, Some("\"999999999.9900\"")),
    ] {
        let head = format!(
            "request = {{ path = \"/p\", amount = {{ {form} }}, body = {{ a = \"{{amount}}\" }} }}\nidempotency = {{ in = \"none\" }}"
        );
        let processor = one(&own(&head, ""));
        let amount = AmountCents::new(cents).unwrap();
        assert_eq!(processor.request.takes(amount), expected.is_some());
        let members = Members::default();
        let result = processor.request.render(&payment(cents, &members), None, &mut Vec::new());
        match expected {
            None => assert_eq!(result, Err(Unrenderable::Amount)),
            Some(text) => assert_eq!(body(&processor, cents, "{}"), format!("{{\"a\":{text}}}"), "{form}"),
        }
    }
}

#[test]
fn a_request_without_a_body_says_so_and_long_ones_count_right() {
    let text = own("request = { path = \"/p/{key}\" }\nidempotency = { in = \"path\" }", "");
    let processor = one(&text);
    assert!(rendered(&processor, 1, "{}").ends_with("\r\nContent-Length: 0\r\n\r\n"));
    let text = own(
        "request = { path = \"/p\", body = { x = \"{client.x}\" } }\nidempotency = { in = \"none\" }",
        "",
    );
    let processor = one(&text);
    for size in [0, 1, 90, 91, 92, 990, 991, 992, 10_000] {
        let json = format!("{{\"x\":\"{}\"}}", "x".repeat(size));
        assert_eq!(body(&processor, 1, &json), json);
    }
}

#[test]
fn credentials_are_sent_and_never_shown() {
    let folder = Folder::new("auth");
    for (auth, line, needs_token) in [
        (r#"kind = "bearer", token_file = "token""#, "Authorization: Bearer s3cret-token", false),
        (r#"kind = "header", name = "X-API-Key", value_file = "token""#, "X-API-Key: s3cret-token", false),
        (
            r#"kind = "basic", user = "u", password_file = "password""#,
            "Authorization: Basic dTpwYXNzOndvcmQ=",
            false,
        ),
        (
            r#"kind = "oauth2", token_url = "https://auth.test/t", client_id = "i", client_secret_file = "password""#,
            "Authorization: Bearer t0ken",
            true,
        ),
    ] {
        let text = own(
            &format!("auth = {{ {auth} }}\nrequest = {{ path = \"/p\" }}\nidempotency = {{ in = \"none\" }}"),
            "[processor.lookup]\npath = \"/p/{id}\"",
        );
        let processor = one_in(&folder.0, &text);
        let request = rendered(&processor, 1, "{}");
        assert!(request.contains(&format!("Host: bank.test:8001\r\n{line}\r\n")), "{request}");
        let mut lookup = Vec::new();
        let search = processor.lookup.as_ref().unwrap().search(id(), UnixMillis(0), None);
        search.render(UnixMillis(0), Some(&Secret::new(*b"t0ken")), &mut lookup).unwrap();
        assert!(String::from_utf8(lookup).unwrap().contains(&format!("{line}\r\n")));
        assert_eq!(processor.request.needs_token(), needs_token);
        let shown = format!("{processor:?}");
        for secret in ["s3cret", "pass:word", "dTpwYXNz", "s3c"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        if needs_token {
            let members = Members::default();
            let without = processor.request.render(&payment(1, &members), None, &mut Vec::new());
            assert_eq!(without, Err(Unrenderable::NoToken));
        }
    }
}

#[test]
fn a_token_is_asked_for_as_the_rfc_says() {
    let folder = Folder::new("token");
    let ask_at = |path: &str, more: &str| {
        let text = own(
            &format!(
                "auth = {{ kind = \"oauth2\", token_url = \"https://auth.test:8443{path}\", client_id = \"me@x\", \
                 client_secret_file = \"password\"{more} }}\nrequest = {{ path = \"/p\" }}\nidempotency = {{ in = \"none\" }}"
            ),
            "",
        );
        let crate::Auth::OAuth2(oauth2) = one_in(&folder.0, &text).auth else { panic!("it is OAuth2") };
        let now = galo_engine::time::Now { monotonic_us: 0, unix_ms: UnixMillis(0) };
        let mut tokens = crate::Tokens::new(*oauth2);
        String::from_utf8(tokens.needs(now).unwrap().expose().to_vec()).unwrap()
    };
    let ask = |more: &str| ask_at("/o/token", more);
    // base64("me%40x:pass%3Aword")
    assert_eq!(
        ask(", scope = \"a b\""),
        "POST /o/token HTTP/1.1\r\nHost: auth.test:8443\r\nAuthorization: Basic bWUlNDB4OnBhc3MlM0F3b3Jk\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nAccept: application/json\r\nConnection: close\r\n\
         Content-Length: 39\r\n\r\ngrant_type=client_credentials&scope=a+b"
    );
    let in_body = ask(", credentials = \"body\"");
    assert!(in_body.ends_with("grant_type=client_credentials&client_id=me%40x&client_secret=pass%3Aword"));
    assert!(!in_body.contains("Authorization"));
    // The path is the server's own, with a slash at its end where it has one.
    for (path, sent) in [("", "/"), ("/", "/"), ("/o/token/", "/o/token/"), ("//", "//")] {
        assert!(ask_at(path, "").starts_with(&format!("POST {sent} HTTP/1.1\r\n")), "{path}");
    }
}

#[test]
fn members_are_an_object_without_doubles() {
    let members = Members::read(r#" {"a": 1.50, "b\u0063": "x"} "#).unwrap();
    assert_eq!(members.get("a").unwrap().get(), "1.50");
    assert_eq!(members.get("bc").unwrap().get(), "\"x\"");
    assert!(members.get("c").is_none());
    for text in ["", "[]", "1", "{\"a\":1}x", "{\"a\":1,\"a\":1}", "{\"a\":1,\"\\u0061\":1}", "{\"a\"}"] {
        assert!(Members::read(text).is_none(), "{text}");
    }
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<String>().prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// What is written as an amount is read as the same.
    #[test]
    fn amounts_come_back(cents in 1..=99_999_999_999_u64, exponent in 0..=4_u32, kind in 0..3_usize) {
        use crate::template::{AmountForm, Notation};
        let notation = [Notation::Number, Notation::String, Notation::Minor][kind];
        let form = AmountForm { notation, exponent };
        let name = ["number", "string", "minor"][kind];
        let processor = one(&own("", &format!(
            "request = {{ path = \"/p\", amount = {{ as = \"{name}\", exponent = {exponent} }}, \
             body = {{ a = \"{{amount}}\" }} }}\nidempotency = {{ in = \"none\" }}"
        )));
        let amount = AmountCents::new(cents).unwrap();
        let fits = exponent >= 2 || cents.is_multiple_of(10_u64.pow(2 - exponent));
        prop_assert_eq!(processor.request.takes(amount), fits);
        if fits {
            let body = body(&processor, cents, "{}");
            prop_assert_eq!(form.read(&crate::json::Scalar::at(&body, "/a").unwrap()), Some(amount));
        }
    }

    /// Whatever a client sends, the request keeps its structure and the value comes through.
    #[test]
    fn no_client_changes_a_requests_structure(value in json_value(), bytes: [u8; 16], cents in 1..=99_999_999_999_u64) {
        let template = |format| own(
            "",
            &format!("[processor.request]\npath = \"/p/{{id}}\"\nformat = \"{format}\"\n\
             body = {{ a = \"{{client.x}}\", b = \"<{{client.x}}>\", c = \"{{amount}}\" }}\n\
             [processor.idempotency]\nin = \"path\""),
        );
        let members = format!("{{\"x\":{value}}}");
        let members = Members::read(&members).unwrap();
        let payment = Payment { correlation_id: CorrelationId(bytes), ..payment(cents, &members) };

        let mut buffer = Vec::new();
        one(&template("json")).request.render(&payment, None, &mut buffer).unwrap();
        let text = String::from_utf8(buffer.clone()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        prop_assert_eq!(head.lines().count(), 4);
        let length = format!("Content-Length: {}", body.len());
        prop_assert!(head.ends_with(&length));
        let read: serde_json::Value = serde_json::from_str(body).unwrap();
        prop_assert_eq!(&read["a"], &value);
        if let Some(string) = value.as_str() {
            prop_assert_eq!(read["b"].as_str().unwrap(), format!("<{string}>"));
        }

        one(&template("form")).request.render(&payment, None, &mut buffer).unwrap();
        let text = String::from_utf8(buffer).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let names: Vec<&str> = body.split('&').map(|pair| pair.split_once('=').unwrap().0).collect();
        prop_assert_eq!(names, if value.is_null() { vec!["b", "c"] } else { vec!["a", "b", "c"] });
        prop_assert!(body.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}
