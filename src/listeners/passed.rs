//! Listening sockets that were open before this process, and what the file says about them.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, net::UnixListener},
    },
    path::Path,
};

use rustix::net::{AddressFamily, sockopt::socket_domain};

use super::handover::Predecessor;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Where applications send their requests.
    Data,
    /// The control API.
    Control,
    /// Metrics and health.
    Operations,
}

/// Sockets that the service manager or the predecessor opened.
#[derive(Debug, Default)]
pub struct Passed {
    sockets: Vec<(Option<Port>, Socket)>,
    predecessor: Predecessor,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Port {
    /// Its name, as `FileDescriptorName=` of a socket unit has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Control => "control",
            Self::Operations => "operations",
        }
    }

    /// The port of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Data, Self::Control, Self::Operations].into_iter().find(|it| it.name() == name)
    }
}

impl From<Predecessor> for Passed {
    fn from(predecessor: Predecessor) -> Self {
        Self { sockets: Vec::new(), predecessor }
    }
}

impl Passed {
    /// Adds one; a socket without a known name is known by its address.
    ///
    /// # Errors
    /// When it is no socket.
    pub fn add(&mut self, port: Option<Port>, socket: OwnedFd) -> io::Result<()> {
        let socket = match socket_domain(&socket)? {
            AddressFamily::UNIX => Socket::Unix(socket.into()),
            _ => Socket::Tcp(socket.into()),
        };
        self.sockets.push((port, socket));
        Ok(())
    }

    /// The process that opened them, if it still runs.
    pub fn predecessor(&mut self) -> Predecessor {
        std::mem::take(&mut self.predecessor)
    }

    /// The socket of a port, if it listens where the file says.
    pub(super) fn tcp(&mut self, port: Port, asked: SocketAddr) -> Option<TcpListener> {
        let fits = |name: Option<Port>, it: &Socket| match it {
            Socket::Tcp(it) => it.local_addr().is_ok_and(|it| {
                let any = asked.port() == 0 && name.is_some();
                it.ip() == asked.ip() && (any || it.port() == asked.port())
            }),
            Socket::Unix(_) => false,
        };
        match self.take(port, fits)? {
            Socket::Tcp(it) => Some(it),
            Socket::Unix(_) => None,
        }
    }

    /// The same for a socket file.
    pub(super) fn unix(&mut self, port: Port, asked: &Path) -> Option<UnixListener> {
        let fits = |_: Option<Port>, it: &Socket| match it {
            Socket::Tcp(_) => false,
            Socket::Unix(it) => it.local_addr().is_ok_and(|it| is_at(it.as_pathname(), asked)),
        };
        match self.take(port, fits)? {
            Socket::Tcp(_) => None,
            Socket::Unix(it) => Some(it),
        }
    }

    fn take(&mut self, port: Port, fits: impl Fn(Option<Port>, &Socket) -> bool) -> Option<Socket> {
        let is_it = |(name, socket): &(Option<Port>, Socket)| {
            name.is_none_or(|it| it == port) && fits(*name, socket)
        };
        let index = self.sockets.iter().position(is_it)?;
        Some(self.sockets.swap_remove(index).1)
    }

    /// Whether they come from the process that ran before, and not from the service manager.
    pub(super) fn are_a_predecessors(&self) -> bool {
        self.predecessor.is_there()
    }

    /// Sockets that the file has no use for.
    pub(super) fn left(&self) -> Vec<String> {
        self.sockets.iter().map(|(_, socket)| socket.to_string()).collect()
    }
}

/// Whether a socket is at a path, or was before it got that name (see [`bind`](super::bind())).
fn is_at(bound: Option<&Path>, asked: &Path) -> bool {
    let (bound, asked) = (bound.unwrap_or(Path::new("")).as_os_str(), asked.as_os_str());
    let rest = bound.as_bytes().strip_prefix(asked.as_bytes());
    rest.is_some_and(|it| match it {
        [] => true,
        [b'.', pid @ ..] => pid.iter().all(u8::is_ascii_digit),
        _ => false,
    })
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(it) => match it.local_addr() {
                Ok(address) => address.fmt(f),
                Err(error) => error.fmt(f),
            },
            Self::Unix(it) => match it.local_addr() {
                Ok(address) => write!(f, "{address:?}"),
                Err(error) => error.fmt(f),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(port: Option<Port>) -> (Passed, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut passed = Passed::default();
        passed.add(port, socket.into()).unwrap();
        (passed, address)
    }

    #[test]
    fn a_socket_is_taken_where_the_file_says_and_by_its_name_if_it_has_one() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        for (name, exact, is_taken) in [
            (None, true, true),
            (None, false, false),
            (Some(Port::Data), true, true),
            (Some(Port::Data), false, true),
            (Some(Port::Control), true, false),
            (Some(Port::Control), false, false),
        ] {
            let (mut passed, address) = passed(name);
            let asked = if exact { address } else { any };
            assert_eq!(passed.tcp(Port::Data, asked).is_some(), is_taken, "{name:?} {exact}");
            assert_eq!(passed.left().is_empty(), is_taken);
            assert!(passed.tcp(Port::Data, asked).is_none(), "only once");
        }
        let (mut passed, address) = passed(Some(Port::Data));
        let other = SocketAddr::from(([127, 0, 0, 2], address.port()));
        assert!(passed.tcp(Port::Data, other).is_none());
        assert_eq!(passed.left(), [address.to_string()]);
    }

    #[test]
    fn a_socket_file_is_known_by_the_name_it_was_made_under() {
        let at = |bound: &str| is_at(Some(Path::new(bound)), Path::new("/run/a.sock"));
        assert!(at("/run/a.sock") && at("/run/a.sock.4711"));
        assert!(!at("/run/a.sock.d") && !at("/run/a") && !at("/run/a.sockets"));
        assert!(!is_at(None, Path::new("/run/a.sock")));
    }
}
