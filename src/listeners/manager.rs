//! What the service manager passes and is told: systemd's sockets, readiness and watchdog.
//!
//! Without one nothing is passed, and telling does nothing.

use std::{env, io, os::fd::OwnedFd, process};

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::time;

use crate::tasks::{BoxError, Stop};

use super::passed::{Passed, Port};

/// The sockets of the socket units. To be called once, before there are threads.
///
/// # Errors
/// When something else than a listening stream socket was passed.
pub fn passed() -> io::Result<Passed> {
    let names = env::var_os("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.to_string_lossy();
    let mut names = names.split(':');
    let (mut descriptors, mut passed) = (ListenFd::from_env(), Passed::default());
    for index in 0..descriptors.len() {
        let socket = match descriptors.take_tcp_listener(index) {
            Ok(socket) => socket.map(OwnedFd::from),
            Err(_) => descriptors.take_unix_listener(index)?.map(OwnedFd::from),
        };
        let port = names.next().and_then(Port::named);
        if let Some(socket) = socket {
            passed.add(port, socket)?;
        }
    }
    Ok(passed)
}

/// Says that callers are served, and by which process.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::MainPid(process::id())]);
}

/// Says that the program is about to end.
pub fn leaving() {
    tell(&[NotifyState::Stopping]);
}

/// Says again and again that the program lives, if somebody wants to hear it.
///
/// # Errors
/// None of its own.
pub async fn watchdog(mut stop: Stop) -> Result<(), BoxError> {
    if let Some(period) = sd_notify::watchdog_enabled().filter(|it| !it.is_zero()) {
        let mut beat = time::interval(period / 2);
        loop {
            tokio::select! {
                () = stop.wait() => return Ok(()),
                _ = beat.tick() => tell(&[NotifyState::Watchdog]),
            }
        }
    }
    stop.wait().await;
    Ok(())
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
