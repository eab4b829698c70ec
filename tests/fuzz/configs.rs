//! Configurations: reading one never fails but by faults that can be printed.
#![no_main]

use crossfade::config::Config;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(bytes) else { return Corpus::Reject };
    // Files are the system's: a fuzzer shall not open what it thinks of.
    if ["file:", "tls", "ca =", "ca=", "\"ca\""].iter().any(|it| text.contains(it)) {
        return Corpus::Reject;
    }
    if let Err(faults) = Config::parse_with(text, "crossfade.toml", &|_| None) {
        assert!(!faults.to_string().is_empty(), "a fault has words");
    }
    Corpus::Keep
});
