//! See `galo_fuzz::payment_json`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| galo_fuzz::payment_json::run(data));
