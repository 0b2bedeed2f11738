//! See `galo_fuzz::engine_records`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| galo_fuzz::engine_records::run(data));
