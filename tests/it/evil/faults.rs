//! What the evil provider can do, as steps on a socket.

use std::{io::Write as _, sync::OnceLock, time::Duration};

use crossfade::domain::Splitmix;
use flate2::{Compression, write::GzEncoder};
use serde_json::json;

use super::Asked;

/// Bytes of an answer that drips before the rest of it comes.
const DRIPS: usize = 2_000;

/// One thing done on a connection.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends these bytes at once.
    Send(Vec<u8>),
    Wait(Duration),
    /// Waits until a test opens the gate.
    Gate,
    /// Sends these bytes until the peer leaves.
    Repeat(Vec<u8>),
    /// Sends them one by one, so long apart.
    Drip(Vec<u8>, Duration),
    /// Says that nothing more comes, and keeps the connection.
    HalfClose,
    /// Keeps the connection and says nothing.
    Stall,
    /// Ends it as a crash does (RST).
    Reset,
    /// Ends it (FIN).
    Close,
}

/// What is wrong with an answer. Pieces are its head and then its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Everything comes so many milliseconds late.
    Delay(u64),
    /// Silent after so many pieces; after none, it never answers.
    Stall(usize),
    /// RST after so many pieces.
    Reset(usize),
    /// Half-closed after so many pieces.
    HalfClose(usize),
    /// FIN after so many bytes, head included.
    Cut(usize),
    /// Bytes that are no HTTP.
    Garbage,
    /// Fewer bytes than promised.
    TooShort,
    /// More bytes than promised.
    TooLong,
    /// 429 with Retry-After, but no pause, so that faults go on.
    Throttled,
    /// 500.
    Failing,
    /// A header of a mebibyte.
    HugeHeader,
    /// 64 MiB in 64 KiB.
    GzipBomb,
    /// A stream without end, as fast as it goes.
    Endless,
    /// Chunks of one byte without end, as fast as it goes.
    Crumbs,
    /// Text that is none.
    InvalidUtf8,
    /// The right answer, its first bytes one by one.
    Drip,
    /// 1xx without end.
    Interim,
}

impl Fault {
    /// Every kind.
    pub(crate) const ALL: [Self; 22] = [
        Self::None,
        Self::Delay(150),
        Self::Stall(0),
        Self::Stall(1),
        Self::Stall(2),
        Self::Reset(0),
        Self::Reset(1),
        Self::Reset(2),
        Self::HalfClose(0),
        Self::HalfClose(2),
        Self::Cut(40),
        Self::Garbage,
        Self::TooShort,
        Self::TooLong,
        Self::Throttled,
        Self::Failing,
        Self::HugeHeader,
        Self::GzipBomb,
        Self::Endless,
        Self::Crumbs,
        Self::InvalidUtf8,
        Self::Drip,
    ];

    /// The fault that this number has in the storm of a seed: none in `good` of ten.
    pub(crate) fn drawn(seed: u64, number: u64, good: u64) -> Self {
        let mut dice = Splitmix(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if dice.roll() % 10 < good {
            return Self::None;
        }
        let kinds = u64::try_from(Self::ALL.len()).unwrap();
        Self::ALL[usize::try_from(dice.roll() % kinds).unwrap()]
    }

    /// What it does to a request.
    pub(crate) fn steps(self, name: &str, number: u64, asked: &Asked) -> Vec<Step> {
        let pieces = answer(name, asked);
        let first = |count: usize| pieces.iter().take(count).cloned().map(Step::Send);
        let then = |count: usize, last: Step| first(count).chain([last]).collect();
        let all = || first(pieces.len());
        let ends = [Step::Close];
        match self {
            Self::None => all().collect(),
            Self::Delay(ms) => {
                [Step::Wait(Duration::from_millis(ms))].into_iter().chain(all()).collect()
            }
            Self::Stall(count) => then(count, Step::Stall),
            Self::Reset(count) => then(count, Step::Reset),
            Self::HalfClose(count) => then(count, Step::HalfClose),
            Self::Cut(len) => {
                let mut bytes = pieces.concat();
                bytes.truncate(len);
                [Step::Send(bytes)].into_iter().chain(ends).collect()
            }
            Self::Garbage => {
                let mut dice = Splitmix(number);
                let bytes = (0..64).flat_map(|_| dice.roll().to_le_bytes()).collect();
                vec![Step::Send(bytes), Step::Close]
            }
            Self::TooShort => sent(&[("content-length", "4096")], b"{\"choices\":[]}", ends),
            Self::TooLong => sent(&[("content-length", "2")], b"{}HTTP/1.1 200 OK\r\n\r\nmore", []),
            Self::Throttled => refused("429 Too Many Requests"),
            Self::Failing => refused("500 Internal Server Error"),
            Self::HugeHeader => {
                sent(&[("x-huge", &"h".repeat(1 << 20)), ("content-length", "2")], b"{}", [])
            }
            Self::GzipBomb => {
                let length = bomb().len().to_string();
                let coding = ("content-encoding", "gzip");
                sent(&[coding, ("content-length", &length)], bomb(), [])
            }
            Self::Endless => {
                let event = b"data: {\"choices\":[{\"delta\":{\"content\":\"and \"}}]}\n\n";
                without_end(&chunk(&event.repeat(200)))
            }
            Self::Crumbs => without_end(&b"1\r\nx\r\n".repeat(2_000)),
            Self::InvalidUtf8 => {
                let body = b"{\"choices\":[{\"message\":{\"content\":\"\xff\xfe\xc3\"}}]}";
                let length = body.len().to_string();
                sent(&[("content-length", &length)], body, [])
            }
            Self::Drip => {
                let mut drips = pieces.concat();
                let rest = drips.split_off(drips.len().min(DRIPS));
                vec![Step::Drip(drips, Duration::from_millis(2)), Step::Send(rest)]
            }
            Self::Interim => {
                vec![Step::Repeat(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(50))]
            }
        }
    }
}

/// A well-formed answer to a request, in pieces: the head, and each chunk.
pub(crate) fn answer(name: &str, asked: &Asked) -> Vec<Vec<u8>> {
    let says = format!("{name} answers {}", asked.user);
    if asked.streamed {
        let chunks = sse(&says).into_iter().map(|it| chunk(it.as_bytes()));
        return [stream_head()].into_iter().chain(chunks).chain([b"0\r\n\r\n".to_vec()]).collect();
    }
    let body = json!({
        "id": "1", "object": "chat.completion", "model": name,
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": says},
        }],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    });
    let body = body.to_string().into_bytes();
    vec![head(&[("content-length", &body.len().to_string())]), body]
}

/// A stream of events that says this, ended as it should be.
pub(crate) fn sse(says: &str) -> Vec<String> {
    let event = |delta: serde_json::Value, finish: serde_json::Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        format!("data: {}\n\n", json!({"id": "1", "model": "m", "choices": [choice]}))
    };
    let words = says.split_inclusive(' ').map(|it| event(json!({"content": it}), json!(null)));
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12});
    let usage = format!("data: {}\n\n", json!({"id": "1", "choices": [], "usage": usage}));
    let last = event(json!({}), json!("stop"));
    words.chain([last, usage, "data: [DONE]\n\n".to_owned()]).collect()
}

/// A chunk of a chunked body.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// The head of an answer that is a stream in chunks.
pub(crate) fn stream_head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        .to_vec()
}

fn head(headers: &[(&str, &str)]) -> Vec<u8> {
    let lines = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let lines: String = lines.collect();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{lines}\r\n").into_bytes()
}

fn sent<const N: usize>(headers: &[(&str, &str)], body: &[u8], then: [Step; N]) -> Vec<Step> {
    let start = [Step::Send(head(headers)), Step::Send(body.to_vec())];
    start.into_iter().chain(then).collect()
}

fn refused(status: &str) -> Vec<Step> {
    let body = "{\"error\":{\"message\":\"not now\"}}";
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nretry-after: 0\r\ncontent-length: {length}\r\n\r\n");
    vec![Step::Send(head.into_bytes()), Step::Send(body.as_bytes().to_vec())]
}

fn without_end(chunks: &[u8]) -> Vec<Step> {
    vec![Step::Send(stream_head()), Step::Repeat(chunks.to_vec())]
}

/// 64 MiB of spaces, compressed a thousandfold.
fn bomb() -> &'static [u8] {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    BOMB.get_or_init(|| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let spaces = vec![b' '; 1 << 20];
        for _ in 0..64 {
            encoder.write_all(&spaces).unwrap();
        }
        encoder.finish().unwrap()
    })
}
