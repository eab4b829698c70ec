//! Streams of every shape, cut at every byte: the caller has each part before the next one is
//! sent, and what is read of it says the same as of the stream in one piece.

use http_body_util::BodyExt as _;
use hyper::{Response, body::Incoming};
use tokio::time::timeout;

use super::{
    Step,
    faults::{chunk, sse, stream_head},
    rig::{Rig, Way, begin, body, patient},
};
use crate::world::SOON;

/// Streams as providers and gateways write them, and what their calls come to.
fn shapes() -> Vec<(&'static str, String, &'static str)> {
    let lf = sse("ä€𝄞 b").concat();
    let usage = r#"{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}"#;
    let delta = |text: &str, usage: &str| {
        format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]{usage}}}\n\n"
        )
    };
    let stop = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let done = "data: [DONE]\n\n";
    let odd = format!(",\"usage\":{usage}");
    vec![
        ("crlf", lf.replace('\n', "\r\n"), "ok"),
        ("cr", lf.replace('\n', "\r"), "ok"),
        (
            "comments",
            format!(": OPENROUTER PROCESSING\n\n{lf}").replace("data: [", ":\n\ndata:["),
            "ok",
        ),
        ("multi-line data", lf.replace("\"choices\"", "\ndata: \"choices\""), "ok"),
        ("no final newline", lf.trim_end().to_owned(), "ok"),
        ("usage on odd chunks", [&delta("a", &odd), &delta("b", ""), stop, done].concat(), "ok"),
        ("no [DONE]", [&delta("a", ""), stop].concat(), "ok"),
        (
            "an error inside a 200",
            [&delta("a", ""), "data: {\"error\":{\"message\":\"overloaded\",\"code\":502}}\n\n"]
                .concat(),
            "provider_error",
        ),
        ("no end", delta("a", ""), "truncated"),
    ]
}

/// Reads until so many bytes are here.
async fn read_to(response: &mut Response<Incoming>, got: &mut Vec<u8>, len: usize) {
    while got.len() < len {
        let frame = timeout(SOON, response.body_mut().frame()).await;
        let frame = frame.unwrap_or_else(|_| panic!("{} of {len} bytes came", got.len()));
        got.extend_from_slice(frame.unwrap().unwrap().data_ref().unwrap());
    }
}

#[tokio::test]
async fn b06_a_stream_cut_at_any_byte_arrives_part_by_part_and_reads_the_same() {
    let rig = Rig::new(&patient("0%", "100%")).await;
    rig.is_open().await;
    for (shape, text, outcome) in shapes() {
        let series = |provider: &str, role: &str, outcome: &str| {
            format!(
                "crossfade_requests_total{{provider=\"{provider}\",role=\"{role}\",outcome=\"{outcome}\"}}"
            )
        };
        let [ours, theirs] =
            [series("primary", "serve", outcome), series("candidate", "mirror", outcome)];
        let before = [rig.serve.metric(&ours).await, rig.serve.metric(&theirs).await];
        let bytes = text.clone().into_bytes();
        let whole = bytes.clone();
        rig.candidate.plays(move |_, _| {
            let steps = [stream_head(), chunk(&whole), b"0\r\n\r\n".to_vec()];
            steps.into_iter().map(Step::Send).collect()
        });
        for cut in 1..bytes.len() {
            let parts = (bytes[..cut].to_vec(), bytes[cut..].to_vec());
            rig.primary.plays(move |_, _| {
                let first = [Step::Send(stream_head()), Step::Send(chunk(&parts.0)), Step::Gate];
                let rest = [Step::Send(chunk(&parts.1)), Step::Send(b"0\r\n\r\n".to_vec())];
                first.into_iter().chain(rest).collect()
            });
            let request = body("u", Way::Stream);
            let mut response = begin(&rig.http, rig.serve.data, &request).await;
            let mut got = Vec::new();
            // The rest is not even sent before this part is here.
            read_to(&mut response, &mut got, cut).await;
            assert_eq!(got, bytes[..cut], "{shape} {cut}");
            rig.primary.open(1);
            read_to(&mut response, &mut got, bytes.len()).await;
            assert!(timeout(SOON, response.body_mut().frame()).await.unwrap().is_none());
            assert_eq!(got, bytes, "{shape} {cut}");
        }
        rig.is_quiet().await;
        let asked = f64::from(u32::try_from(bytes.len() - 1).unwrap());
        crate::world::until(shape, || async {
            let now = [rig.serve.metric(&ours).await, rig.serve.metric(&theirs).await];
            (0..2).all(|it| (now[it] - before[it] - asked).abs() < 0.5)
        })
        .await;
        said_the_same(&rig, shape, &text).await;
    }
}

/// The last pairs agree, also on what they cost.
async fn said_the_same(rig: &Rig, shape: &str, text: &str) {
    let pairs = rig.serve.json_lines(&["pairs", "chat", "--limit", "50"]).await;
    assert!(!pairs.is_empty(), "{shape}");
    for pair in &pairs {
        assert_eq!(pair["primary"]["outcome"], pair["candidate"]["outcome"], "{shape}: {pair}");
        assert_eq!(pair["primary"]["usage"], pair["candidate"]["usage"], "{shape}: {pair}");
        if text.contains("usage") {
            assert_eq!(pair["primary"]["usage"]["outputTokens"], "5", "{shape}: {pair}");
        }
        assert_eq!(pair["agreement"], "AGREEMENT_EXACT", "{shape}: {pair}");
    }
}
