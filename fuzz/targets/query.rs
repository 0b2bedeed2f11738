//! See `galo_fuzz::query`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| galo_fuzz::query::run(data));
