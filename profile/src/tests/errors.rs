//! Every mistake and its line.

use super::*;

/// A processor with nothing wrong, whose lines the cases replace. The file's lines are counted from 1.
const GOOD: &str = r#"[[processor]]
name = "bank"
url = "https://bank.test"
attempt_timeout_ms = 5_000
request = { path = "/p", body = { k = "{key}" } }
idempotency = { in = "body" }
lookup = { path = "/p/{id}" }
[[processor.outcome]]
status = 200
verdict = "processed"
"#;

fn mistakes(folder: &Folder, text: &str) -> String {
    folder.parse(text).err().unwrap_or_default()
}

/// One line of `GOOD` replaced, one message expected; otherwise what came instead.
fn check(folder: &Folder, line: &str, by: &str, expected: &str) -> Option<String> {
    let index =
        GOOD.lines().position(|have| have.starts_with(line)).unwrap_or_else(|| panic!("no line {line}"));
    let text: Vec<&str> =
        GOOD.lines().enumerate().map(|(at, have)| if at == index { by } else { have }).collect();
    let mistakes = mistakes(folder, &text.join("\n"));
    (mistakes != expected).then(|| format!("{by}\n  expected {expected}\n  found    {mistakes}\n"))
}

#[test]
fn nothing_is_wrong_with_what_the_cases_begin_from() {
    assert_eq!(mistakes(&Folder::new("good"), GOOD), "");
}

#[test]
fn each_value_that_is_not_as_expected_is_named_with_its_line() {
    let folder = Folder::new("errors");
    let url = "expected http://host[:port][/prefix] or https://host[:port][/prefix], without user, ? or #";
    let mut wrong = Vec::new();
    for (line, by, expected) in [
        ("name", "", "1: processor.name is missing: expected 1 to 32 characters of a-z, 0-9, _ and -"),
        (
            "name",
            r#"name = "Bank""#,
            r#"2: processor.name = "Bank": expected 1 to 32 characters of a-z, 0-9, _ and -"#,
        ),
        ("name", "name = 7", "2: processor.name = 7: expected a text"),
        ("name", "name = \"b\"\nnumber = 8", "3: processor.number = 8: expected a whole number from 0 to 7"),
        (
            "name",
            "name = \"b\"\nnumber = -1",
            "3: processor.number = -1: expected a whole number from 0 to 7",
        ),
        (
            "name",
            "name = \"b\"\nnumber = 99999999999999999999",
            "3: processor.number = 99999999999999999999: expected a whole number from 0 to 7",
        ),
        (
            "name",
            "name = \"b\"\nprofile = \"strip\"",
            "3: processor.profile = \"strip\": expected \"contest\", \"stripe\", \"adyen\", \"mercadopago\", \"pix\" or \"localstripe\"",
        ),
        ("url", "", &format!("1: processor.url is missing: {url}")),
        ("url", r#"url = "ftp://bank""#, &format!("3: processor.url = \"ftp://bank\": {url}")),
        // A certificate must have this name.
        ("url", r#"url = "https://-bad-..x""#, &format!("3: processor.url = \"https://-bad-..x\": {url}")),
        (
            "url",
            r#"url = "https://u:p4ss@bank""#,
            &format!("3: processor.url: {url} (the value is not shown)"),
        ),
        (
            "attempt",
            "attempt_timeout_ms = 10",
            "4: processor.attempt_timeout_ms = 10: expected a whole number from 100 to 3600000",
        ),
        (
            "attempt",
            "attempt_timeout_ms = 1.5",
            "4: processor.attempt_timeout_ms = 1.5: expected a whole number from 100 to 3600000",
        ),
        (
            "attempt",
            "connect_timeout_ms = true",
            "4: processor.connect_timeout_ms = true: expected a whole number from 10 to 60000",
        ),
        (
            "attempt",
            "idle_ms = \"1s\"",
            "4: processor.idle_ms = \"1s\": expected a whole number from 100 to 3600000",
        ),
        (
            "attempt",
            "keepalive_s = 2026-11-29",
            "4: processor.keepalive_s = 2026-11-29: expected a whole number from 0 to 7200",
        ),
        (
            "attempt",
            "user_timeout_ms = []",
            "4: processor.user_timeout_ms = […]: expected a whole number from 0 to 3600000",
        ),
        (
            "attempt",
            "attempt_timeot_ms = 1",
            "4: processor.attempt_timeot_ms: an unknown key; did you mean attempt_timeout_ms?",
        ),
        ("attempt", "limits = 1", "4: processor.limits = 1: expected a table"),
        (
            "attempt",
            "limits = { concurrency = 0 }",
            "4: processor.limits.concurrency = 0: expected a whole number from 1 to 10000",
        ),
        (
            "attempt",
            "limits = { concurency = 1 }",
            "4: processor.limits.concurency: an unknown key; did you mean concurrency?",
        ),
        (
            "attempt",
            "limits = { per_second = 0 }",
            "4: processor.limits.per_second = 0: expected a whole number from 1 to 1000000",
        ),
        (
            "attempt",
            "limits = { zebra = 1 }",
            "4: processor.limits.zebra: an unknown key; expected one of concurrency, per_second",
        ),
        (
            "attempt",
            "cost = { basis_points = 10_001 }",
            "4: processor.cost.basis_points = 10001: expected a whole number from 0 to 10000",
        ),
        (
            "attempt",
            "cost = { fixed_cents = -5 }",
            "4: processor.cost.fixed_cents = -5: expected a whole number from 0 to 100000000",
        ),
        ("attempt", "declines = { next = 1 }", "4: processor.declines.next = 1: expected true or false"),
        (
            "attempt",
            "health = { path = \"health\" }",
            "4: processor.health.path = \"health\": expected a path that begins with /, of printable ASCII without blanks and #",
        ),
        (
            "attempt",
            "health = { path = \"/h/{id}\" }",
            "4: processor.health.path = \"/h/{id}\": expected a path without placeholders: a health check is about no payment",
        ),
        (
            "attempt",
            "health = { every_ms = 100 }",
            "4: processor.health.path is missing: expected the health check's path, or \"none\"",
        ),
        // TLS.
        (
            "url",
            "url = \"http://b\"\ntls = { server_name = \"b\" }",
            "4: processor.tls: expected only where url begins with https://",
        ),
        (
            "attempt",
            "tls = { ca_file = \"token\" }",
            "4: processor.tls.ca_file = \"token\": expected a file in PEM form, with -----BEGIN in it",
        ),
        (
            "attempt",
            "tls = { ca_file = \"\" }",
            "4: processor.tls.ca_file = \"\": expected the path of a file",
        ),
        (
            "attempt",
            "tls = { client_cert_file = \"pem\" }",
            "4: processor.tls.client_key_file is missing: expected the key of client_cert_file",
        ),
        (
            "attempt",
            "tls = { client_key_file = \"pem\" }",
            "4: processor.tls.client_cert_file is missing: expected the certificate of client_key_file",
        ),
        (
            "attempt",
            "tls = { server_name = \"a b\" }",
            "4: processor.tls.server_name = \"a b\": expected a host's name or address",
        ),
        (
            "attempt",
            "tls = { server_name = \"a:b\" }",
            "4: processor.tls.server_name = \"a:b\": expected a host's name or address",
        ),
        (
            "attempt",
            "tls = { server_name = \"-bad-..x\" }",
            "4: processor.tls.server_name = \"-bad-..x\": expected a host's name or address",
        ),
        // Authorization.
        (
            "attempt",
            "auth = {}",
            "4: processor.auth.kind is missing: expected \"header\", \"bearer\", \"basic\", \"oauth2\" or \"none\"",
        ),
        (
            "attempt",
            "auth = { kind = \"digest\" }",
            "4: processor.auth.kind: expected \"header\", \"bearer\", \"basic\", \"oauth2\" or \"none\" (the value is not shown)",
        ),
        (
            "attempt",
            "auth = { kind = \"bearer\" }",
            "4: processor.auth.token_file is missing: expected the path of the file that holds the secret",
        ),
        (
            "attempt",
            "auth = { kind = \"bearer\", token = \"x\" }",
            "4: processor.auth.token: an unknown key; expected one of kind, token_file\nprocessors.toml:4: processor.auth.token_file is missing: expected the path of the file that holds the secret",
        ),
        (
            "attempt",
            "auth = { kind = \"bearer\", token_file = \"absent\" }",
            "4: processor.auth.token_file: expected a file that can be read (No such file or directory (os error 2)) (the value is not shown)",
        ),
        (
            "attempt",
            "auth = { kind = \"bearer\", token_file = \"empty\" }",
            "4: processor.auth.token_file = \"empty\": expected a file that is not empty",
        ),
        (
            "attempt",
            "auth = { kind = \"bearer\", token_file = \"newline\" }",
            "4: processor.auth.token_file = \"newline\": expected a file with something before its newline",
        ),
        (
            "attempt",
            "auth = { kind = \"bearer\", token_file = \"blank\" }",
            "4: processor.auth.token_file = \"blank\": expected a file of printable ASCII without blanks, on one line",
        ),
        (
            "attempt",
            "auth = { kind = \"header\", name = \"A B\", value_file = \"token\" }",
            "4: processor.auth.name: expected a header's name (the value is not shown)",
        ),
        (
            "attempt",
            "auth = { kind = \"basic\", user = \"a:b\", password_file = \"token\" }",
            "4: processor.auth.user: expected printable ASCII without a colon (the value is not shown)",
        ),
        (
            "attempt",
            "auth = { kind = \"oauth2\", token_url = \"x\", client_id = 1, client_secret_file = \"token\", ahead_s = 0, credentials = \"x\" }",
            "4: processor.auth.ahead_s: expected a whole number from 1 to 86400 (the value is not shown)\n\
             processors.toml:4: processor.auth.client_id: expected a text (the value is not shown)\n\
             processors.toml:4: processor.auth.credentials: expected \"header\" or \"body\" (the value is not shown)\n\
             processors.toml:4: processor.auth.token_url: expected http://host[:port][/prefix] or https://host[:port][/prefix], without user, ? or # (the value is not shown)",
        ),
        // Request.
        ("request", "", "1: processor.request is missing: expected a table with the keys path and body"),
        (
            "request",
            "request = { path = \"p\", body = { k = \"{key}\" } }",
            "5: processor.request.path = \"p\": expected a path that begins with /, of printable ASCII without blanks and #",
        ),
        (
            "request",
            "request = { path = \"/p q\", body = { k = \"{key}\" } }",
            "5: processor.request.path = \"/p q\": expected a path that begins with /, of printable ASCII without blanks and #",
        ),
        (
            "request",
            "request = { path = \"/{amount}\", body = { k = \"{key}\" } }",
            "5: processor.request.path = \"/{amount}\": expected no placeholder but {id} and {key}; {amount} is none",
        ),
        (
            "request",
            "request = { path = \"/{id\", body = { k = \"{key}\" } }",
            "5: processor.request.path = \"/{id\": expected braces in pairs, and {{ or }} for one that stands for itself",
        ),
        (
            "request",
            "request = { method = \"GET\", path = \"/p\", body = { k = \"{key}\" } }",
            "5: processor.request.method = \"GET\": expected \"POST\", \"PUT\" or \"PATCH\"",
        ),
        (
            "request",
            "request = { format = \"xml\", path = \"/p\", body = { k = \"{key}\" } }",
            "5: processor.request.format = \"xml\": expected \"json\" or \"form\"",
        ),
        (
            "request",
            "request = { path = \"/p\", body = { k = \"{key}\", c = \"{currency}\" } }",
            "5: processor.request.body.c = \"{currency}\": expected a currency in request.currency for {currency}",
        ),
        (
            "request",
            "request = { currency = \"R$\", path = \"/p\", body = { k = \"{key}\" } }",
            "5: processor.request.currency = \"R$\": expected a currency such as \"BRL\"",
        ),
        (
            "request",
            "request = { amount = { as = \"cents\" }, path = \"/p\", body = { k = \"{key}\" } }",
            "5: processor.request.amount.as = \"cents\": expected \"number\", \"string\" or \"minor\"",
        ),
        (
            "request",
            "request = { amount = { exponent = 5 }, path = \"/p\", body = { k = \"{key}\" } }",
            "5: processor.request.amount.exponent = 5: expected a whole number from 0 to 4",
        ),
        (
            "request",
            "request = { path = \"/p\", body = { k = \"{key}\", x = \"{name}\" } }",
            "5: processor.request.body.x = \"{name}\": expected no placeholder but {id}, {key}, {amount}, {currency}, {requested_at} and {client.NAME}; {name} is none",
        ),
        (
            "request",
            "request = { path = \"/p\", body = { k = \"{key}\", x = inf } }",
            "5: processor.request.body.x = inf: expected a text, a number of 64 bits, true, false, a list or a table",
        ),
        (
            "request",
            "request = { path = \"/p\", body = { k = \"{key}\", x = 07:32:00 } }",
            "5: processor.request.body.x = 07:32:00: expected a text, a number of 64 bits, true, false, a list or a table",
        ),
        (
            "request",
            "request = { path = \"/p\", body = { k = \"{key}\", x = [[[[[[[[[1]]]]]]]]] } }",
            "5: processor.request.body.x = […]: expected at most 8 tables and lists in each other",
        ),
        (
            "request",
            "request = { path = \"/p\", body = 5 }",
            "5: processor.request.body = 5: expected a table\nprocessors.toml:6: processor.idempotency: expected {key} in request.body, where the key is said to be",
        ),
        (
            "request",
            "request = { path = \"/p\", headers = { \"a b\" = \"x\" }, body = { k = \"{key}\" } }",
            "5: processor.request.headers.a b: expected a header's name (the value is not shown)",
        ),
        (
            "request",
            "request = { path = \"/p\", headers = { Host = \"x\" }, body = { k = \"{key}\" } }",
            "5: processor.request.headers.Host: expected a header that Galo does not write itself (the value is not shown)",
        ),
        (
            "request",
            "request = { path = \"/p\", headers = { A = \"x\\r\\nB: y\" }, body = { k = \"{key}\" } }",
            "5: processor.request.headers.A: expected printable ASCII, no blanks at the ends (the value is not shown)",
        ),
        (
            "request",
            "request = { path = \"/p\", headers = { A = \"{client.x}\" }, body = { k = \"{key}\" } }",
            "5: processor.request.headers.A: expected braces in pairs, and no placeholder but {id} and {key} (the value is not shown)",
        ),
        // Idempotency.
        ("idempotency", "", "1: processor.idempotency is missing: expected a table with the key in"),
        (
            "idempotency",
            "idempotency = {}",
            "6: processor.idempotency.in is missing: expected \"header\", \"path\", \"body\" or \"none\"",
        ),
        (
            "idempotency",
            "idempotency = { in = \"query\" }",
            "6: processor.idempotency.in = \"query\": expected \"header\", \"path\", \"body\" or \"none\"",
        ),
        (
            "idempotency",
            "idempotency = { in = \"header\" }",
            "6: processor.idempotency.name is missing: expected the header's name",
        ),
        (
            "idempotency",
            "idempotency = { in = \"header\", name = \"Content-Length\" }",
            "6: processor.idempotency.name = \"Content-Length\": expected a header that Galo does not write itself",
        ),
        (
            "idempotency",
            "idempotency = { in = \"body\", name = \"k\" }",
            "6: processor.idempotency.name: an unknown key; expected one of in, length_max, window_s, concurrent",
        ),
        (
            "idempotency",
            "idempotency = { in = \"path\" }",
            "6: processor.idempotency: expected {key} in request.path, where the key is said to be",
        ),
        (
            "idempotency",
            "idempotency = { in = \"body\", length_max = 31 }",
            "6: processor.idempotency.length_max = 31: expected at least 32: a key is an id, of which even the bare hexadecimal digits are 32",
        ),
        (
            "idempotency",
            "idempotency = { in = \"body\", window_s = \"ever\" }",
            "6: processor.idempotency.window_s = \"ever\": expected a whole number from 0 to 315360000, or \"for ever\"",
        ),
        (
            "idempotency",
            "idempotency = { in = \"body\", concurrent = 1 }",
            "6: processor.idempotency.concurrent = 1: expected true or false",
        ),
        (
            "idempotency",
            "idempotency = { in = \"body\", window_s = 0, concurrent = true }",
            "6: processor.idempotency.concurrent = true: expected a window_s other than 0 beside true: without one nothing is sent again",
        ),
        (
            "idempotency",
            "idempotency = { in = \"none\", window_s = 5 }",
            "6: processor.idempotency.window_s: an unknown key; expected one of in",
        ),
        // Look-up.
        (
            "lookup",
            "lookup = {}",
            "7: processor.lookup.path is missing: expected the path that a payment is looked up at",
        ),
        (
            "lookup",
            "lookup = { path = \"/p\" }",
            "7: processor.lookup.path = \"/p\": expected {id}, {key} or {reference} in it, or a list to look through",
        ),
        (
            "lookup",
            "lookup = { path = \"/p\", list = \"/data\" }",
            "7: processor.lookup.matches is missing: expected the pointer to the member of an entry that equals the payment's id",
        ),
        (
            "lookup",
            "lookup = { path = \"/p\", list = \"data\", matches = \"/id\" }",
            "7: processor.lookup.list = \"data\": expected a JSON pointer such as \"/error/code\", of at most 16 steps\nprocessors.toml:7: processor.lookup.path = \"/p\": expected {id}, {key} or {reference} in it, or a list to look through",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", matches = \"/a~2\" }",
            "7: processor.lookup.matches = \"/a~2\": expected a JSON pointer such as \"/error/code\", of at most 16 steps",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{reference}\", reference = \"/id\" }",
            "7: processor.lookup.path = \"/p/{reference}\": expected an answer.reference beside {reference}, which nothing else can tell before the first look-up",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", reference_path = \"/p/{reference}\" }",
            "7: processor.lookup.reference_path = \"/p/{reference}\": expected an answer.reference or a lookup.reference beside {reference}, or it is never known",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", reference_path = \"/p/{id}\" }",
            "7: processor.lookup.reference_path = \"/p/{id}\": expected {reference} in it",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", found = 99 }",
            "7: processor.lookup.found = 99: expected a status from 100 to 599, \"4xx\", \"500-504\", or a list of these",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", every_ms = 1 }",
            "7: processor.lookup.every_ms = 1: expected a whole number from 10 to 3600000",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", time = \"rfc\" }",
            "7: processor.lookup.time = \"rfc\": expected \"iso\", \"unix_s\" or \"unix_ms\"",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", not_found_after_ms = 5_999 }",
            "7: processor.lookup.not_found_after_ms = 5999: expected at least attempt_timeout_ms + connect_timeout_ms = 6000: before that an attempt may still arrive",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", found = [] }",
            "7: processor.lookup.found = […]: expected at least one status in the list",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", not_found = [] }",
            "7: processor.lookup.not_found = […]: expected at least one status in the list",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", state = [] }",
            "7: processor.lookup.state = […]: expected at least one [[processor.lookup.state]] table",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", not_found = [404, 204] }",
            "7: processor.lookup.not_found = […]: expected no status of found, which is \"2xx\" where it is not written; 204 is one",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", found = \"200-404\", not_found = \"4xx\" }",
            "7: processor.lookup.not_found = \"4xx\": expected no status of found, which is \"2xx\" where it is not written; 400 is one",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", state = [{ pointer = \"/s\", is = \"x\", says = \"declined\" }, { pointer = \"/s\", one_of = [\"y\", \"x\"], says = \"processed\" }] }",
            "7: processor.lookup.state = {…}: expected other texts at \"/s\" than the states before it have, which would hide it",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", state = [{ pointer = \"/s\", says = \"pending\" }, { pointer = \"/s\", is = \"x\", says = \"processed\" }] }",
            "7: processor.lookup.state = {…}: expected other texts at \"/s\" than the states before it have, which would hide it",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", amount = { as = \"minor\" } }",
            "7: processor.lookup.amount.pointer is missing: expected a JSON pointer",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", state = [{ pointer = \"/s\", is = \"x\" }] }",
            "7: processor.lookup.state.says is missing: expected \"processed\", \"pending\" or \"declined\"",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", state = [{ pointer = \"/s\", is = \"x\", says = \"paid\" }] }",
            "7: processor.lookup.state.says = \"paid\": expected \"processed\", \"pending\" or \"declined\"",
        ),
        (
            "lookup",
            "lookup = { path = \"/p/{id}\", next = { more = \"/m\", cursor = \"/id\", cursor_parameter = \"after\" } }",
            "7: processor.lookup.next: expected only beside a list",
        ),
        (
            "lookup",
            "lookup = { path = \"/p\", list = \"/d\", matches = \"/id\", next = { more = \"/m\" } }",
            "7: processor.lookup.next.cursor is missing: expected the pointer to the member of a page's last entry that the next page begins behind\nprocessors.toml:7: processor.lookup.next.cursor_parameter is missing: expected the query's name for it",
        ),
        // Notification.
        (
            "attempt",
            "notification = {}",
            "4: processor.notification.id is missing: expected the pointer to the payment's id",
        ),
        (
            "attempt",
            "notification = { id = \"/id\", hmac = { header = \"X\" } }",
            "4: processor.notification.hmac.secret_file is missing: expected the path of the file that holds the secret",
        ),
        (
            "attempt",
            "notification = { id = \"/id\", hmac = { header = \"X\", secret_file = \"token\", algorithm = \"md5\" } }",
            "4: processor.notification.hmac.algorithm: expected \"sha256\" (the value is not shown)",
        ),
        (
            "attempt",
            "notification = { id = \"/id\", hmac = { header = \"X\", secret_file = \"token\", encoding = \"utf8\" } }",
            "4: processor.notification.hmac.encoding: expected \"hex\" or \"base64\" (the value is not shown)",
        ),
        // Tables together.
        (
            "verdict",
            "verdict = \"pending\"\n[[processor]]\nname = \"x\"\nprofile = \"x\"",
            "13: processor.profile = \"x\": expected \"contest\", \"stripe\", \"adyen\", \"mercadopago\", \"pix\" or \"localstripe\"",
        ),
        (
            "lookup",
            "[[processor.outcome]]\nstatus = 202\nverdict = \"pending\"",
            "7: processor.outcome: expected a [processor.lookup] beside \"pending\", which would never end",
        ),
        (
            "attempt",
            "auth = { kind = \"header\", name = \"Host\", value_file = \"token\" }",
            "4: processor.auth.name: expected a header that Galo does not write itself (the value is not shown)",
        ),
        // Outcomes.
        (
            "status",
            "status = \"2x\"",
            "9: processor.outcome.status = \"2x\": expected a status from 100 to 599, \"4xx\", \"500-504\", or a list of these",
        ),
        (
            "status",
            "status = [200, 600]",
            "9: processor.outcome.status = 600: expected a status from 100 to 599, \"4xx\", \"500-504\", or a list of these",
        ),
        (
            "status",
            "status = \"299-200\"",
            "9: processor.outcome.status = \"299-200\": expected a status from 100 to 599, \"4xx\", \"500-504\", or a list of these",
        ),
        (
            "status",
            "",
            "8: processor.outcome: expected a status, a header or a member: only \"unknown\" may be said of everything",
        ),
        (
            "status",
            "status = []",
            "9: processor.outcome.status = […]: expected at least one status in the list",
        ),
        (
            "status",
            "status = [\"1xx\", \"200-599\"]",
            "8: processor.outcome: expected a status, a header or a member: only \"unknown\" may be said of everything",
        ),
        (
            "status",
            "member = { pointer = \"/s\", one_of = [] }",
            "9: processor.outcome.member.one_of = […]: expected at least one text in the list",
        ),
        (
            "status",
            "header = { name = \"A\", one_of = [] }",
            "9: processor.outcome.header.one_of = […]: expected at least one text in the list",
        ),
        (
            "attempt",
            "answer = { reason = [] }",
            "4: processor.answer.reason = […]: expected at least one pointer in the list",
        ),
        (
            "status",
            "header = { name = \"A:\" }",
            "9: processor.outcome.header.name = \"A:\": expected a header's name",
        ),
        (
            "status",
            "header = { is = \"x\" }",
            "9: processor.outcome.header.name is missing: expected a header's name",
        ),
        (
            "status",
            "member = { pointer = \"status\" }",
            "9: processor.outcome.member.pointer = \"status\": expected a JSON pointer such as \"/error/code\", of at most 16 steps",
        ),
        (
            "status",
            "member = { pointer = \"/s\", is = \"x\", one_of = [\"y\"] }",
            "9: processor.outcome.member: expected is or one_of, not both",
        ),
        (
            "status",
            "member = { pointer = \"/s\", one_of = [1.5] }",
            "9: processor.outcome.member.one_of = 1.5: expected a text, a whole number, true or false",
        ),
        ("verdict", "", "8: processor.outcome.verdict is missing: expected what an answer like this means"),
        (
            "verdict",
            "verdict = \"paid\"",
            "10: processor.outcome.verdict = \"paid\": expected \"processed\", \"duplicate\", \"pending\", \"declined\", \"unavailable\", \"overloaded\" or \"unknown\"",
        ),
        (
            "verdict",
            "verdict = \"not_sent\"",
            "10: processor.outcome.verdict = \"not_sent\": expected \"processed\", \"duplicate\", \"pending\", \"declined\", \"unavailable\", \"overloaded\" or \"unknown\"",
        ),
        (
            "attempt",
            "answer = { reason = [\"x\"], reference = 1 }",
            "4: processor.answer.reason = \"x\": expected a JSON pointer such as \"/error/code\", of at most 16 steps\nprocessors.toml:4: processor.answer.reference = 1: expected a text",
        ),
    ] {
        wrong.extend(check(&folder, line, by, &format!("processors.toml:{expected}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn mistakes_of_the_file_as_a_whole_are_named() {
    let folder = Folder::new("whole");
    let routing = |text: &str| format!("{GOOD}[routing]\n{text}");
    for (text, expected) in [
        (String::new(), "processors.toml:1: processor is missing: expected 1 to 8 [[processor]] tables".to_owned()),
        ("processor = []".to_owned(), "processors.toml:1: processor = […]: expected 1 to 8 [[processor]] tables".to_owned()),
        ("processor = 1".to_owned(), "processors.toml:1: processor = 1: expected a table".to_owned()),
        (format!("procesor = 1\n{GOOD}"), "processors.toml:1: procesor: an unknown key; did you mean processor?".to_owned()),
        (routing("profile = \"fast\""), "processors.toml:12: routing.profile = \"fast\": expected \"contest\" or \"steady\"".to_owned()),
        (routing("patience_s = 1"), "processors.toml:12: routing.patience_s: an unknown key; did you mean patience_ms?".to_owned()),
        (routing("slow_ms = 0"), "processors.toml:12: routing.slow_ms = 0: expected a whole number from 1 to 86400000".to_owned()),
        (
            routing("slow_ms = 2_000\nstale_ms = 1_000"),
            "processors.toml:11: routing: expected slow_ms (2000) to be at most stale_ms (1000)".to_owned(),
        ),
        (
            routing("stale_ms = 1_000"),
            "processors.toml:11: routing: expected slow_ms (none) to be at most stale_ms (1000)".to_owned(),
        ),
        (
            routing("slow_ms = \"never\""),
            "processors.toml:12: routing.slow_ms = \"never\": expected a whole number from 1 to 86400000, or \"none\"".to_owned(),
        ),
        (
            format!("{GOOD}{GOOD}"),
            "processors.toml:11: processor.name = \"bank\": expected another name than the others'".to_owned(),
        ),
        (
            format!("{GOOD}{}", GOOD.replace("\"bank\"", "\"b\"\nnumber = 0")),
            "processors.toml:11: processor.number = 0: expected another number than \"bank\" has (without one, a \
             processor's number is its place, from 0)"
                .to_owned(),
        ),
        ("a = \nb = [1,\n".to_owned(), "processors.toml:1: not TOML: ".to_owned()),
    ] {
        let mistakes = mistakes(&folder, &text);
        if expected.ends_with("not TOML: ") {
            assert!(mistakes.starts_with(&expected) && mistakes.lines().count() == 2, "{mistakes}");
            continue;
        }
        assert_eq!(mistakes, expected, "{text}");
    }
    let nine: String = (0..9).map(|number| GOOD.replace("\"bank\"", &format!("\"b{number}\""))).collect();
    assert!(mistakes(&folder, &nine).ends_with("processor = […]: expected 1 to 8 [[processor]] tables"));
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_their_lines() {
    let folder = Folder::new("all");
    let text = GOOD
        .replace("\"bank\"", "\"\"")
        .replace("https", "gopher")
        .replace("200", "20")
        .replace("in =", "on =");
    let mistakes = mistakes(&folder, &text);
    let lines: Vec<&str> = mistakes.lines().map(|line| line.split(": ").next().unwrap()).collect();
    let expected = ["2", "3", "6", "6", "9"].map(|line| format!("processors.toml:{line}"));
    assert_eq!(lines, expected, "{mistakes}");
}

#[test]
fn what_a_profile_leaves_open_is_missing_where_it_is_used() {
    let folder = Folder::new("profile");
    let text = "\n[[processor]]\nname = \"s\"\nprofile = \"stripe\"\n";
    let expected = "processors.toml:2: processor.auth.token_file is missing: expected the path of the file that holds the secret";
    assert_eq!(mistakes(&folder, text), expected);
    let text = format!(
        "{text}[processor.auth]\ntoken_file = \"token\"\n[processor.lookup]\nnot_found_after_ms = 1\n"
    );
    let expected = "processors.toml:8: processor.lookup.not_found_after_ms = 1: expected at least attempt_timeout_ms + \
                    connect_timeout_ms = 85000: before that an attempt may still arrive";
    assert_eq!(mistakes(&folder, &text), expected);
    // A value of the profile's that does not fit a value of the file's.
    let text = "[[processor]]\nname = \"s\"\nprofile = \"stripe\"\nattempt_timeout_ms = 400_000\nauth.token_file = \"token\"";
    assert!(mistakes(&folder, text).starts_with("profile stripe:"), "{}", mistakes(&folder, text));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = Folder::new("file");
    let read = |name: &str| Processors::read(&folder.0.join(name)).unwrap_err().to_string();
    let name = |name: &str| folder.0.join(name).display().to_string();
    assert_eq!(
        read("absent"),
        format!("{}: cannot be read: No such file or directory (os error 2)", name("absent"))
    );
    std::fs::write(folder.0.join("latin1"), b"name = \"\xe9\"").unwrap();
    assert_eq!(read("latin1"), format!("{}: expected a text in UTF-8", name("latin1")));
    folder.write("good.toml", GOOD);
    assert!(Processors::read(&folder.0.join("good.toml")).is_ok());
}

#[test]
fn the_environments_mistakes_bear_the_variables_names() {
    let contest = |default, fees, concurrency, timeout| {
        Processors::contest(default, "http://b", fees, concurrency, timeout).unwrap_err().to_string()
    };
    assert_eq!(
        contest("ftp://x", [10_001, 0], 0, 99),
        "ATTEMPT_TIMEOUT_MS=\"99\": expected a whole number from 100 to 3600000\n\
         PROCESSOR_CONCURRENCY_MAX=\"0\": expected a whole number from 1 to 10000\n\
         PROCESSOR_DEFAULT_FEE_BPS=\"10001\": expected a whole number from 0 to 10000\n\
         PROCESSOR_DEFAULT_URL=\"ftp://x\": expected http://host[:port][/prefix] or https://host[:port][/prefix], \
         without user, ? or #"
    );
    assert!(!contest("http://u:p4ss@x", [0, 0], 1, 100).contains("p4ss"));
}
