//! Callers: as many requests as fit, or a fixed number a second, every answer checked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::json;
use tokio::{
    net::TcpStream,
    task::{JoinSet, yield_now},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    Fault,
    http::{Connection, Message},
    mock::{self, STAMP},
};

/// Longest wait for answers after the last request was sent.
const ANSWERS_TIME_MAX: Duration = Duration::from_secs(10);
/// Most requests under way at a time.
const IN_FLIGHT_MAX: usize = 4_096;
/// Timers wake up to a millisecond late; so long before the end they are watched.
const WATCHED: Duration = Duration::from_millis(2);

/// One request, and the only right answer to it.
pub(crate) struct Job {
    address: SocketAddr,
    request: String,
    expected: String,
    /// Where in it stamps are.
    stamps: Vec<usize>,
}

/// About how long a request is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    /// 2 KB.
    Small,
    /// 64 KB.
    Large,
}

/// Whether the answer comes in pieces.
pub(crate) enum Delivery {
    Whole,
    Stream,
}

/// What a closed loop did.
pub(crate) struct Done {
    pub(crate) answers: u32,
    pub(crate) elapsed: Duration,
}

/// When things happened, counted from when the request was due.
pub(crate) struct Times {
    pub(crate) begun: Duration,
    pub(crate) whole: Duration,
    /// How long each piece of a stream was under way, from the provider to the caller.
    pub(crate) pieces: Vec<Duration>,
}

impl Job {
    pub(crate) fn new(
        address: SocketAddr,
        size: Size,
        delivery: &Delivery,
        expected: &str,
    ) -> Arc<Self> {
        let stream = matches!(delivery, Delivery::Stream);
        let text_len = match size {
            Size::Small => 1_800,
            Size::Large => 64_000,
        };
        let body = json!({
            "model": "bench", "stream": stream, "temperature": 0.2,
            "messages": [{ "role": "user", "content": mock::text(text_len) }],
        })
        .to_string();
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\n\
             authorization: Bearer bench\r\ncontent-type: application/json\r\naccept: */*\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let stamps = expected.match_indices(STAMP).map(|(at, _)| at).collect();
        Arc::new(Self { address, request, expected: expected.to_owned(), stamps })
    }

    /// One request on a connection of its own.
    pub(crate) async fn once(&self) -> Result<(), Fault> {
        let exchange = async {
            let mut connection = self.connect().await?;
            self.exchange(&mut connection, Instant::now()).await
        };
        timeout(ANSWERS_TIME_MAX, exchange).await.map_err(|_| "no answer in time")??;
        Ok(())
    }

    /// Keeps one request under way on each of so many connections.
    pub(crate) async fn closed(
        self: &Arc<Self>,
        callers: u32,
        time: Duration,
    ) -> Result<Done, Fault> {
        let start = Instant::now();
        let mut running = JoinSet::new();
        for _ in 0..callers {
            let job = Arc::clone(self);
            running.spawn(async move { job.repeat(start + time).await });
        }
        let mut answers = 0;
        for count in joined(running, start + time).await? {
            answers += count;
        }
        Ok(Done { answers, elapsed: start.elapsed() })
    }

    /// Sends so many requests a second, come what may; times count from when each was due, so
    /// that a stall is charged to every request it delays.
    pub(crate) async fn open(
        self: &Arc<Self>,
        rate: u32,
        time: Duration,
    ) -> Result<Vec<Times>, Fault> {
        let gap = Duration::from_secs(1) / rate;
        let idle = Arc::new(Mutex::new(Vec::new()));
        let (mut due, mut number) = (Instant::now(), 0);
        let ends = due + time;
        let mut running = JoinSet::new();
        while due < ends {
            until(due).await;
            if IN_FLIGHT_MAX <= number - idle.lock().unwrap_or_else(PoisonError::into_inner).len() {
                return Err(format!("more than {IN_FLIGHT_MAX} requests wait for answers").into());
            }
            running.spawn(Arc::clone(self).reuse(Arc::clone(&idle), due));
            number += 1;
            due += uneven(gap, number);
        }
        joined(running, ends).await
    }

    async fn repeat(&self, ends: Instant) -> Result<u32, Fault> {
        let mut connection = self.connect().await?;
        let mut answers = 0;
        while Instant::now() < ends {
            self.exchange(&mut connection, ends).await?;
            answers += 1;
        }
        Ok(answers)
    }

    async fn reuse(
        self: Arc<Self>,
        idle: Arc<Mutex<Vec<Connection>>>,
        due: Instant,
    ) -> Result<Times, Fault> {
        let free = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match free {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let times = self.exchange(&mut connection, due).await?;
        idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(times)
    }

    async fn connect(&self) -> Result<Connection, Fault> {
        Ok(Connection::new(TcpStream::connect(self.address).await?)?)
    }

    async fn exchange(&self, connection: &mut Connection, due: Instant) -> Result<Times, Fault> {
        connection.send(self.request.as_bytes()).await?;
        let message = connection.receive().await?.ok_or("closed instead of an answer")?;
        let whole = due.elapsed();
        let pieces = self.checked(&message).ok_or_else(|| {
            let start = String::from_utf8_lossy(message.start);
            let body = String::from_utf8_lossy(&message.body[..message.body.len().min(300)]);
            format!("a wrong answer: {start}: {body}")
        })?;
        Ok(Times { begun: message.begun.saturating_duration_since(due), whole, pieces })
    }

    /// How long each piece was under way; none if this is not the expected answer.
    fn checked(&self, message: &Message<'_>) -> Option<Vec<Duration>> {
        let expected = self.expected.as_bytes();
        let mut pieces = Vec::with_capacity(self.stamps.len());
        let mut equal = message.start.starts_with(b"HTTP/1.1 200 ");
        let mut rest = 0;
        for &at in &self.stamps {
            let end = at + STAMP.len();
            equal &= message.body.get(rest..at)? == &expected[rest..at];
            let sent = mock::sent(message.body.get(at..end)?)?;
            let (_, arrived) = message.arrivals.iter().find(|(len, _)| end <= *len)?;
            pieces.push(arrived.saturating_duration_since(sent));
            rest = end;
        }
        equal &= message.body.get(rest..)? == &expected[rest..];
        equal.then_some(pieces)
    }
}

/// What all of them return; the first fault ends them all.
async fn joined<T: 'static>(
    mut running: JoinSet<Result<T, Fault>>,
    ends: Instant,
) -> Result<Vec<T>, Fault> {
    let mut results = Vec::with_capacity(running.len());
    let all = async {
        while let Some(result) = running.join_next().await {
            results.push(result??);
        }
        Ok::<_, Fault>(())
    };
    let time = ends.saturating_duration_since(Instant::now()) + ANSWERS_TIME_MAX;
    timeout(time, all).await.map_err(|_| format!("no answer within {ANSWERS_TIME_MAX:?}"))??;
    Ok(results)
}

/// Between half and one and a half of the gap, so that requests do not meet earlier answers in
/// step. The same on every run.
fn uneven(gap: Duration, number: usize) -> Duration {
    let spread = gap.as_nanos().max(1);
    let golden = u128::try_from(number).unwrap_or(0) * 0x9e37_79b9;
    let nanos = u64::try_from(golden % spread).unwrap_or(0);
    gap / 2 + Duration::from_nanos(nanos)
}

/// Waits to the microsecond.
pub(crate) async fn until(due: Instant) {
    if let Some(early) = due.checked_sub(WATCHED) {
        sleep_until(early).await;
    }
    while Instant::now() < due {
        yield_now().await;
    }
}
