//! What the controller makes of the models that answers name.

use crate::controller::rig::{Rig, Store, by, name, plan, until};
use crate::domain::{Command, Order, Pair, Seen, Timestamp};
use crate::store::samples;

/// Tells of so many requests of which this model has answered the copy.
fn tell(rig: &Rig, store: &Store, model: &str, count: u64) {
    let view = rig.view("a");
    let batch = (0..count).map(|serial| {
        let mut pair: Pair = samples::pair("a", view.now.0, serial);
        (pair.window, pair.watched, pair.lot) =
            (view.rollout.window().unwrap(), String::new(), None);
        pair.candidate.model = Some(model.to_owned());
        pair.candidate.outcome = crate::domain::Outcome::Ok;
        let order: Option<Order> = rig.outbox.offer(Seen::Pair(Box::new(pair.clone())));
        pair.order = Some(order.unwrap());
        (pair, samples::bodies(""))
    });
    store.pairs.put_batch(&batch.collect::<Vec<_>>()).unwrap();
}

#[tokio::test]
async fn a_stage_begins_anew_where_another_model_answers_also_over_a_restart() {
    let store = Store::new();
    let rig = store.open(Timestamp(1_000_000_000)).await;
    rig.handle.create(name("a"), plan("a"), by("")).await.unwrap();
    rig.run("a", Command::Start).await.unwrap();
    tell(&rig, &store, "x-1", 250);
    until("all are heard", || rig.view("a").evidence.pairs == 250).await;
    tell(&rig, &store, "x-2", 199);
    until("all are heard", || rig.view("a").evidence.pairs == 449).await;
    assert_eq!(rig.told(1), ["a stage 0"]);
    tell(&rig, &store, "x-2", 1);
    until("it begins anew", || rig.told(1) == ["a Loosened"]).await;
    let view = rig.view("a");
    assert_eq!(view.evidence.pairs, 0);
    assert!(view.comment.contains("answers as \"x-2\" since"), "{}", view.comment);
    rig.end().await;

    let rig = store.open(Timestamp(2_000_000_000)).await;
    until("it is there", || rig.handle.view(&name("a")).is_ok()).await;
    // It is known that this one has answered before.
    tell(&rig, &store, "x-1", 200);
    until("all are heard", || rig.view("a").evidence.pairs == 200).await;
    assert_eq!(rig.told(1), ["a Loosened"]);
    tell(&rig, &store, "x-3", 200);
    until("it begins anew", || rig.view("a").comment.contains("\"x-3\"")).await;
    assert!(rig.view("a").comment.contains("before as \"x-1\""), "{}", rig.view("a").comment);
}
