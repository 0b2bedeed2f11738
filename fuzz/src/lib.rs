//! Fuzz targets for every decoder of Galo and for the engine's decisions.
//!
//! Each module is one target: `run` takes the fuzzer's bytes and panics where a property does not hold. The properties are more than
//! "does not crash": what a decoder says is compared with a second, slow reading that shares no code with it, or with what must
//! follow from it. `targets/` gives each to libFuzzer, `corpus/` keeps seeds, and the tests here run every target over its corpus
//! without any fuzzer.
//!
//! | module | what it reads | what it is held against |
//! | --- | --- | --- |
//! | [`http_request`] | a client's bytes: framing and monoio-http | httparse, and a strict grammar that must be accepted |
//! | [`payment_json`] | a payment's body | serde_json, and decimal arithmetic on digits |
//! | [`timestamp`] | a bound of a summary | the `time` crate |
//! | [`query`] | a summary's query | form_urlencoded |
//! | [`wire_frame`] | bytes of the other side of the socket | what decodes encodes to the same bytes |
//! | [`journal_tail`] | a journal's file | a replay of what may be believed |
//! | [`processor_answer`] | a processor's bytes | a search for the status line |
//! | [`engine_events`] | two gateways, a ledger, two processors | the processors' books |
//! | [`engine_records`] | records of a gateway that means harm | the books; a replay of the journal; a snapshot |
//!
//! What must never be here: a copy of the code under test, or a property that a bug of it would bend along.

pub mod engine_events;
pub mod engine_records;
pub mod http_request;
pub mod journal_tail;
pub mod payment_json;
pub mod processor_answer;
pub mod query;
pub mod timestamp;
pub mod wire_frame;

#[cfg(test)]
mod tests {
    /// Every target over its corpus: what was found once stays found, without a fuzzer.
    #[test]
    fn every_corpus_passes() {
        type Run = fn(&[u8]);
        let targets: &[(&str, Run)] = &[
            ("engine_events", crate::engine_events::run),
            ("engine_records", crate::engine_records::run),
            ("http_request", crate::http_request::run),
            ("journal_tail", crate::journal_tail::run),
            ("payment_json", crate::payment_json::run),
            ("processor_answer", crate::processor_answer::run),
            ("query", crate::query::run),
            ("timestamp", crate::timestamp::run),
            ("wire_frame", crate::wire_frame::run),
        ];
        for (name, run) in targets {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
            let mut count = 0;
            for entry in std::fs::read_dir(&folder).expect("each target has a corpus") {
                let path = entry.expect("the folder can be read").path();
                println!("{}", path.display());
                run(&std::fs::read(path).expect("the file can be read"));
                count += 1;
            }
            assert!(count > 0, "{name} has a corpus");
        }
    }
}
