//! Starting, watching and stopping work: long-lived tasks by name, side work within limits.

mod pool;

pub use pool::{Place, Pool};

use std::{
    future::{Future, poll_fn},
    panic::{self, AssertUnwindSafe},
    sync::atomic::{AtomicU64, Ordering},
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time,
};

/// The long-lived tasks of the program, by name.
///
/// None may end before it is told to: a task that returns early, fails or
/// panics stops all the others, so the process never runs half alive.
#[derive(Debug)]
pub struct Tasks {
    first: Group,
    stop: Phases,
    /// Tasks that are told to stop when the others have ended.
    last: Group,
    stop_last: Phases,
}

type Group = JoinSet<(&'static str, Result<(), BoxError>)>;

/// How long tasks that are told last may take to end.
const LAST_GRACE: Duration = Duration::from_secs(3);

/// Any error a task may end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Tells how far the end has come, and resolves when it is time to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Phase>);

/// How far the end of the program has come. What has begun never goes back.
#[derive(Clone, Copy, Debug, Default)]
struct Phase {
    /// Others are told to come no more.
    drains: bool,
    /// Another process serves on the same sockets.
    left: bool,
    /// It is time to stop.
    stops: bool,
}

/// Moves the program towards its end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Phases(watch::Sender<Phase>);

impl Phases {
    /// Others are told to come no more; whoever comes is served as ever.
    pub fn drain(&self) {
        self.0.send_modify(|it| it.drains = true);
    }

    /// Another process serves on the same sockets; this one takes nobody any more.
    pub fn leave(&self) {
        self.0.send_modify(|it| (it.drains, it.left) = (true, true));
    }

    fn stop(&self) {
        self.0.send_modify(|it| (it.drains, it.stops) = (true, true));
    }
}

/// Why the program ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// A task failed.
    #[error("task `{0}` failed")]
    Failed(&'static str, #[source] BoxError),
    /// A task returned although nobody asked it to.
    #[error("task `{0}` ended early")]
    Early(&'static str),
    /// A task panicked.
    #[error("a task panicked")]
    Panicked(#[from] JoinError),
    /// Tasks were still busy when the time was up.
    #[error("{0} tasks did not stop in time")]
    Late(usize),
}

impl Stop {
    /// Waits for the signal; returns at once when it was given before.
    pub async fn wait(&mut self) {
        self.until(|it| it.stops).await;
    }

    /// Waits until others are told to come no more.
    pub async fn draining(&mut self) {
        self.until(|it| it.drains).await;
    }

    /// Waits until another process serves on the same sockets; that may never be.
    pub async fn left(&mut self) {
        self.until(|it| it.left).await;
    }

    /// Waits until nobody is to be taken any more.
    pub async fn closing(&mut self) {
        self.until(|it| it.left || it.stops).await;
    }

    /// Whether others are told to come no more.
    pub fn is_draining(&self) -> bool {
        self.0.borrow().drains
    }

    /// Whether another process serves on the same sockets.
    pub fn has_left(&self) -> bool {
        self.0.borrow().left
    }

    async fn until(&mut self, holds: fn(&Phase) -> bool) {
        // The sender lives in `Tasks` until every task has ended, so an error
        // here also means: stop.
        let _ = self.0.wait_for(holds).await;
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            first: JoinSet::new(),
            stop: Phases(watch::Sender::default()),
            last: JoinSet::new(),
            stop_last: Phases(watch::Sender::default()),
        }
    }
}

impl Tasks {
    /// Starts a task. It must end soon after [`Stop::wait`] returns, and not before.
    pub fn start<F>(&mut self, name: &'static str, task: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let task = task(self.stop());
        self.first.spawn(async move { (name, task.await) });
    }

    /// Starts a task that is told to stop when all that [`start`](Self::start) began has ended,
    /// because it takes what those still bring.
    pub fn start_last<F>(&mut self, name: &'static str, task: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let task = task(Stop(self.stop_last.0.subscribe()));
        self.last.spawn(async move { (name, task.await) });
    }

    /// A signal for work that is not a task of its own.
    pub fn stop(&self) -> Stop {
        Stop(self.stop.0.subscribe())
    }

    /// What moves the tasks towards their end before they stop.
    pub fn phases(&self) -> Phases {
        self.stop.clone()
    }

    /// Runs until `signal`, or until a task ends by itself; then stops the rest, which has so
    /// long to end.
    ///
    /// # Errors
    /// The first thing that went wrong; what follows it is only its echo.
    pub async fn run(
        mut self,
        signal: impl Future<Output = ()>,
        grace: Duration,
    ) -> Result<(), Ended> {
        let began = tokio::select! {
            () = signal => Ok(()),
            Some(done) = self.first.join_next() => Err(early(done)),
            Some(done) = self.last.join_next() => Err(early(done)),
        };
        self.stop.stop();
        let first = drain(&mut self.first, grace).await;
        // Also after those that are late: what is told by the end is worth keeping.
        self.stop_last.stop();
        let last = drain(&mut self.last, LAST_GRACE).await;
        began.and(first).and(last)
    }
}

/// How a task ended.
type Done = Result<(&'static str, Result<(), BoxError>), JoinError>;

/// What it means that a task has ended by itself.
fn early(done: Done) -> Ended {
    match done {
        Ok((name, Ok(()))) => Ended::Early(name),
        Ok((name, Err(error))) => Ended::Failed(name, error),
        Err(error) => Ended::Panicked(error),
    }
}

/// Waits until all have ended.
async fn drain(group: &mut Group, grace: Duration) -> Result<(), Ended> {
    let ends = time::Instant::now() + grace;
    let mut result = Ok(());
    loop {
        let Ok(done) = time::timeout_at(ends, group.join_next()).await else {
            return result.and(Err(Ended::Late(group.len())));
        };
        let ended = match done {
            None => return result,
            Some(Ok((_, Ok(())))) => continue,
            Some(Ok((name, Err(error)))) => Ended::Failed(name, error),
            Some(Err(error)) => Ended::Panicked(error),
        };
        result = result.and(Err(ended));
    }
}

/// An error with its causes in one line, for the log.
pub fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(it) = cause {
        text.push_str(": ");
        text.push_str(&it.to_string());
        cause = it.source();
    }
    text
}

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
        let polled = panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
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

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    async fn until_stopped(mut stop: Stop) -> Result<(), BoxError> {
        stop.wait().await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_stops_everything() {
        let mut tasks = Tasks::default();
        tasks.start("proxy", until_stopped);
        tasks.start("controller", until_stopped);
        tasks.run(time::sleep(Duration::from_secs(9)), GRACE).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_ones_stop_when_the_first_have_ended() {
        let (mut tasks, pool) = (Tasks::default(), Pool::new(1));
        let place = pool.try_enter().unwrap();
        tasks.start("proxy", |mut stop| async move {
            stop.wait().await;
            time::sleep(Duration::from_secs(5)).await;
            drop(place);
            Ok(())
        });
        tasks.start_last("controller", |mut stop| async move {
            stop.wait().await;
            if pool.busy() == 0 { Ok(()) } else { Err("the proxy was not done".into()) }
        });
        tasks.run(time::sleep(Duration::from_secs(9)), GRACE).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_program_drains_and_leaves_before_it_stops() {
        let mut tasks = Tasks::default();
        let (phases, began) = (tasks.phases(), time::Instant::now());
        tasks.start("proxy", move |mut stop| async move {
            assert!(!stop.is_draining() && !stop.has_left());
            stop.draining().await;
            assert_eq!((began.elapsed().as_secs(), stop.has_left()), (1, false));
            stop.closing().await;
            assert_eq!((began.elapsed().as_secs(), stop.has_left()), (2, true));
            stop.left().await;
            stop.wait().await;
            assert_eq!(began.elapsed().as_secs(), 3);
            Ok(())
        });
        let ends = async move {
            let second = Duration::from_secs(1);
            time::sleep(second).await;
            phases.drain();
            time::sleep(second).await;
            phases.leave();
            time::sleep(second).await;
        };
        tasks.run(ends, GRACE).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_failure_stops_the_rest_and_is_named() {
        let mut tasks = Tasks::default();
        tasks.start("proxy", until_stopped);
        tasks.start("store", |_| async { Err("disk full".into()) });
        let ended = tasks.run(pending(), GRACE).await.unwrap_err();
        assert_eq!(ended.to_string(), "task `store` failed");
    }

    #[tokio::test(start_paused = true)]
    async fn an_early_return_or_a_panic_is_a_failure() {
        let mut tasks = Tasks::default();
        tasks.start("proxy", |_| async { Ok(()) });
        assert!(matches!(tasks.run(pending(), GRACE).await, Err(Ended::Early("proxy"))));

        let mut tasks = Tasks::default();
        tasks.start("judge", |_| async { panic!("bug") });
        assert!(matches!(tasks.run(pending(), GRACE).await, Err(Ended::Panicked(_))));
    }

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

    #[tokio::test(start_paused = true)]
    async fn a_task_that_will_not_stop_is_reported() {
        let mut tasks = Tasks::default();
        tasks.start("stuck", |_| pending());
        assert!(matches!(tasks.run(async {}, GRACE).await, Err(Ended::Late(1))));
    }
}
