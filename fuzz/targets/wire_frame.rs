//! See `galo_fuzz::wire_frame`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| galo_fuzz::wire_frame::run(data));
