//! Work whose panics are counted, and hurt nobody else.

use std::{
    future::{Future, poll_fn},
    panic::{self, AssertUnwindSafe},
    sync::atomic::{AtomicU64, Ordering},
    task::Poll,
};

/// Panics since the start: each is a defect, and cost the one who waited for that work.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

static PANICS: AtomicU64 = AtomicU64::new(0);

fn panicked(name: &'static str) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    tracing::error!(task = name, "side work panicked; nobody else is affected");
}

/// Runs work to its end, or to its panic: then there is none of what it would have answered.
///
/// The work stays where it is put once: whoever held it by value would have room for it twice, and
/// move all of that wherever it goes itself.
pub fn caught<T>(
    name: &'static str,
    work: impl Future<Output = T>,
) -> impl Future<Output = Option<T>> {
    let mut work = Box::pin(work);
    poll_fn(move |context| {
        // What a panic leaves half done is dropped with the work, and locks say when they saw one.
        let polled = panic::catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            failpoint::pass(name);
            work.as_mut().poll(context)
        }));
        polled.map_or_else(
            |_| {
                panicked(name);
                Poll::Ready(None)
            },
            |it| it.map(Some),
        )
    })
}

/// Runs work whose number is limited by its own caller, such as a connection.
pub fn spawn(name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    #[expect(clippy::disallowed_methods, reason = "the one home of spawning")]
    drop(tokio::spawn(caught(name, work)));
}

/// Defects that tests want.
#[cfg(test)]
pub(crate) mod failpoint {
    use std::cell::Cell;

    thread_local! {
        static FAILS: Cell<&'static str> = const { Cell::new("") };
    }

    /// All work of this name panics from here on, in this thread.
    pub(crate) fn set(name: &'static str) {
        FAILS.set(name);
    }

    pub(super) fn pass(name: &str) {
        assert!(name != FAILS.get(), "a defect, as wanted");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time;

    use super::*;
    use crate::tasks::Pool;

    #[tokio::test]
    async fn b09_a_panic_is_counted_and_costs_nobody_else_anything() {
        let (before, pool) = (panics(), Pool::new(1));
        assert_eq!(caught("answer", async { 7 }).await, Some(7));
        let fails = async {
            time::sleep(Duration::from_millis(1)).await;
            panic!("a defect");
        };
        assert_eq!(caught::<u8>("answer", fails).await, None);
        Pool::run(pool.try_enter().unwrap(), "copy", async { panic!("another") });
        pool.emptied().await;
        while panics() < before + 2 {
            tokio::task::yield_now().await;
        }
        assert!(pool.try_enter().is_some(), "its place is free again");
    }
}
