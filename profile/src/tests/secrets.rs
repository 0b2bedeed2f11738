//! No mistake shows a secret, wherever it was written by mistake.

use super::*;

const SECRET: &str = "sk_live_51x";

fn mistakes(folder: &Folder, lines: &str) -> String {
    let text = own(
        &format!("request.path = \"/p/{{id}}\"\nidempotency = {{ in = \"path\" }}\n{lines}"),
        "[processor.lookup]\npath = \"/p/{id}\"",
    );
    folder.parse(&text).expect_err(lines)
}

#[test]
fn secrets_in_the_wrong_place_are_not_shown() {
    let folder = Folder::new("shown");
    for (lines, path) in [
        (r#"auth = "SECRET""#, "auth"),
        (r#"auth = ["SECRET"]"#, "auth"),
        (r#"auth.kind = "SECRET""#, "auth.kind"),
        (r#"auth = { kind = "bearer", token = "SECRET" }"#, "auth.token"),
        (r#"auth = { kind = "bearer", token_file = "SECRET" }"#, "auth.token_file"),
        (r#"auth = { kind = "bearer", token_file = "a/SECRET=" }"#, "auth.token_file"),
        (r#"auth = { kind = "bearer", token_file = "/SECRET" }"#, "auth.token_file"),
        (r#"auth = { kind = "bearer", token_file = "SECRET\u0000" }"#, "auth.token_file"),
        (r#"auth = { kind = "basic", user = "u", password = "SECRET" }"#, "auth.password"),
        (r#"auth = { kind = "basic", user = "u:SECRET", password_file = "token" }"#, "auth.user"),
        (
            r#"auth = { kind = "oauth2", token_url = "https://b", client_id = "i", client_secret = "SECRET" }"#,
            "auth.client_secret",
        ),
        (
            r#"auth = { kind = "oauth2", token_url = "SECRET", client_id = "i", client_secret_file = "token" }"#,
            "auth.token_url",
        ),
        (r#"auth = { kind = "header", name = "X Key: SECRET", value_file = "token" }"#, "auth.name"),
        (r#"notification = { id = "/id", hmac = "SECRET" }"#, "notification.hmac"),
        (
            r#"notification = { id = "/id", hmac = { header = "X", secret = "SECRET" } }"#,
            "notification.hmac.secret",
        ),
        (
            r#"notification = { id = "/id", hmac = { header = "X", secret_file = "SECRET" } }"#,
            "notification.hmac.secret_file",
        ),
        (r#"request.headers.Authorization = "Bearer SECRET""#, "request.headers.Authorization"),
        (r#"request.headers.X-Key = "SECRETé""#, "request.headers.X-Key"),
        (r#"request.headers.X-Key = "a {SECRET}""#, "request.headers.X-Key"),
        (r#"request.headers.X-Key = "SECRET{""#, "request.headers.X-Key"),
        (r#"request.headers = "SECRET""#, "request.headers"),
        (r#"url2 = "https://u:SECRET@bank""#, "url2"),
        (r#"token = "SECRET""#, "token"),
        (r#"limits.token = "SECRET""#, "limits.token"),
        (r#"health.path = "https://u:SECRET@bank/""#, "health.path"),
        (r#"health.path = "/h/{https://u:SECRET@bank}""#, "health.path"),
        (r#"request.currency = "SECRET@x""#, "request.currency"),
        (r#"request.body.x = "{u:SECRET@bank}""#, "request.body.x"),
    ] {
        let lines = lines.replace("SECRET", SECRET);
        let mistakes = mistakes(&folder, &lines);
        assert!(!mistakes.contains(SECRET), "{mistakes}");
        // It is named all the same.
        let place = format!("processors.toml:6: processor.{path}: ");
        assert!(mistakes.lines().any(|line| line.starts_with(&place)), "{place}\n{mistakes}");
    }
    let text = own("request.path = \"/p\"\nidempotency.in = \"none\"", "").replace("http://", "https://");
    let text = format!("{text}[processor.tls]\nclient_key_file = \"-----BEGIN PRIVATE KEY----- {SECRET}\"\n");
    let mistakes = folder.parse(&text).unwrap_err();
    assert!(
        !mistakes.contains("BEGIN") && mistakes.contains("processor.tls.client_key_file: "),
        "{mistakes}"
    );
}

#[test]
fn a_url_that_is_none_is_shown_without_what_may_be_a_secret() {
    let url = |text: &str| {
        let text = own("request.path = \"/p\"\nidempotency.in = \"none\"", "")
            .replace("http://bank.test:8001/v1", text);
        Folder::new("url").parse(&text).unwrap_err()
    };
    assert!(url("ftp://bank").contains("processor.url = \"ftp://bank\": "));
    for secret in ["http://u:sk_1@bank", "http://bank?key=sk_1"] {
        assert!(!url(secret).contains("sk_1") && url(secret).contains("processor.url: "), "{secret}");
    }
}

/// The name of a file that is there is no secret, and helps.
#[test]
fn files_that_are_there_are_named() {
    let folder = Folder::new("named");
    for (lines, expected) in [
        (r#"auth = { kind = "bearer", token_file = "empty" }"#, "processor.auth.token_file = \"empty\": "),
        (
            r#"auth = { kind = "bearer", token_file = "./blank" }"#,
            "processor.auth.token_file = \"./blank\": ",
        ),
        (
            r#"notification = { id = "/id", hmac = { header = "X", secret_file = "newline" } }"#,
            "processor.notification.hmac.secret_file = \"newline\": ",
        ),
    ] {
        assert!(mistakes(&folder, lines).contains(expected), "{}", mistakes(&folder, lines));
    }
}

#[test]
fn text_that_is_no_toml_is_not_shown() {
    let folder = Folder::new("syntax");
    for text in [
        "auth.token = SECRET",
        "auth.token = \"SECRET",
        "auth.token = 'SECRET\n'",
        "auth.token = \"SECRET\\q\"",
        "auth = { kind = \"bearer\", SECRET }",
        "SECRET",
        "[SECRET",
        "a = 1\na = \"SECRET\"",
        "auth.x = \"SECRET\"\nauth.x.y = 1",
    ] {
        let mistakes = folder.parse(&text.replace("SECRET", SECRET)).unwrap_err();
        assert!(!mistakes.contains(SECRET), "{mistakes}");
    }
}
