//! The listening sockets go from the process that runs to its successor, and are never closed.
//!
//! The one that runs waits on a socket in its store's folder, for its own user alone. It sends
//! its descriptors to whoever comes, and both accept. Once the successor says that it serves, the
//! older one says that it leaves. The successor hears of its end by the end of the connection.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use crate::config::Control;
use crate::tasks::{self, BoxError, Stop};

use super::{
    Listener, Listeners, Seldom,
    bind::{SocketFile, bind},
    passed::{Passed, Port},
};

/// The socket, in the folder of the store.
const FILE_NAME: &str = "handover.sock";
/// How often it is tried to offer the sockets, while another process does or the folder lacks.
const OFFER_PAUSE: Duration = Duration::from_secs(1);
/// How long a successor may take until it serves; then it is forgotten.
const SERVES_WITHIN: Duration = Duration::from_secs(30);
/// How long one step of the talk may take otherwise.
const STEP_MAX: Duration = Duration::from_secs(5);
/// Says: this process serves on the sockets.
const SERVES: u8 = b's';
/// Says: then this one leaves.
const LEAVES: u8 = b'l';
/// Descriptors in a hand-over, and bytes of their names.
const SOCKETS_MAX: usize = 3;
const NAMES_LEN_MAX: usize = 64;

/// The sockets, for a successor.
#[derive(Debug)]
pub struct Offer {
    path: PathBuf,
    sockets: Vec<(Port, OwnedFd)>,
    open: Option<(UnixListener, SocketFile)>,
    failed: Seldom,
}

/// The process that serves now, as its predecessor sees it: held until this one is done.
#[derive(Debug)]
pub struct Successor(#[expect(dead_code, reason = "held for its drop")] UnixStream);

/// The process that served before, as its successor sees it.
#[derive(Debug, Default)]
pub struct Predecessor(Option<UnixStream>);

/// Resolves when the predecessor is done, at once where there is none. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gone(watch::Receiver<()>);

impl Offer {
    /// What may be offered, once it is [opened](Self::open).
    ///
    /// # Errors
    /// When the system has no descriptor for it.
    pub fn new(store: &Path, listeners: &Listeners) -> io::Result<Self> {
        let own = |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned();
        let control = match &listeners.control {
            Listener::Tcp(socket) => own(socket)?,
            Listener::Unix(socket, _) => own(socket)?,
        };
        let sockets = vec![
            (Port::Data, own(&listeners.data)?),
            (Port::Control, control),
            (Port::Operations, own(&listeners.operations)?),
        ];
        Ok(Self { path: store.join(FILE_NAME), sockets, open: None, failed: Seldom::default() })
    }

    /// Offers the sockets to whoever comes, unless another process on this store does already, or
    /// there is no store yet.
    pub fn open(&mut self) {
        match bind(&Control::Unix(self.path.clone()), &mut Passed::default()) {
            Ok((Listener::Unix(listener, file), _)) => self.open = Some((listener, file)),
            Ok((Listener::Tcp(_), _)) => {}
            // Another process offers its own, or the folder is yet to be made.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::NotFound) =>
            {
                tracing::debug!(%error, "no successor can take over yet");
            }
            Err(error) => {
                if self.failed.count().is_some() {
                    tracing::warn!(%error, "no successor can take over");
                }
            }
        }
    }

    /// Waits for a successor that serves, and tells who waits for it, once.
    ///
    /// # Errors
    /// None of its own: what goes wrong with one is logged, and the next one may come.
    pub async fn run(
        mut self,
        taken: mpsc::Sender<Successor>,
        mut stop: Stop,
    ) -> Result<(), BoxError> {
        let successor = tokio::select! {
            () = stop.wait() => return Ok(()),
            successor = self.successor() => successor,
        };
        // Without a receiver the program ends anyway.
        drop(taken.send(successor).await);
        stop.wait().await;
        Ok(())
    }

    async fn successor(&mut self) -> Successor {
        loop {
            let Some((listener, _)) = &self.open else {
                sleep(OFFER_PAUSE).await;
                self.open();
                continue;
            };
            let result = match listener.accept().await {
                Ok((stream, _)) => self.hand_over(stream).await,
                Err(error) => {
                    sleep(OFFER_PAUSE).await;
                    Err(error)
                }
            };
            match result {
                Ok(mut stream) => {
                    // First of all, so that the successor may offer them in turn.
                    self.open = None;
                    drop(timeout(STEP_MAX, stream.write_all(&[LEAVES])).await);
                    return Successor(stream);
                }
                // A process that waits for the store only looks whether somebody is here.
                Err(error) => tracing::debug!(%error, "a hand-over came to nothing; this goes on"),
            }
        }
    }

    /// Sends the sockets, and waits until they are served.
    async fn hand_over(&self, mut stream: UnixStream) -> io::Result<UnixStream> {
        ours(&stream)?;
        let names: Vec<&str> = self.sockets.iter().map(|(port, _)| port.name()).collect();
        let descriptors: Vec<_> = self.sockets.iter().map(|(_, fd)| fd.as_fd()).collect();
        let names = names.join(" ");
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
            let mut rights = SendAncillaryBuffer::new(&mut space);
            rights.push(SendAncillaryMessage::ScmRights(&descriptors));
            let text = [IoSlice::new(names.as_bytes())];
            Ok(sendmsg(&stream, &text, &mut rights, SendFlags::NOSIGNAL)?)
        };
        timeout(STEP_MAX, stream.async_io(Interest::WRITABLE, send)).await??;
        match timeout(SERVES_WITHIN, stream.read_u8()).await?? {
            SERVES => Ok(stream),
            other => Err(strange(&format!("a successor said {other}"))),
        }
    }
}

/// Takes the sockets of the process that runs on this store; none where nobody does.
///
/// # Errors
/// When somebody does and does not hand them over.
pub async fn take(store: &Path) -> io::Result<Option<Passed>> {
    let stream = match UnixStream::connect(store.join(FILE_NAME)).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                // A path that is too long for a socket is nobody's.
                io::ErrorKind::NotFound
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::InvalidInput
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    ours(&stream)?;
    let mut names = [0; NAMES_LEN_MAX];
    let receive = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let text = &mut [IoSliceMut::new(&mut names)];
        let received = recvmsg(&stream, text, &mut rights, RecvFlags::CMSG_CLOEXEC)?;
        let sockets = rights.drain().filter_map(|it| match it {
            RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
            _ => None,
        });
        Ok((received.bytes, sockets.flatten().collect::<Vec<OwnedFd>>()))
    };
    let (len, sockets) = timeout(STEP_MAX, stream.async_io(Interest::READABLE, receive)).await??;
    let names = str::from_utf8(&names[..len]).map_err(|_| strange("no names of sockets"))?;
    let ports: Vec<&str> = names.split(' ').collect();
    if ports.len() != sockets.len() {
        return Err(strange(&format!("{} sockets for `{names}`", sockets.len())));
    }
    let mut passed = Passed::from(Predecessor(Some(stream)));
    for (name, socket) in ports.into_iter().zip(sockets) {
        passed.add(Port::named(name), socket)?;
    }
    Ok(Some(passed))
}

impl Predecessor {
    /// Tells it that its sockets are served now, and waits until it leaves them.
    pub async fn relieve(self) -> Gone {
        let (sender, gone) = watch::channel(());
        let Some(mut stream) = self.0 else { return Gone(gone) };
        let talk = async {
            stream.write_all(&[SERVES]).await?;
            stream.read_u8().await
        };
        match timeout(STEP_MAX, talk).await {
            Ok(Ok(LEAVES)) => {}
            // Its sockets are ours too, whatever became of it. It may be late, and is here yet.
            said => tracing::warn!(?said, "the predecessor does not say that it leaves"),
        }
        tasks::spawn("predecessor", async move {
            while stream.read_u8().await.is_ok() {}
            drop(sender);
        });
        Gone(gone)
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }
}

impl Gone {
    /// Waits for the end of the predecessor.
    pub async fn wait(&mut self) {
        while self.0.changed().await.is_ok() {}
    }

    /// Whether there is one, and it has not ended.
    pub fn is_awaited(&self) -> bool {
        self.0.has_changed().is_ok()
    }
}

/// Refuses processes of other users.
fn ours(stream: &UnixStream) -> io::Result<()> {
    let (theirs, ours) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
    if theirs == ours {
        return Ok(());
    }
    let text = format!("a process of user {theirs} is at the other end, not of user {ours}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

fn strange(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_predecessor_that_is_late_to_leave_is_gone_when_it_ends_and_not_before() {
        let (mut old, new) = UnixStream::pair().unwrap();
        let mut gone = Predecessor(Some(new)).relieve().await;
        assert_eq!(old.read_u8().await.unwrap(), SERVES);
        assert!(timeout(STEP_MAX, gone.wait()).await.is_err(), "it has said nothing yet");
        old.write_u8(LEAVES).await.unwrap();
        assert!(timeout(STEP_MAX, gone.wait()).await.is_err(), "it runs yet");
        drop(old);
        gone.wait().await;
    }

    #[tokio::test]
    async fn nobody_runs_on_a_store_whose_path_no_socket_can_have() {
        let long = PathBuf::from("/tmp").join("x".repeat(200));
        assert!(take(&long).await.unwrap().is_none());
    }
}
