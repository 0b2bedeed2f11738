//! What reading a payment's body costs: `cargo xtask microbench payment`.
//!
//! JSON to an id and exact cents, for the bodies that are sent and for some that are not.

use std::hint::black_box;

use galo_gateway::http::offline::body_reader;
use galo_microbench::Group;

const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

fn main() {
    galo_microbench::run("payment", |group| {
        let body = format!(r#"{{"correlationId":"{ID}","amount":19.90}}"#);
        read(group, "ordinary", &body, Ok(1_990));
        let body = format!(
            "{{ \"amount\" : 1.5E+1, \"note\": {{\"a\": [1, 2, \"\\u00e9\"]}},\n \"correlationId\" : \"{ID}\" }}"
        );
        read(group, "with_spaces_and_unknown_members", &body, Ok(1_500));
        let body = format!(r#"{{"correlationId":"{ID}","amount":19.999}}"#);
        read(group, "refused_for_its_amount", &body, Err(422));
        let body = format!(r#"{{"correlationId":"{ID}","amount":}}"#);
        read(group, "no_json", &body, Err(400));
    });
}

fn read(group: &mut Group<'_>, name: &str, body: &str, expected: Result<u64, u16>) {
    let mut reader = body_reader();
    assert_eq!(reader(body.as_bytes()).map(|(_, amount)| amount.get()), expected);
    group.bench_function(name, |bencher| bencher.iter(|| reader(black_box(body.as_bytes()))));
}
