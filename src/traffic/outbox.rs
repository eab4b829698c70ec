//! The one way to the controller: everything gets its place and time as it is handed over.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::sync::mpsc;

use super::lock;
use crate::clock::Clock;
use crate::domain::{Order, Seen, Timestamp, Told, Window};

/// Windows with lost copies that the controller could not be told of at once. More are not
/// remembered; they still count as missing.
const UNTOLD_LEN_MAX: usize = 8_192;

/// Hands things to the controller, which takes them in the order of their places. Cheap to clone.
///
/// Whatever finds no room is dropped whole, whichever side it speaks of and however it went, so
/// that what is dropped says nothing about what is kept.
#[derive(Clone, Debug)]
pub struct Outbox {
    seen: mpsc::Sender<Seen>,
    line: Arc<Mutex<Line>>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Line {
    seq: u64,
    /// Copies that were lost while there was no room even for the news.
    untold: VecDeque<Window>,
}

impl Outbox {
    /// The way into this queue.
    pub fn new(seen: mpsc::Sender<Seen>, clock: Clock) -> Self {
        Self { seen, line: Arc::default(), clock }
    }

    /// What time it is for all that is handed over.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Goes on after a place that was given before a restart.
    pub fn resume(&self, seq: u64) {
        let mut line = lock(&self.line);
        line.seq = line.seq.max(seq);
    }

    /// Hands a thing over; its place, or none where there is no room. Never waits.
    pub fn offer(&self, seen: Seen) -> Option<Order> {
        let mut line = lock(&self.line);
        self.retell_from(&mut line);
        let room = self.seen.try_reserve().ok()?;
        Some(self.hand_over(&mut line, room, seen))
    }

    /// Hands a thing over once there is room. None is left when the controller has ended.
    pub async fn send(&self, seen: Seen) -> Option<Order> {
        let room = self.seen.reserve().await.ok()?;
        Some(self.hand_over(&mut lock(&self.line), room, seen))
    }

    /// Tells the controller of copies that were lost while there was no room.
    pub fn retell(&self) {
        self.retell_from(&mut lock(&self.line));
    }

    pub(super) fn copy_lost(&self, window: &Window) {
        let mut line = lock(&self.line);
        if line.untold.len() < UNTOLD_LEN_MAX {
            line.untold.push_back(window.clone());
        }
        self.retell_from(&mut line);
    }

    fn retell_from(&self, line: &mut Line) {
        while !line.untold.is_empty()
            && let Ok(room) = self.seen.try_reserve()
            && let Some(window) = line.untold.pop_front()
        {
            self.hand_over(line, room, Seen::note(&window, Told::CopyLost));
        }
    }

    /// Under the lock, so that places rise in the order in which things arrive.
    fn hand_over(&self, line: &mut Line, room: mpsc::Permit<'_, Seen>, mut seen: Seen) -> Order {
        line.seq += 1;
        let order = Order { seq: line.seq, at: self.clock.now() };
        seen.place(order);
        room.send(seen);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{Copies, Live};

    fn window() -> Window {
        Window { rollout: "chat".parse().unwrap(), attempt: 1, stage: 0 }
    }

    fn outbox(len: usize) -> (Outbox, mpsc::Receiver<Seen>) {
        let (seen, here) = mpsc::channel(len);
        (Outbox::new(seen, Clock::start()), here)
    }

    fn taken(here: &mut mpsc::Receiver<Seen>) -> Vec<(u64, Told)> {
        std::iter::from_fn(|| here.try_recv().ok())
            .filter_map(|it| match it {
                Seen::Note(note) => Some((note.order.seq, note.told)),
                Seen::Pair(_) | Seen::Score(_) | Seen::Review(_) => None,
            })
            .collect()
    }

    #[test]
    fn places_rise_as_things_arrive_whoever_hands_them_over() {
        let (outbox, mut here) = outbox(8_000);
        outbox.resume(41);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let outbox = outbox.clone();
                scope.spawn(move || {
                    for _ in 0..1_000 {
                        assert!(outbox.offer(Seen::note(&window(), Told::ScoreLost)).is_some());
                    }
                });
            }
        });
        let places: Vec<u64> = taken(&mut here).into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(places, (42..8_042).collect::<Vec<u64>>());
    }

    #[test]
    fn a_lost_copy_is_told_as_soon_as_there_is_room_and_an_excused_one_never() {
        let (outbox, mut here) = outbox(1);
        let copies = Arc::new(Copies::new(10, (0, 0)));
        let live = Arc::new(Live::new(copies));
        let due = || live.due(Clock::start().now(), &window(), &outbox).unwrap();
        assert!(outbox.offer(Seen::note(&window(), Told::ScoreLost)).is_some());
        due().excuse();
        due().paired();
        drop(due());
        drop(due());
        assert_eq!(live.coverage(), (3, 2));
        assert_eq!(taken(&mut here), [(1, Told::ScoreLost)]);
        outbox.retell();
        assert_eq!(taken(&mut here), [(2, Told::CopyLost)]);
        assert!(
            outbox.offer(Seen::note(&window(), Told::ScoreLost)).is_none(),
            "the lost one goes first"
        );
        assert_eq!(taken(&mut here), [(3, Told::CopyLost)]);
    }
}
