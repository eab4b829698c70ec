//! Places for side work.

use std::{future::Future, sync::Arc};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::spawn;

/// Places for short side work: never more at a time than its limit, and none is waited for.
#[derive(Clone, Debug)]
pub struct Pool {
    places: Arc<Semaphore>,
    given_back: Arc<Notify>,
    len_max: usize,
}

/// A place in a [`Pool`]; given back when dropped.
#[derive(Debug)]
pub struct Place(Option<OwnedSemaphorePermit>, Arc<Notify>);

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.0.take());
        self.1.notify_waiters();
    }
}

impl Pool {
    /// A pool with so many places.
    pub fn new(len_max: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(len_max)), given_back: Arc::default(), len_max }
    }

    /// Takes a place if one is free.
    pub fn try_enter(&self) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Place(Some(permit), Arc::clone(&self.given_back)))
    }

    /// Takes a place if one is free beside so many that are left to others.
    pub fn try_enter_beside(&self, others: usize) -> Option<Place> {
        (others < self.places.available_permits()).then(|| self.try_enter())?
    }

    /// Waits until every place is free. It takes none itself: who comes meanwhile has one.
    pub async fn emptied(&self) {
        loop {
            let given_back = self.given_back.notified();
            if self.busy() == 0 {
                return;
            }
            given_back.await;
        }
    }

    /// Places there are.
    pub fn len_max(&self) -> usize {
        self.len_max
    }

    /// Places taken now.
    pub fn busy(&self) -> usize {
        self.len_max.saturating_sub(self.places.available_permits())
    }

    /// Runs side work in its place, apart from whoever asked. A panic in it is logged and hurts nobody.
    pub fn run(place: Place, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        spawn(name, async move {
            let _place = place;
            work.await;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_place_is_waited_for_until_it_is_free() {
        let pool = Pool::new(3);
        let place = pool.try_enter().unwrap();
        let waits = time::timeout(Duration::from_secs(1), pool.emptied());
        waits.await.unwrap_err();
        drop(place);
        pool.emptied().await;
    }

    #[tokio::test]
    async fn who_waits_until_all_are_free_takes_none() {
        let pool = Pool::new(3);
        let first = pool.try_enter().unwrap();
        let waits = async {
            tokio::select! {
                biased;
                () = pool.emptied() => panic!("one is taken"),
                () = time::sleep(Duration::from_millis(1)) => {}
            }
        };
        let enters = async {
            tokio::task::yield_now().await;
            pool.try_enter_beside(1)
        };
        let ((), second) = tokio::join!(waits, enters);
        drop(first);
        assert_eq!(pool.busy(), 1);
        drop(second.expect("there are places"));
        pool.emptied().await;
    }
}
