//! See `galo_fuzz::journal_tail`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| galo_fuzz::journal_tail::run(data));
