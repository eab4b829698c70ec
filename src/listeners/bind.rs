//! Where the API listens: loopback or a unix socket, and nowhere else.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, UnixListener};

use crate::config::Control;

use super::passed::{Passed, Port};

/// Why the API does not listen on an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the API has no passwords and so listens on loopback or a unix socket only, not on `{0}`: \
     write `127.0.0.1:PORT` or `unix:PATH`, and reach it from elsewhere through ssh"
)]
pub struct PublicAddress(pub SocketAddr);

/// A bound socket. Dropping it closes it, and removes its file.
#[derive(Debug)]
pub enum Listener {
    /// On loopback.
    Tcp(TcpListener),
    /// On a file.
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// Closes it here alone: another process listens on it too.
    pub fn leave(self) {
        match self {
            Self::Tcp(_) => {}
            Self::Unix(_, file) => file.leave(),
        }
    }
}

/// The file of a socket, removed when dropped, if it is ours to remove.
#[derive(Debug)]
pub struct SocketFile(Option<PathBuf>);

impl SocketFile {
    /// Leaves it to whoever else listens on the socket.
    pub fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.as_ref().map(fs::remove_file);
    }
}

/// Binds the API's socket, inside a tokio runtime, unless it was passed. Also answers what
/// `--server` takes to reach it.
///
/// A socket file is for its owner alone (mode 0600). One that is left over from a process
/// that died is replaced; one that somebody answers on is not.
///
/// # Errors
/// When the address is not of this machine alone, is taken, or cannot be bound.
pub fn bind(control: &Control, passed: &mut Passed) -> io::Result<(Listener, String)> {
    match control {
        Control::Tcp(address) if !address.ip().is_loopback() => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, PublicAddress(*address)))
        }
        Control::Tcp(address) => {
            let listener = super::tcp(*address, passed.tcp(Port::Control, *address))
                .map_err(|error| explain(&error, &format!("could not listen on {address}")))?;
            let address = format!("http://{}", listener.local_addr()?);
            Ok((Listener::Tcp(listener), address))
        }
        Control::Unix(path) => {
            let passed = passed.unix(Port::Control, path);
            let listener = passed.map_or_else(|| bind_file(path), Ok)?;
            listener.set_nonblocking(true)?;
            // We bind beside the path. One that was bound at it is of the service manager, also
            // where a predecessor passed it on, and so is its file.
            let is_ours = listener.local_addr()?.as_pathname() != Some(path);
            let file = SocketFile(is_ours.then(|| path.clone()));
            let listener = UnixListener::from_std(listener)?;
            Ok((Listener::Unix(listener, file), format!("unix:{}", path.display())))
        }
    }
}

/// Binds beside the path first, so that the socket is never there with a wider mode.
fn bind_file(path: &Path) -> io::Result<StdUnixListener> {
    clear(path)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let failed = |error: io::Error| {
        explain(&error, &format!("could not listen on the socket {}", path.display()))
    };
    let listener = StdUnixListener::bind(&beside).map_err(failed)?;
    let placed = fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&beside, path));
    if let Err(error) = placed {
        drop(SocketFile(Some(PathBuf::from(beside))));
        return Err(failed(error));
    }
    Ok(listener)
}

/// Removes a socket that nobody answers on.
fn clear(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(explain(&error, &format!("could not look at {}", path.display())));
        }
    };
    let taken = |what: &str| {
        let text = format!("{} {what}; choose another path", path.display());
        Err(io::Error::new(io::ErrorKind::AddrInUse, text))
    };
    if !found.file_type().is_socket() {
        return taken("is there and is no socket");
    }
    match StdUnixStream::connect(path) {
        Ok(_) => taken("is the socket of a process that runs"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(explain(&error, &format!("could not try {}", path.display()))),
    }
}

fn explain(error: &io::Error, tried: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{tried}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(control: &Control) -> io::Result<(Listener, String)> {
        bind(control, &mut Passed::default())
    }

    #[tokio::test]
    async fn only_this_machine_is_served() {
        let error = new(&Control::Tcp("0.0.0.0:0".parse().unwrap())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("loopback or a unix socket"), "{error}");
        let (_listener, address) = new(&Control::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        assert!(address.starts_with("http://127.0.0.1:") && !address.ends_with(":0"));
    }

    #[tokio::test]
    async fn a_socket_file_is_private_and_replaced_only_when_stale() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        drop(StdUnixListener::bind(&path).unwrap());
        let control = Control::Unix(path.clone());

        let (listener, address) = new(&control).unwrap();
        assert_eq!(address, format!("unix:{}", path.display()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(new(&control).unwrap_err().kind(), io::ErrorKind::AddrInUse);

        drop(listener);
        assert!(!path.exists());
        for (bound, is_ours) in [("api.sock", false), ("api.sock.4711", true)] {
            let bound = folder.path().join(bound);
            let mut passed = Passed::default();
            let socket = StdUnixListener::bind(&bound).unwrap();
            fs::rename(&bound, &path).unwrap();
            passed.add(Some(Port::Control), socket.into()).unwrap();
            drop(bind(&control, &mut passed).unwrap());
            assert_eq!(path.exists(), !is_ours, "whoever passed it on");
        }
        fs::remove_file(&path).unwrap_or_default();
        fs::write(&path, "precious").unwrap();
        assert_eq!(new(&control).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
