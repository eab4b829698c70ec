//! Answers and streams of providers: reading them never fails, and how lines end changes nothing.
#![no_main]

use crossfade::{
    dialect::{End, Reading, Received, Tail, read},
    domain::Endpoint,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [body @ .., how] = bytes else { return };
    let endpoint = Endpoint::ALL[usize::from(how % 6)];
    let ended = [End::Whole, End::Broken, End::Cut][usize::from(how / 6 % 3)];
    let reading = |content_type: &str, content_encoding: &str, body: &[u8]| {
        let status = if how / 18 % 8 == 7 { 429 } else { 200 };
        // The same bytes are the end of a longer one.
        let tail = if how / 144 == 1 { Tail { bytes: body, missing: 1 } } else { Tail::default() };
        let received =
            Received { endpoint, status, content_type, content_encoding, body, tail, ended };
        // The words of a fault are quoted as they came.
        Reading { trouble: None, ..read(&received) }
    };
    reading("application/json", "", body);
    reading("text/event-stream", "gzip", body);
    if !body.contains(&b'\r') {
        let streamed = reading("text/event-stream", "", body);
        for end in [&b"\r\n"[..], b"\r"] {
            let other = body.split(|it| *it == b'\n').collect::<Vec<_>>().join(end);
            assert_eq!(reading("text/event-stream", "", &other), streamed);
        }
    }
});
