//! `WatchRollout`: what a watcher is sent, as long as it reads.

use std::time::Duration;

use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time,
};
use tonic::Status;

use super::{convert, errors, proto, request::Which};
use crate::controller::Handle;
use crate::tasks::Stop;

/// Most watchers at a time.
pub(super) const WATCHERS_MAX: usize = 64;
/// A watcher hears something at least this often.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A watcher that takes nothing for so long is cut off.
const SEND_WAIT: Duration = Duration::from_secs(30);

type Out = mpsc::Sender<Result<proto::WatchRolloutResponse, Status>>;

/// The watcher is gone, or might as well be.
struct Gone;

/// Sends the current value, then every change, until somebody leaves.
pub(super) async fn pump(handle: Handle, which: Which, out: Out, mut stop: Stop) {
    let left = tokio::select! {
        result = follow(&handle, &which, &out) => result,
        () = out.closed() => Err(Gone),
        () = stop.wait() => Ok(()),
    };
    if left.is_ok() {
        // Best effort: the connection closes either way.
        let _ = out.try_send(Err(errors::stopping()));
    }
}

async fn follow(handle: &Handle, which: &Which, out: &Out) -> Result<(), Gone> {
    // Subscribed first, so that no change falls between the current value and the first one.
    let mut changes = handle.changes();
    send_current(handle, which, out).await?;
    let mut heart = time::interval(HEARTBEAT);
    heart.reset();
    loop {
        tokio::select! {
            _ = heart.tick() => send(out, proto::WatchRolloutResponse::default()).await?,
            change = changes.recv() => match change {
                Ok(change) if which.includes(&change.record.rollout) => {
                    let plan = change.view.rollout.plan();
                    send(out, proto::WatchRolloutResponse {
                        rollout: Some(convert::rollout(&change.view)),
                        event: Some(convert::event(&change.record, Some(plan))),
                    }).await?;
                    heart.reset();
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => send_current(handle, which, out).await?,
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}

async fn send_current(handle: &Handle, which: &Which, out: &Out) -> Result<(), Gone> {
    let views = handle.views();
    for view in views.rollouts.iter().filter(|it| which.includes(it.rollout.name())) {
        let rollout = Some(convert::rollout(view));
        send(out, proto::WatchRolloutResponse { rollout, event: None }).await?;
    }
    Ok(())
}

async fn send(out: &Out, answer: proto::WatchRolloutResponse) -> Result<(), Gone> {
    let sent = time::timeout(SEND_WAIT, out.send(Ok(answer))).await;
    sent.map_err(|_| Gone)?.map_err(|_| Gone)
}
