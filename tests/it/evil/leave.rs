//! Callers who leave: the provider sees it at once, and nothing of them stays behind.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    Fault,
    rig::{AT_ONCE, Rig, WAYS, Way, body, patient},
};
use crate::world::{SOON, times, until};

/// Connects and asks.
async fn caller(address: SocketAddr, way: Way) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = body("leaver", way);
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// How long the provider takes to see that a caller has left, once its request is there; with
/// `pieces` of the answer in the caller's hands.
async fn seen_after(rig: &Rig, way: Way, pieces: usize) -> Duration {
    let (asked, left) = (rig.primary.begun(), rig.primary.left().len());
    let mut caller = caller(rig.serve.data, way).await;
    if 0 < pieces {
        let mut answer = vec![0; 65_536];
        let mut got = Vec::new();
        while !got.windows(5).any(|it| it == b"data:") {
            let len = timeout(SOON, caller.read(&mut answer)).await.unwrap().unwrap();
            assert!(0 < len);
            got.extend_from_slice(&answer[..len]);
        }
    }
    until("the provider is asked", || async { asked < rig.primary.begun() }).await;
    let at = Instant::now();
    drop(caller);
    until("the provider sees it", || async { left < rig.primary.left().len() }).await;
    rig.primary.left()[left].1.saturating_duration_since(at)
}

#[tokio::test]
async fn b04_a_caller_who_leaves_is_told_to_the_provider_at_once_and_leaves_nothing() {
    for (case, more) in [("plain", String::new()), ("mirrored", patient("0%", "100%"))] {
        let rig = Rig::new(&more).await;
        if case == "mirrored" {
            rig.is_open().await;
        }
        let mut took = Vec::new();
        for (way, pieces) in [(Way::Whole, 0), (Way::Stream, 0), (Way::Stream, 2)] {
            rig.primary.does(Fault::Stall(pieces));
            for _ in 0..10 {
                took.push(seen_after(&rig, way, pieces).await);
            }
        }
        // A busy machine may be late now and then.
        took.sort();
        let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
        println!("{case}: the provider saw them leave after {median:?}, at most {slowest:?}");
        assert!(median < Duration::from_millis(100) && slowest < AT_ONCE, "{took:?}");
        rig.primary.does(Fault::Stall(2));
        let unseen = || rig.primary.begun() - u64::try_from(rig.primary.left().len()).unwrap();
        let (files, before) = (rig.files(), unseen());
        for number in 0..times("CROSSFADE_LEAVERS", 300) {
            drop(caller(rig.serve.data, WAYS[number % 2]).await);
        }
        until("all is as before", || async { rig.files() <= files + 4 }).await;
        rig.is_quiet().await;
        until("the provider is rid of them", || async { unseen() <= before }).await;
        // The program is well: it answers the next one.
        rig.primary.does(Fault::None);
        rig.ask("after", Way::Stream).await.is_from("primary", "after");
        if case == "mirrored" {
            // Of the many some leave before they are seen at all.
            until("they are counted", || async {
                30.0 <= rig.serve.metric("crossfade_lost_total{reason=\"caller_gone\"}").await
            })
            .await;
        }
    }
}
