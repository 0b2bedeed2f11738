//! Fills the ledger of a running aggregator, as one more gateway: `cargo run --release -p galo-aggregator --example fill -- --help`.
//!
//! For measuring beside many payments: no client, no HAProxy and no processor has a part in it, so that ten million take about half a minute. Every
//! payment must be granted, and the summary must have grown by exactly the number and the cents of what was processed, else
//! this ends with a failure. Payments that are left open go to the real gateways when this ends, as those of any gateway that dies.
//!
//! Never for a ledger that matters: the processors have none of these payments.

#[path = "../tests/common/gateway.rs"]
mod gateway;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use gateway::{Gateway, amount_cents};

/// A frame or two each way; larger ones fill no quicker.
const BATCH: u64 = 1_000;

/// Those of real gateways are low.
const INSTANCE: u8 = 255;

/// Fill the ledger of a running aggregator with payments
#[derive(Debug, Parser)]
struct Arguments {
    /// The aggregator's socket
    #[arg(long, default_value = ".galo/run/aggregator.sock")]
    socket: PathBuf,
    /// How many
    #[arg(long, default_value_t = 1_000_000)]
    payments: u64,
    /// Number of the first one, from which its id follows: ids that the ledger knows already are a failure
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Payments in each second of requestedAt
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    per_second: u64,
    /// The last one's requestedAt, ms since 1970; now, if not given
    #[arg(long)]
    until_ms: Option<u64>,
    /// Leave them open, waiting for any processor
    #[arg(long)]
    open: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let begin = Instant::now();
    let until_ms = arguments.until_ms.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        u64::try_from(now.as_millis()).expect("it is before the year 500,000,000")
    });
    let end = arguments.first + arguments.payments;
    let requested_at_ms =
        |number: u64| (!arguments.open).then(|| until_ms - (end - 1 - number) * 1_000 / arguments.per_second);
    let mut gateway = Gateway::connect(&arguments.socket, INSTANCE);
    let before = totals(&mut gateway);
    for first in (arguments.first..end).step_by(usize::try_from(BATCH).expect("it is small")) {
        gateway.fill(first..(first + BATCH).min(end), requested_at_ms);
    }
    let after = totals(&mut gateway);
    let grown = (after.0 - before.0, after.1 - before.1);
    let expected = if arguments.open {
        (0, 0)
    } else {
        (arguments.payments, (arguments.first..end).map(amount_cents).sum())
    };
    println!(
        "{} payments {} in {:.1} s; the summary grew by {} payments and {} cents",
        arguments.payments,
        if arguments.open { "opened" } else { "processed" },
        begin.elapsed().as_secs_f64(),
        grown.0,
        grown.1
    );
    if grown == expected {
        ExitCode::SUCCESS
    } else {
        eprintln!("fill: it should have grown by {} payments and {} cents", expected.0, expected.1);
        ExitCode::FAILURE
    }
}

/// Payments and cents of everything processed.
fn totals(gateway: &mut Gateway) -> (u64, u64) {
    let summary = gateway.summary(0, u64::MAX);
    (summary.requests.iter().sum(), summary.amount_cents.iter().sum())
}
