#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| signoff::fuzzing::text::yaml(data));
