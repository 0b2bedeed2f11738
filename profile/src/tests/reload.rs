//! One file in another's place.

use super::*;
use crate::Routing;

fn text(processors: &[(&str, Option<u8>)]) -> String {
    let one = |(name, number): &(&str, Option<u8>)| {
        let number = number.map(|number| format!("number = {number}\n")).unwrap_or_default();
        format!("[[processor]]\nname = \"{name}\"\n{number}url = \"http://{name}\"\nprofile = \"contest\"\n")
    };
    processors.iter().map(one).collect()
}

#[test]
fn names_keep_their_numbers() {
    let folder = Folder::new("reload");
    let parse = |processors: &[(&str, Option<u8>)]| folder.parse(&text(processors)).unwrap();
    let running = parse(&[("a", None), ("b", None)]);
    for (new, expected) in [
        (parse(&[("a", None), ("b", None)]), Ok(())),
        (parse(&[("a", None), ("b", None), ("c", None)]), Ok(())),
        (parse(&[("c", Some(2)), ("b", Some(1)), ("a", Some(0))]), Ok(())),
        (parse(&[("b", None), ("a", None)]), Err("processor \"a\" has number 0 and cannot become number 1")),
        (parse(&[("a", None)]), Err("processor \"b\" (number 1) is missing: only a restart may drop it")),
        (
            parse(&[("a", None), ("c", None)]),
            Err("number 1 is processor \"b\" in the journal and cannot become \"c\""),
        ),
        (
            parse(&[("a", None), ("b", Some(5))]),
            Err("processor \"b\" has number 1 and cannot become number 5"),
        ),
    ] {
        assert_eq!(new.may_replace(&running), expected.map_err(str::to_owned));
    }
}

#[test]
fn a_change_is_seen_in_files_too() {
    let folder = Folder::new("change");
    let text = own(
        "auth = { kind = \"bearer\", token_file = \"token\" }\nrequest = { path = \"/p\" }\nidempotency = { in = \"none\" }",
        "",
    );
    let before = folder.parse(&text).unwrap();
    assert_eq!(folder.parse(&text).unwrap(), before);
    folder.write("token", "another\n");
    assert_ne!(folder.parse(&text).unwrap(), before);
}

#[test]
fn a_single_table_is_a_list_of_one() {
    let folder = Folder::new("single");
    let list = text(&[("a", None)]);
    assert_eq!(folder.parse(&list.replace("[[processor]]", "[processor]")), folder.parse(&list));
}

#[test]
fn tls_files_are_read_and_compared() {
    let folder = Folder::new("tls");
    let text = own(
        "request = { path = \"/p\" }\nidempotency = { in = \"none\" }\n\
         tls = { ca_file = \"pem\", client_cert_file = \"pem\", client_key_file = \"pem\", server_name = \"other.test\" }",
        "",
    )
    .replace("http://", "https://");
    let before = one_in(&folder.0, &text);
    let tls = before.tls.clone().unwrap();
    assert_eq!((tls.server_name.as_str(), tls.client.is_some()), ("other.test", true));
    assert_eq!(tls.ca.unwrap().path, folder.0.join("pem"));
    folder.write("pem", "-----BEGIN CERTIFICATE-----\nnew\n");
    assert_ne!(one_in(&folder.0, &text), before);
    let plain =
        one(&own("request = { path = \"/p\" }\nidempotency = { in = \"none\" }", "")
            .replace("http:", "https:"));
    assert_eq!(plain.tls.unwrap().server_name, "bank.test");
}

#[test]
fn the_environment_means_the_same_as_its_file() {
    let environment = Processors::contest("http://a:1", "http://b:2/x", [500, 1_500], 300, 20_000).unwrap();
    let file = "
        [[processor]]
        name = \"default\"
        profile = \"contest\"
        url = \"http://a:1\"
        attempt_timeout_ms = 20_000
        limits.concurrency = 300
        cost.basis_points = 500
        [[processor]]
        name = \"fallback\"
        profile = \"contest\"
        url = \"http://b:2/x\"
        attempt_timeout_ms = 20_000
        limits.concurrency = 300
        cost.basis_points = 1_500
        [routing]
        profile = \"contest\"";
    assert_eq!(Folder::new("same").parse(file).unwrap(), environment);
    assert_eq!(environment.routing, Routing::CONTEST);
    assert_eq!((environment.count(), environment.iter().len()), (2, 2));
    let numbers: Vec<_> =
        environment.iter().map(|processor| (processor.number, processor.name.as_str())).collect();
    assert_eq!(numbers, [(0, "default"), (1, "fallback")]);
}

#[test]
fn routing_takes_a_profile_and_overrides() {
    let folder = Folder::new("routing");
    let routing = |lines: &str| folder.parse(&(text(&[("a", None)]) + lines)).unwrap().routing;
    assert_eq!(routing(""), Routing::STEADY);
    assert_eq!(routing("[routing]\nprofile = \"contest\""), Routing::CONTEST);
    let own = routing("[routing]\nprofile = \"contest\"\npatience_ms = 7");
    assert_eq!(own, Routing { patience_ms: 7, ..Routing::CONTEST });
    let bounds = |lines: &str| {
        let of = routing(lines).thresholds;
        (of.slow_us, of.stale_us)
    };
    assert_eq!(bounds("[routing]\nslow_ms = \"none\"\nstale_ms = \"none\""), (u64::MAX, u64::MAX));
    assert_eq!(bounds("[routing]\nslow_ms = 7"), (7_000, u64::MAX));
    assert_eq!(bounds("[routing]\nprofile = \"contest\"\nstale_ms = \"none\""), (1_250_000, u64::MAX));
}
