//! What reading a payment's body costs: `cargo bench --profile fast -p galo-gateway --bench payment`.
//!
//! JSON to an id and exact cents, for the bodies that are sent and for some that are not. Allocations are shown, and there must be none.

use divan::{AllocProfiler, Bencher, black_box};
use galo_gateway::http::offline::body_reader;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

fn main() {
    divan::main();
}

fn read(bencher: Bencher<'_, '_>, body: &str, expected: Result<u64, u16>) {
    let mut reader = body_reader();
    assert_eq!(reader(body.as_bytes()).map(|(_, amount)| amount.get()), expected);
    bencher.bench_local(|| reader(black_box(body.as_bytes())));
}

#[divan::bench]
fn ordinary(bencher: Bencher<'_, '_>) {
    read(bencher, &format!(r#"{{"correlationId":"{ID}","amount":19.90}}"#), Ok(1_990));
}

#[divan::bench]
fn with_spaces_and_unknown_members(bencher: Bencher<'_, '_>) {
    let body = format!(
        "{{ \"amount\" : 1.5E+1, \"note\": {{\"a\": [1, 2, \"\\u00e9\"]}},\n \"correlationId\" : \"{ID}\" }}"
    );
    read(bencher, &body, Ok(1_500));
}

#[divan::bench]
fn refused_for_its_amount(bencher: Bencher<'_, '_>) {
    read(bencher, &format!(r#"{{"correlationId":"{ID}","amount":19.999}}"#), Err(422));
}

#[divan::bench]
fn no_json(bencher: Bencher<'_, '_>) {
    read(bencher, &format!(r#"{{"correlationId":"{ID}","amount":}}"#), Err(400));
}
