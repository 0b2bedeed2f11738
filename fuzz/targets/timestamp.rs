//! See `galo_fuzz::timestamp`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| galo_fuzz::timestamp::run(data));
