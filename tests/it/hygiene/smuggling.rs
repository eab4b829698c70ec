//! No bytes of a caller make a provider see anything but what was accepted.

use std::{net::SocketAddr, time::Duration};

use crossfade::domain::Splitmix;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::world::SOON;

use super::{End, Provider, Reader, before, sections};

struct Case {
    name: String,
    bytes: Vec<u8>,
    answers: Vec<u16>,
    stays_open: bool,
}

/// The cases of the golden file.
fn cases() -> Vec<Case> {
    let case = |(name, verdict, bytes): (String, String, Vec<u8>)| {
        let mut words: Vec<&str> = verdict.split(' ').collect();
        let stays_open = match words.pop() {
            Some("open") => true,
            Some("closed") => false,
            _ => panic!("[{name}] {verdict}"),
        };
        let answers = words.iter().map(|it| it.parse().unwrap()).collect();
        Case { name, bytes, answers, stays_open }
    };
    sections("tests/golden/hygiene/requests.txt").into_iter().map(case).collect()
}

/// What one case comes to: its answers, and whether the connection stays open.
async fn play(address: SocketAddr, case: &Case) -> (Vec<u16>, bool) {
    let mut caller = Reader::new(TcpStream::connect(address).await.unwrap());
    caller.stream.write_all(&case.bytes).await.unwrap();
    let mut answers = Vec::new();
    while answers.len() < case.answers.len() {
        match timeout(SOON, caller.answer()).await.unwrap() {
            Ok(answer) => answers.push(answer.status()),
            Err(_) => return (answers, false),
        }
    }
    if !case.stays_open {
        return (answers, timeout(SOON, caller.more()).await.unwrap());
    }
    caller.stream.write_all(b"GET /v1/next HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let next = timeout(SOON, caller.answer()).await.unwrap();
    (answers, next.is_ok_and(|it| it.status() == 200))
}

/// B-39 B-45
#[tokio::test]
async fn every_raw_request_comes_to_what_the_golden_file_says() {
    let provider = Provider::start().await;
    let (serve, _dir) = before(provider.address, "[limits]\nbody_max = \"1MiB\"\n").await;
    let mut faults = Vec::new();
    for case in cases() {
        let (answers, is_open) = play(serve.data, &case).await;
        let (whole, wrong) = provider.take();
        let accepted = answers.iter().filter(|it| **it == 200).count();
        let expected = accepted + usize::from(case.stays_open && is_open);
        let smuggled = whole.iter().any(|it| it.contains("smuggled"));
        if answers != case.answers || is_open != case.stays_open {
            faults.push(format!("[{}] {answers:?}, open: {is_open}", case.name));
        }
        if whole.len() != expected || smuggled || !wrong.is_empty() {
            faults.push(format!("[{}] the provider saw {whole:?} {wrong:?}", case.name));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

const MUTATIONS: u64 = 4_000;
const LANES: u64 = 16;
/// After so long without its end, and another request that was answered meanwhile, a connection
/// waits for the rest of a body.
const QUIET: Duration = Duration::from_millis(300);
const PROBE: &str = "GET /v1/probe HTTP/1.1";

/// What is put anywhere into a request.
#[rustfmt::skip]
const WORDS: &[&[u8]] = &[
    b"\r\n", b"\n", b"\r", b"\0", b"\t", b" ", b":", b",", b";", b"0", b"f", b"\x0b", b"\x7f", b"\xff", b"..", b"//", b"%2e",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding:chunked\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Host: b\r\n", b"Connection: close\r\n",
    b"Connection: content-length\r\n", b"Expect: 100-continue\r\n", b"0\r\n\r\n", b"\r\n\r\n", b"5\r\n", b";a=b", b"chunked", b"identity, ",
    b"GET /v1/more HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.0", b"HTTP/1.1", b"http://b",
];

fn mutant(cases: &[Case], seed: u64) -> Vec<u8> {
    let mut dice = Splitmix(seed);
    let mut below = |end: usize| usize::try_from(dice.roll() >> 1).unwrap() % end.max(1);
    // Of those that are refused anyway there is less to learn.
    let good = |it: &&Case| it.answers.contains(&200);
    let case = below(cases.len());
    let case = cases[case..].iter().find(good).unwrap_or(&cases[0]);
    let mut bytes = case.bytes.clone();
    for _ in 0..=below(3) {
        let at = below(bytes.len() + 1);
        let end = (at + below(12)).min(bytes.len());
        match below(4) {
            0 => drop(bytes.splice(at..at, WORDS[below(WORDS.len())].iter().copied())),
            1 => drop(bytes.splice(at..end, WORDS[below(WORDS.len())].iter().copied())),
            2 => drop(bytes.drain(at..end)),
            _ => {
                let piece = bytes[at..end].to_vec();
                let to = below(bytes.len() + 1);
                drop(bytes.splice(to..to, piece));
            }
        }
    }
    bytes
}

/// Sends some bytes and a last request; how many answers said 200, and whether it came to an end.
async fn send(address: SocketAddr, bytes: &[u8]) -> (usize, bool) {
    let mut caller = Reader::new(TcpStream::connect(address).await.unwrap());
    let last = b"GET /v1/last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    // It may have closed before it was told everything.
    drop(caller.stream.write_all(&[bytes, last].concat()).await);
    let mut accepted = 0;
    let all = async {
        loop {
            match caller.answer().await {
                Ok(answer) => accepted += usize::from(answer.status() == 200),
                Err(End::Wrong(what)) => panic!("{what} to {}", bytes.escape_ascii()),
                Err(End::Clean | End::Cut) => return,
            }
        }
    };
    let ended = tokio::select! {
        biased;
        () = all => true,
        () = quiet(address) => false,
    };
    (accepted, ended)
}

async fn quiet(address: SocketAddr) {
    sleep(QUIET).await;
    let mut caller = Reader::new(TcpStream::connect(address).await.unwrap());
    let probe = format!("{PROBE}\r\nHost: a\r\n\r\n");
    caller.stream.write_all(probe.as_bytes()).await.unwrap();
    assert_eq!(timeout(SOON, caller.answer()).await.unwrap().unwrap().status(), 200);
}

/// B-39
#[tokio::test]
async fn mutants_of_raw_requests_reach_the_provider_well_formed_or_not_at_all() {
    let provider = Provider::start().await;
    let (serve, _dir) = before(provider.address, "[limits]\nbody_max = \"1MiB\"\n").await;
    let (address, mut lanes) = (serve.data, JoinSet::new());
    for lane in 0..LANES {
        lanes.spawn(async move {
            let (cases, mut accepted, mut open) = (cases(), 0, 0);
            for seed in (lane..MUTATIONS).step_by(usize::try_from(LANES).unwrap()) {
                let (more, ended) = send(address, &mutant(&cases, seed)).await;
                accepted += more;
                open += usize::from(!ended);
            }
            (accepted, open)
        });
    }
    let counts = lanes.join_all().await;
    let accepted: usize = counts.iter().map(|it| it.0).sum();
    let open: usize = counts.iter().map(|it| it.1).sum();
    assert!(serve.stop().await.success());
    let (mut whole, wrong) = provider.take();
    whole.retain(|it| it != PROBE);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    // What was answered when nobody listened any more may be one for each of those.
    assert!(
        (accepted..=accepted + open).contains(&whole.len()),
        "{accepted} {open} {}",
        whole.len()
    );
    assert!(500 < accepted && open < 500, "{accepted} accepted, {open} left open");
}
