//! Asking the primary a second time, to know how much it differs from itself.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::domain::{Seen, Side, Skip, Told};
use crate::tasks;
use crate::telemetry::{Loss, Role};
use crate::traffic::Reserved;

use super::{
    Proxy,
    checks::compare_halves,
    mirror::{Served, coding},
    redact::keys,
    serve::{Exchange, Use},
    tee::{Done, Taken},
};

/// Where the answer that the caller gets is awaited, if its request is asked twice.
pub(super) type Again = Option<oneshot::Sender<Taken>>;

impl Proxy {
    /// Begins to ask the primary a second time, if a lot drew the request and the day and the pool
    /// have room. It is a copy like every other, but nothing is missing if there is none.
    pub(super) fn again(self: &Arc<Self>, exchange: &Arc<Exchange>, answer_to: &Use) -> Again {
        let heard = match answer_to {
            Use::Pair(_) | Use::Solo(_) => true,
            // Of such an answer nothing is kept.
            Use::Nothing => false,
        };
        if !exchange.routed.route.again || !heard {
            return None;
        }
        let begun = self.ask_again(exchange);
        let _ = exchange.routed.again.set(begun.as_ref().map(drop).map_err(|skip| *skip));
        begun.ok()
    }

    fn ask_again(
        self: &Arc<Self>,
        exchange: &Arc<Exchange>,
    ) -> Result<oneshot::Sender<Taken>, Skip> {
        let (room, under_way) = self.room(exchange)?;
        let reserved = self.afford(exchange, Side::Primary)?;
        if !exchange.live.copies().take(self.clock.now()) {
            reserved.settle(Some(0));
            return Err(Skip::DailyCap);
        }
        let (sender, served) = oneshot::channel();
        let (proxy, exchange) = (Arc::clone(self), Arc::clone(exchange));
        tasks::spawn("noise", async move {
            let (again, served) = proxy.meet(&exchange, Side::Primary, room, served).await;
            proxy.tell_noise(&exchange, (&again, reserved), served);
            drop(under_way);
        });
        Ok(sender)
    }

    /// Two calls of the primary for one request: to the controller.
    fn tell_noise(
        &self,
        exchange: &Exchange,
        (again, reserved): (&Taken, Reserved),
        served: Served,
    ) {
        let keys = keys(exchange);
        let (other, mut again) = (again, self.half(exchange, again, &keys));
        // The other one is counted where it is served.
        self.count(&again.call, Role::Mirror);
        self.paid(exchange, reserved, &again.call);
        let Some(window) = exchange.lane.window.as_ref() else { return };
        let served = match served {
            Served::Here(served) => served,
            Served::Gone => return self.metrics.loss(Loss::CallerGone),
            Served::Late | Served::Closed => return,
        };
        let lost = self.lost(&served, other);
        let mut served = self.half(exchange, &served, &keys);
        if let Some(loss) = lost.or_else(|| coding(&served.call, &again.call)) {
            return self.metrics.loss(loss);
        }
        compare_halves(exchange, &mut served, &mut again);
        let (served, again) = (Box::new(served.call), Box::new(again.call));
        let told = Told::Noise { served, again, watched: exchange.watched() };
        if self.outbox.offer(Seen::note(window, told)).is_none() {
            self.metrics.loss(Loss::ControllerFull);
        }
    }
}

/// Lets `again` have the answer too, before `done` gets it.
pub(super) fn heard_by(again: Again, done: Done) -> Done {
    let Some(again) = again else { return done };
    Box::new(move |taken| {
        // Nobody listens any more where the rollout went back.
        let _ = again.send(taken.clone());
        done(taken);
    })
}
