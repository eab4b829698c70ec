//! Keeping what the surveyor counted, so that a restart goes on with it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::sleep};

use crate::store::Pairs;
use crate::tasks::{BoxError, Stop};
use crate::traffic::{Surveyor, usage};

/// How often it is kept; a crash loses no more.
const KEEP_EVERY: Duration = Duration::from_mins(1);
/// How often the store is looked for, until it is open.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Keeps what was counted until told to stop, and once more then.
pub(super) async fn keep(
    surveyor: Arc<Surveyor>,
    store: Arc<OnceLock<Pairs>>,
    mut stop: Stop,
) -> Result<(), BoxError> {
    let mut stops = false;
    while store.get().is_none() && !stops {
        stops = waited(&mut stop, STORE_PAUSE).await;
    }
    let Some(pairs) = store.get().cloned() else { return Ok(()) };
    let (resumed, kept) = (Arc::clone(&surveyor), pairs.clone());
    spawn_blocking(move || resume(&resumed, &kept)).await?;
    loop {
        stops = stops || waited(&mut stop, KEEP_EVERY).await;
        if let Some((day, counts)) = surveyor.changed() {
            let pairs = pairs.clone();
            // It is handed to the disk with the pairs, the last time when the recorder ends.
            let kept = spawn_blocking(move || pairs.keep(&usage::key(day), &counts));
            if let Err(error) = kept.await? {
                tracing::warn!(%error, "what `crossfade audit` tells of today is not kept");
            }
        }
        if stops {
            return Ok(());
        }
    }
}

/// Lets a time pass; whether it was time to stop before.
async fn waited(stop: &mut Stop, time: Duration) -> bool {
    tokio::select! {
        () = stop.wait() => true,
        () = sleep(time) => false,
    }
}

/// Goes on with the day that it is.
fn resume(surveyor: &Surveyor, pairs: &Pairs) {
    let day = surveyor.now().day();
    if let Some(kept) = pairs.kept(&usage::key(day))
        && !surveyor.resume(day, &kept)
    {
        tracing::warn!("what was counted of today before cannot be read; it begins anew");
    }
}
