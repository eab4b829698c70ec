//! Where the program listens, and how it accepts whatever goes wrong meanwhile.
//!
//! A listening socket is bound here, passed by the service manager, or handed over by the process
//! that ran before; the file says where it is in any case.

mod arrivals;
mod bind;
mod descriptors;
mod handover;
mod manager;
mod passed;

pub use arrivals::{Arrivals, Seldom};
pub use bind::{Listener, PublicAddress, bind};
pub use descriptors::{connections, raise, streams};
pub use handover::{Gone, Offer, Predecessor, Successor, take};
pub use manager::{leaving, passed, ready, watchdog};
pub use passed::{Passed, Port};

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

use crate::config::Config;

/// Connections that may wait to be accepted, if the system allows so many (`somaxconn`).
const BACKLOG: u32 = 4_096;

/// The listening sockets of the program.
#[derive(Debug)]
pub struct Listeners {
    /// Where applications send their requests.
    pub data: TcpListener,
    /// The control API.
    pub control: Listener,
    /// Metrics and health.
    pub operations: TcpListener,
    /// Where they are.
    pub addresses: Addresses,
}

/// Where the program can be reached.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The data port.
    pub data: SocketAddr,
    /// The gRPC port, as `--server` takes it.
    pub control: String,
    /// The operations port.
    pub operations: SocketAddr,
}

/// Why there is no listening socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A port cannot be listened on.
    #[error("cannot listen on {address}; is another program there? Change `{key}`")]
    Bind {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: String,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The service manager and the file differ.
    #[error(
        "the service manager listens on {0:?}, of which the file says nothing; write the same \
         addresses as `listen`, `control` and `operations`"
    )]
    Unasked(Vec<String>),
}

impl Listeners {
    /// Opens the sockets, inside a tokio runtime; those that were passed are used where the file
    /// has them.
    ///
    /// # Errors
    /// When one cannot be opened, or the service manager passed one that the file does not have.
    pub fn open(config: &Config, passed: &mut Passed) -> Result<Self, ListenError> {
        let failed = |key: &'static str, address: SocketAddr| {
            move |error| ListenError::Bind { key, address: address.to_string(), error }
        };
        let data = tcp(config.listen, passed.tcp(Port::Data, config.listen))
            .map_err(failed("listen", config.listen))?;
        let operations = tcp(config.operations, passed.tcp(Port::Operations, config.operations))
            .map_err(failed("operations", config.operations))?;
        let (control, control_address) = bind(&config.control, passed).map_err(|error| {
            let address = format!("{:?}", config.control);
            ListenError::Bind { key: "control", address, error }
        })?;
        let left = passed.left();
        if !left.is_empty() {
            if !passed.are_a_predecessors() {
                return Err(ListenError::Unasked(left));
            }
            tracing::info!(?left, "the file has other addresses than the predecessor");
        }
        let addresses = Addresses {
            data: data.local_addr().unwrap_or(config.listen),
            control: control_address,
            operations: operations.local_addr().unwrap_or(config.operations),
        };
        Ok(Self { data, control, operations, addresses })
    }
}

/// A socket that was passed, or a new one.
fn tcp(address: SocketAddr, passed: Option<std::net::TcpListener>) -> io::Result<TcpListener> {
    let Some(listener) = passed else { return listen(address) };
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
