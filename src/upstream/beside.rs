//! Two pieces of work in one task, each of which runs when it has something to do.

use std::{
    future::{Future, poll_fn},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicU8,
            Ordering::{AcqRel, Acquire},
        },
    },
    task::{Context, Poll, Wake, Waker},
};

/// How often they call each other before other tasks have their turn.
const TURNS_MAX: u32 = 16;

/// Who has something to do, or is at it.
const MAIN: u8 = 1;
const SIDE: u8 = 2;
const AWAKE: u8 = 4;

struct Bells {
    rung: AtomicU8,
    task: Mutex<Waker>,
}

struct Bell {
    bells: Arc<Bells>,
    whose: u8,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Who is awake looks again; who was rung for before has been woken for it.
        if self.bells.rung.fetch_or(self.whose, AcqRel) == 0 {
            self.bells.task.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
        }
    }
}

/// Runs `main` to its end and, in the same task, `side` whenever it is woken. What one does for the
/// other costs no way through the scheduler.
pub(super) fn beside<F: Future>(
    main: F,
    side: impl Fn(&mut Context<'_>),
) -> impl Future<Output = F::Output> {
    let mut main = Box::pin(main);
    let (rung, task) = (AtomicU8::new(MAIN | SIDE), Mutex::new(Waker::noop().clone()));
    let bells = Arc::new(Bells { rung, task });
    let waker = |whose| Waker::from(Arc::new(Bell { bells: Arc::clone(&bells), whose }));
    let (main_waker, side_waker) = (waker(MAIN), waker(SIDE));
    poll_fn(move |context| {
        bells.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(context.waker());
        bells.rung.fetch_or(AWAKE, AcqRel);
        for _ in 0..TURNS_MAX {
            let rung = bells.rung.fetch_and(AWAKE, AcqRel);
            if rung & SIDE != 0 {
                side(&mut Context::from_waker(&side_waker));
            }
            if rung & MAIN != 0
                && let Poll::Ready(output) =
                    main.as_mut().poll(&mut Context::from_waker(&main_waker))
            {
                return Poll::Ready(output);
            }
            if bells.rung.compare_exchange(AWAKE, 0, AcqRel, Acquire).is_ok() {
                return Poll::Pending;
            }
        }
        bells.rung.fetch_and(!AWAKE, AcqRel);
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    #[tokio::test]
    async fn both_go_on_until_the_first_has_ended() {
        let (asks, asked) = mpsc::channel::<oneshot::Sender<u32>>(1);
        let (asked, turns) = (Mutex::new(asked), Cell::new(0));
        let main = async {
            let mut sum = 0;
            for _ in 0..1_000 {
                let (answer, answered) = oneshot::channel();
                asks.send(answer).await.unwrap();
                sum += answered.await.unwrap();
                tokio::task::yield_now().await;
            }
            sum
        };
        let sum = beside(main, |context| {
            turns.set(turns.get() + 1);
            while let Poll::Ready(Some(answer)) = asked.lock().unwrap().poll_recv(context) {
                answer.send(2).unwrap();
            }
        });
        assert_eq!(sum.await, 2_000);
        assert!(1_000 <= turns.get() && turns.get() < 2_500, "{}", turns.get());
    }

    #[tokio::test]
    async fn who_is_always_busy_lets_others_have_their_turn() {
        let (done, mut is_done) = oneshot::channel::<()>();
        let busy = poll_fn(|context| {
            context.waker().wake_by_ref();
            is_done.try_recv().map_or(Poll::Pending, Poll::Ready)
        });
        let other = async {
            tokio::task::yield_now().await;
            done.send(()).unwrap();
        };
        tokio::join!(beside(busy, |_| {}), other);
    }
}
