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

/// The file of a socket, removed when dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.0);
    }
}

/// Binds the API's socket, inside a tokio runtime. Also answers what `--server` takes to reach it.
///
/// A socket file is for its owner alone (mode 0600). One that is left over from a process
/// that died is replaced; one that somebody answers on is not.
///
/// # Errors
/// When the address is not of this machine alone, is taken, or cannot be bound.
pub fn bind(control: &Control) -> io::Result<(Listener, String)> {
    match control {
        Control::Tcp(address) if !address.ip().is_loopback() => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, PublicAddress(*address)))
        }
        Control::Tcp(address) => {
            let listener = std::net::TcpListener::bind(address)
                .map_err(|error| explain(&error, &format!("could not listen on {address}")))?;
            listener.set_nonblocking(true)?;
            let address = format!("http://{}", listener.local_addr()?);
            Ok((Listener::Tcp(TcpListener::from_std(listener)?), address))
        }
        Control::Unix(path) => {
            let listener = bind_file(path)?;
            listener.set_nonblocking(true)?;
            let file = SocketFile(path.clone());
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
        drop(SocketFile(PathBuf::from(beside)));
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

    #[tokio::test]
    async fn only_this_machine_is_served() {
        let error = bind(&Control::Tcp("0.0.0.0:0".parse().unwrap())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("loopback or a unix socket"), "{error}");
        let (_listener, address) = bind(&Control::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        assert!(address.starts_with("http://127.0.0.1:") && !address.ends_with(":0"));
    }

    #[tokio::test]
    async fn a_socket_file_is_private_and_replaced_only_when_stale() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        drop(StdUnixListener::bind(&path).unwrap());
        let control = Control::Unix(path.clone());

        let (listener, address) = bind(&control).unwrap();
        assert_eq!(address, format!("unix:{}", path.display()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&control).unwrap_err().kind(), io::ErrorKind::AddrInUse);

        drop(listener);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&control).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
