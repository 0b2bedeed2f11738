//! See `galo_fuzz::http_request`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| galo_fuzz::http_request::run(data));
