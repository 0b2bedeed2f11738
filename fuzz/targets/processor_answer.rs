//! See `galo_fuzz::processor_answer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| galo_fuzz::processor_answer::run(data));
