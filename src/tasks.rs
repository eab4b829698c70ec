//! Starting, watching and stopping work: long-lived tasks by name, side work within limits.

mod caught;
mod pool;

pub use caught::{caught, panics, spawn};
pub use pool::{Place, Pool};

#[cfg(test)]
pub(crate) use caught::failpoint;

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time,
};

/// The long-lived tasks of the program, by name.
///
/// Those that serve may not end before they are told to: the first that does stops all the others.
/// What ends beside them costs nobody anything, and is shown as long as the program runs.
#[derive(Debug)]
pub struct Tasks {
    losses: Losses,
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

/// What ended before its time beside those who serve, and why. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Losses(Arc<Mutex<Vec<String>>>);

impl Losses {
    /// One sentence for each, the first one first.
    pub fn list(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of one, in the log too.
    pub fn add(&self, name: &str, how: &str) {
        tracing::error!(task = name, how, "callers are served on; start the program again");
        let text = format!("`{name}` {how}: see the log, and start the program again");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
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
    /// All stopped as they were told to, but these had ended before.
    #[error("{}", .0.join("; "))]
    Lost(Vec<String>),
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

    fn is_stopping(&self) -> bool {
        self.0.borrow().stops
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
            losses: Losses::default(),
            first: JoinSet::new(),
            stop: Phases(watch::Sender::default()),
            last: JoinSet::new(),
            stop_last: Phases(watch::Sender::default()),
        }
    }
}

impl Tasks {
    /// Starts a task that serves. It must end soon after [`Stop::wait`] returns, and not before.
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

    /// Starts a task that those who serve can do without: however it ends, they go on.
    pub fn start_beside<F>(&mut self, name: &'static str, task: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let losses = self.losses();
        self.start(name, |stop| beside(name, task(stop.clone()), (stop, losses)));
    }

    /// The same, told to stop as [`start_last`](Self::start_last) says.
    pub fn start_beside_last<F>(&mut self, name: &'static str, task: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let losses = self.losses();
        self.start_last(name, |stop| beside(name, task(stop.clone()), (stop, losses)));
    }

    /// What has ended before its time.
    pub fn losses(&self) -> Losses {
        self.losses.clone()
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
        let early = self.losses.list();
        let whole = if early.is_empty() { Ok(()) } else { Err(Ended::Lost(early)) };
        began.and(first).and(last).and(whole)
    }
}

/// Runs a task to its end; where that comes too early, shows it and waits until it is time.
async fn beside(
    name: &'static str,
    task: impl Future<Output = Result<(), BoxError>>,
    (mut stop, losses): (Stop, Losses),
) -> Result<(), BoxError> {
    let how = match caught(name, task).await {
        Some(ended) if stop.is_stopping() => return ended,
        Some(Ok(())) => "ended early".to_owned(),
        Some(Err(error)) => format!("failed ({})", describe(error.as_ref())),
        None => "panicked".to_owned(),
    };
    losses.add(name, &how);
    stop.wait().await;
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    async fn until_stopped(mut stop: Stop) -> Result<(), BoxError> {
        stop.wait().await;
        Ok(())
    }

    #[tokio::test]
    async fn who_waits_for_an_empty_pool_takes_no_place_of_it() {
        let pool = Pool::new(2);
        let first = pool.try_enter().unwrap();
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.emptied().await }
        });
        tokio::task::yield_now().await;
        let second = pool.try_enter().unwrap();
        assert!(pool.try_enter().is_none());
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        time::timeout(GRACE, waiting).await.unwrap().unwrap();
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

    #[tokio::test(start_paused = true)]
    async fn what_ends_beside_those_who_serve_is_shown_and_stops_nobody() {
        let mut tasks = Tasks::default();
        tasks.start("proxy", until_stopped);
        tasks.start_beside("judge", |_| async { panic!("bug") });
        tasks.start_beside_last("survey", |_| async { Err("disk full".into()) });
        tasks.start_beside("health checks", |_| async { Ok(()) });
        let losses = tasks.losses();
        let ended = tasks.run(time::sleep(Duration::from_secs(9)), GRACE).await.unwrap_err();
        assert!(matches!(ended, Ended::Lost(it) if it == losses.list()));
        let mut lost = losses.list();
        lost.sort();
        assert!(lost[0].starts_with("`health checks` ended early: "), "{lost:?}");
        assert!(lost[1].starts_with("`judge` panicked: "), "{lost:?}");
        assert!(lost[2].starts_with("`survey` failed (disk full): "), "{lost:?}");
        assert_eq!(lost.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_will_not_stop_is_reported() {
        let mut tasks = Tasks::default();
        tasks.start("stuck", |_| pending());
        assert!(matches!(tasks.run(async {}, GRACE).await, Err(Ended::Late(1))));
    }
}
