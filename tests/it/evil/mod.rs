//! An evil provider: raw TCP that does to its callers whatever providers are known to do, and says
//! what it saw of them.
//!
//! What it does to a request is a plain function of its script, the request and its number, so
//! the same seed does the same again.

mod faults;
mod leave;
mod live;
mod requests;
mod rig;
mod shadow;
mod storm;
mod streams;

pub(crate) use faults::{Fault, Step, answer};
pub(crate) use requests::Asked;
pub(crate) use rig::{Rig, Way, patient};

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};

/// What is done to a request: its steps, by its number (from 0) and what it asks.
pub(crate) type Script = Box<dyn Fn(u64, &Asked) -> Vec<Step> + Send + Sync>;

/// A running provider. Dropped, it closes its address and all connections.
pub(crate) struct Evil {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

struct Shared {
    name: &'static str,
    script: Mutex<Arc<Script>>,
    begun: AtomicU64,
    bytes: AtomicU64,
    left: Mutex<Vec<(u64, Instant)>>,
    gate: Semaphore,
}

/// How the steps of an answer ended.
enum Played {
    /// The connection may be used again.
    Whole,
    /// It is over.
    Over,
    /// The peer left before the steps did.
    Left,
}

impl Evil {
    /// A provider that answers well, with `name` in every answer.
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Arc::new(Shared {
            name,
            script: Mutex::new(Arc::new(always(Fault::None, name))),
            begun: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            left: Mutex::default(),
            gate: Semaphore::new(0),
        });
        let address = listener.local_addr().unwrap();
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, _accepting: accepting }
    }

    /// Does this to every request from now on.
    pub(crate) fn does(&self, fault: Fault) {
        self.follows(always(fault, self.shared.name));
    }

    /// Follows this script from now on.
    pub(crate) fn plays(&self, script: impl Fn(u64, &Asked) -> Vec<Step> + Send + Sync + 'static) {
        self.follows(Box::new(script));
    }

    fn follows(&self, script: Script) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(script);
    }

    /// Lets so many answers go on that wait at their gate.
    pub(crate) fn open(&self, gates: usize) {
        self.shared.gate.add_permits(gates);
    }

    /// Requests whose head and body were read.
    pub(crate) fn begun(&self) -> u64 {
        self.shared.begun.load(Relaxed)
    }

    /// Bytes of bodies that were read.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Relaxed)
    }

    /// Requests that the peer left before they were answered, and when.
    pub(crate) fn left(&self) -> Vec<(u64, Instant)> {
        self.shared.left.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where its API is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

/// A script that does the same to every request.
fn always(fault: Fault, name: &'static str) -> Script {
    Box::new(move |number, asked| fault.steps(name, number, asked))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let shared = Arc::clone(&shared);
        // A connection that breaks off is seen by the one who waits for the answer.
        connections.spawn(async move { drop(serve(stream, &shared).await) });
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut ahead = Vec::new();
    while let Some(asked) = requests::read(&mut stream, &mut ahead, &shared.bytes).await? {
        let number = shared.begun.fetch_add(1, Relaxed);
        let script = Arc::clone(&shared.script.lock().unwrap_or_else(PoisonError::into_inner));
        let steps = script(number, &asked);
        let resets = steps.iter().any(|it| matches!(it, Step::Reset));
        let (mut reader, mut writer) = stream.split();
        let played = tokio::select! {
            biased;
            () = gone(&mut reader, &mut ahead) => Played::Left,
            played = play(steps, &mut writer, shared) => played.unwrap_or(Played::Left),
        };
        match played {
            Played::Whole => {}
            Played::Over => {
                if resets {
                    stream.set_zero_linger()?;
                }
                return Ok(());
            }
            Played::Left => {
                let mut left = shared.left.lock().unwrap_or_else(PoisonError::into_inner);
                left.push((number, Instant::now()));
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Ends when the peer has; what it sends meanwhile belongs to its next request.
async fn gone(reader: &mut ReadHalf<'_>, ahead: &mut Vec<u8>) {
    while let Ok(len) = reader.read_buf(ahead).await
        && 0 < len
    {}
}

async fn play(steps: Vec<Step>, writer: &mut WriteHalf<'_>, shared: &Shared) -> io::Result<Played> {
    for step in steps {
        match step {
            Step::Send(bytes) => writer.write_all(&bytes).await?,
            Step::Wait(time) => sleep(time).await,
            Step::Gate => shared.gate.acquire().await.unwrap().forget(),
            Step::Repeat(bytes) => loop {
                writer.write_all(&bytes).await?;
            },
            Step::Drip(bytes, pause) => {
                for byte in bytes {
                    writer.write_all(&[byte]).await?;
                    sleep(pause).await;
                }
            }
            Step::HalfClose => {
                writer.shutdown().await?;
                std::future::pending::<()>().await;
            }
            Step::Stall => std::future::pending().await,
            Step::Reset | Step::Close => return Ok(Played::Over),
        }
    }
    Ok(Played::Whole)
}
