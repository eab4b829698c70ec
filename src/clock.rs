//! The one clock: wall time at the start, monotonic time from there on.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    task::coop,
    time::{self, Sleep},
};

use crate::domain::Timestamp;

/// Tells the time. A wall clock that jumps moves no timer of ours. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: time::Instant,
    started_at: Timestamp,
}

impl Clock {
    /// Reads the wall clock, the only time that something is timed by it.
    pub fn start() -> Self {
        Self::at(wall())
    }

    /// One that begins at this time, whatever the wall clock says.
    pub(crate) fn at(started_at: Timestamp) -> Self {
        Self { started: time::Instant::now(), started_at }
    }

    /// How far the wall clock has run away from ours since the start, in milliseconds.
    pub fn wall_ahead_ms(&self) -> i64 {
        let signed = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
        signed(wall().0) - signed(self.now().0)
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.started_at.0 + millis(self.started.elapsed()))
    }
}

#[expect(clippy::disallowed_methods, reason = "the one home of the clock")]
fn wall() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp(millis(since_epoch))
}

/// Whole milliseconds of a duration.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since `from`, as calls keep them (49 days at most).
pub fn elapsed_ms(from: Instant) -> u32 {
    u32::try_from(from.elapsed().as_millis()).unwrap_or(u32::MAX)
}

/// A point to measure from.
#[expect(clippy::disallowed_methods, reason = "the one home of the clock")]
pub fn instant() -> Instant {
    Instant::now()
}

/// A timer that is set anew seldom, however often its time is put off, and costs little to ask.
#[derive(Debug, Default)]
pub struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom it wakes when it rings.
    wakes: Option<Waker>,
}

impl Alarm {
    /// Whether the time has come.
    pub fn poll(&mut self, at: time::Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(time::sleep_until(at)));
        if at < sleep.deadline() {
            sleep.as_mut().reset(at);
        }
        let is_set = self.wakes.as_ref().is_some_and(|it| it.will_wake(context.waker()));
        if is_set && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        self.wakes = None;
        loop {
            // Who has had its share of time is not heard, and asked again soon.
            let is_heard = coop::has_budget_remaining();
            if sleep.as_mut().poll(context).is_pending() {
                self.wakes = is_heard.then(|| context.waker().clone());
                return Poll::Pending;
            }
            if at <= sleep.deadline() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_alarm_rings_at_its_time_however_often_that_is_changed_and_asked_for() {
        let (began, seconds) = (time::Instant::now(), Duration::from_secs);
        let mut alarm = Alarm::default();
        let mut asked = 0;
        // Put off while it waits, as by a caller who is heard from now and then.
        poll_fn(|context| {
            asked += 1;
            alarm.poll(began + seconds(if asked < 3 { 10 } else { 25 }), context)
        })
        .await;
        assert_eq!((began.elapsed(), asked), (seconds(10), 2));
        poll_fn(|context| alarm.poll(began + seconds(25), context)).await;
        assert_eq!(began.elapsed(), seconds(25));
        // Set, and then wanted sooner.
        let later = poll_fn(|context| Poll::Ready(alarm.poll(began + seconds(90), context)));
        assert!(later.await.is_pending());
        poll_fn(|context| alarm.poll(began + seconds(40), context)).await;
        assert_eq!(began.elapsed(), seconds(40));
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_wakes_who_asked_last_also_one_who_had_no_time_left() {
        let (began, second) = (time::Instant::now(), Duration::from_secs(1));
        let mut alarm = Alarm::default();
        let mut elsewhere = Context::from_waker(Waker::noop());
        assert!(alarm.poll(began + second, &mut elsewhere).is_pending());
        poll_fn(|context| alarm.poll(began + second, context)).await;
        assert_eq!(began.elapsed(), second);
        let mut alarm = Alarm::default();
        let busy = async {
            while coop::has_budget_remaining() {
                coop::consume_budget().await;
            }
            poll_fn(|context| alarm.poll(began + second * 2, context)).await;
        };
        time::timeout(second * 9, busy).await.unwrap();
        assert_eq!(began.elapsed(), second * 2);
    }
}
