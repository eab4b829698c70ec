//! Keeping what the surveyor counted, so that a restart goes on with it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::sleep};

use crate::store::{Pairs, usage_key};
use crate::tasks::{BoxError, Stop};
use crate::traffic::Surveyor;

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
    loop {
        stops = stops || waited(&mut stop, KEEP_EVERY).await;
        let (surveyor, pairs) = (Arc::clone(&surveyor), pairs.clone());
        // It is handed to the disk with the pairs, the last time when the recorder ends.
        spawn_blocking(move || keep_days(&surveyor, &pairs)).await?;
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

/// Keeps each day that has news, with what was kept of it before.
fn keep_days(surveyor: &Surveyor, pairs: &Pairs) {
    for (day, is_whole) in surveyor.unkept() {
        let key = usage_key(day);
        if !is_whole && !surveyor.resume(day, pairs.kept(&key).as_deref()) {
            tracing::warn!(day, "what was counted of a day before cannot be read; it begins anew");
        }
        let Some((counts, news)) = surveyor.to_keep(day) else { continue };
        match pairs.keep(&key, &counts) {
            Ok(()) => surveyor.kept(day, news),
            Err(error) => tracing::warn!(day, %error, "what `crossfade audit` tells is not kept"),
        }
    }
}
