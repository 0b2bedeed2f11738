//! See `galo_fuzz::engine_events`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| galo_fuzz::engine_events::run(data));
