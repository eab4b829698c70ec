//! HTTP/2 by the frame: callers who break its rules, or use up what they allow. They lose their
//! connection at most; nobody else notices, and memory stays bounded.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Duration, timeout},
};

use crate::world::{SOON, times};

use super::{
    Provider, before,
    http2::{get, h2},
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Connections of each attack at a time.
const ATTACKERS: usize = 4;
/// Most memory that any attack may cost, in KiB.
const GROWN_MAX: u64 = 64 << 10;
/// GET /v1/x by http from host `a`: three of the static table, one by its name.
const GET: &[u8] = b"\x82\x86\x04\x05/v1/x\x01\x01a";
const POST: &[u8] = b"\x83\x86\x04\x05/v1/x\x01\x01a";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The streams of a caller, in their order.
fn streams(count: usize) -> impl Iterator<Item = u32> {
    (1..).step_by(2).take(count)
}

/// What becomes of whoever sends this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The connection is ended.
    Ended,
    /// That is left to the server.
    Any,
}

/// Attacks by name: what each sends after the preface.
fn attacks(count: usize) -> Vec<(&'static str, Fate, Vec<u8>)> {
    let each = |make: &dyn Fn(u32) -> Vec<u8>| streams(count).flat_map(make).collect::<Vec<u8>>();
    let ask = |it: u32| frame(HEADERS, END_STREAM | END_HEADERS, it, GET);
    let open = frame(HEADERS, END_HEADERS, 1, POST);
    // One entry of the dynamic table, and then a byte for each time that it is said again.
    let value = [b'v'; 3_000];
    let bomb = [GET, b"\x40\x01x\x7f\xb9\x16", &value, &[0xbe; 12_000]].concat();
    vec![
        (
            "rapid reset",
            Fate::Ended,
            each(&|it| [ask(it), frame(RESET, 0, it, &8_u32.to_be_bytes())].concat()),
        ),
        ("requests without end", Fate::Any, each(&|it| frame(HEADERS, END_HEADERS, it, POST))),
        ("continuations without end", Fate::Ended, {
            let more = frame(CONTINUATION, 0, 1, &b"\x00\x01a\x01b".repeat(100));
            [frame(HEADERS, 0, 1, GET), more.repeat(count)].concat()
        }),
        ("empty continuations", Fate::Ended, {
            [frame(HEADERS, 0, 1, GET), frame(CONTINUATION, 0, 1, b"").repeat(count)].concat()
        }),
        ("settings", Fate::Any, frame(SETTINGS, 0, 0, b"\x00\x04\x00\x00\x00\x00").repeat(count)),
        ("pings", Fate::Any, frame(PING, 0, 0, b"12345678").repeat(count)),
        ("empty data", Fate::Any, [open.clone(), frame(DATA, 0, 1, b"").repeat(count)].concat()),
        (
            "a bomb of headers",
            Fate::Any,
            each(&|it| {
                if it < 200 {
                    frame(HEADERS, END_STREAM | END_HEADERS, it, &bomb)
                } else {
                    Vec::new()
                }
            }),
        ),
        ("a frame that is too large", Fate::Ended, {
            [open.clone(), frame(DATA, 0, 1, &vec![0; 1 << 17])].concat()
        }),
        ("settings of half a word", Fate::Ended, frame(SETTINGS, 0, 0, b"\x00\x04\x00")),
        ("a window that overflows", Fate::Ended, {
            frame(WINDOW, 0, 0, &0x7fff_ffff_u32.to_be_bytes()).repeat(2)
        }),
        ("a window of nothing", Fate::Ended, frame(WINDOW, 0, 0, &[0; 4])),
        ("data for nobody", Fate::Ended, frame(DATA, 0, 1, b"abc")),
        ("streams that go back", Fate::Ended, [ask(9), ask(3)].concat()),
        ("streams of the server", Fate::Ended, ask(2)),
        ("garbage in a head", Fate::Ended, {
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff; 64])
        }),
        ("another preface", Fate::Ended, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
    ]
}

/// Sends it and reads what comes, until the connection ends or the server has been silent for so
/// long; whether it ended it.
async fn attack(address: SocketAddr, bytes: Vec<u8>, silence: Duration) -> Fate {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let send = async {
        let preface =
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, b"")[..]].concat();
        drop(write.write_all(&[preface, bytes].concat()).await);
        std::future::pending().await
    };
    let receive = async {
        let (mut got, mut ahead) = (vec![0; 1 << 16], Vec::new());
        loop {
            match timeout(silence, read.read(&mut got)).await {
                Err(_) => return Fate::Any,
                Ok(Ok(0) | Err(_)) => return Fate::Ended,
                Ok(Ok(len)) => ahead.extend_from_slice(&got[..len]),
            }
            while let Some(len) = frame_len(&ahead) {
                if ahead[3] == GOAWAY {
                    return Fate::Ended;
                }
                ahead.drain(..len);
            }
        }
    };
    tokio::select! {
        fate = receive => fate,
        fate = send => fate,
    }
}

/// The bytes of the frame that comes first, if it is here.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    let head = bytes.get(..9)?;
    let len = 9 + usize::from(head[0]) * 65_536 + usize::from(head[1]) * 256 + usize::from(head[2]);
    (len <= bytes.len()).then_some(len)
}

fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|it| it.starts_with("VmRSS")).unwrap().to_owned();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// B-49
#[tokio::test]
async fn callers_who_misuse_http_2_lose_their_connections_and_nobody_else_notices() {
    let provider = Provider::start().await;
    let (serve, _dir) = before(provider.address, "").await;
    let mut others = h2(TcpStream::connect(serve.data).await.unwrap()).await;
    for (name, expected, bytes) in attacks(times("CROSSFADE_FRAMES", 10_000)) {
        let before = memory(serve.pid());
        let mut all = JoinSet::new();
        let silence = if expected == Fate::Ended { SOON } else { Duration::from_secs(3) };
        for _ in 0..ATTACKERS {
            all.spawn(attack(serve.data, bytes.clone(), silence));
        }
        let mut served = 0;
        while served < 3 || !all.is_empty() {
            let answer = timeout(SOON, others.send_request(get("/v1/y"))).await.unwrap();
            assert_eq!(answer.unwrap().status(), 200, "{name}");
            assert_eq!(serve.post("/v1/x", b"abc".to_vec(), &[]).await.status, 200, "{name}");
            served += 1;
            while let Some(fate) = all.try_join_next() {
                let fate = fate.unwrap();
                assert!(expected == Fate::Any || fate == Fate::Ended, "{name}: it goes on");
            }
        }
        let grown = memory(serve.pid()).saturating_sub(before);
        println!("{name}: {served} others served meanwhile, {grown} KiB more");
        assert!(grown < GROWN_MAX, "{name}: {grown} KiB");
    }
    let (_, wrong) = provider.take();
    assert!(wrong.is_empty(), "{wrong:?}");
}
