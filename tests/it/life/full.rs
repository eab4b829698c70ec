//! A disk that is full, or a folder that may not be written: callers are served at once.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use crossfade::players::Delivery;
use tokio::time::timeout;

use super::by_shell;
use crate::world::{Serve, World, rollout, until};

/// No file can grow, as on a full disk; the signal that comes with it is not the disk's.
const FULL: &str = "trap '' XFSZ; ulimit -f 0";
/// Nobody may write where the folder's mode forbids it, not even root.
const BOUND: &str = "[ $(id -u) != 0 ] || exec setpriv --bounding-set=-all \"$0\" \"$@\"";

/// How long callers may wait that a store is in trouble, on a machine that is busy.
const AT_ONCE: Duration = Duration::from_secs(10);

async fn is_served_at_once(world: &World, first: &str) -> Serve {
    let config = world.dir.path().join("crossfade.toml");
    let begun = async {
        let serve = Serve::begin(by_shell(first, &config)).await;
        assert_eq!(serve.chat(world.body(1, Delivery::Whole), &[]).await.status, 200);
        serve
    };
    timeout(AT_ONCE, begun).await.expect("callers wait for the store")
}

/// C4
#[tokio::test]
async fn b34_with_a_full_disk_or_a_store_that_may_not_be_written_callers_are_served_at_once() {
    for (first, mode) in [(FULL, 0o755), (BOUND, 0o555)] {
        let world = World::new().await;
        let (config, store) =
            (world.dir.path().join("crossfade.toml"), world.dir.path().join("store"));
        fs::write(&config, world.config(&rollout("100%", "100%"))).unwrap();
        fs::create_dir(&store).unwrap();
        fs::set_permissions(&store, Permissions::from_mode(mode)).unwrap();
        let serve = is_served_at_once(&world, first).await;
        until("readiness says so", || async {
            let ready = serve.page("/readyz").await;
            ready.contains("\"degraded\"") && ready.contains("journal")
        })
        .await;
        let answer = serve.chat(world.body(2, Delivery::Whole), &[]).await;
        assert_eq!((answer.status, answer.header("x-crossfade-provider")), (200, "primary"));
        let (code, text) = serve.cli(&["start", "chat"]).await;
        assert!(code != 0 && text.contains("not possible now"), "{code}: {text}");
        assert!(serve.stop().await.success());
    }
}

/// C5
#[tokio::test]
async fn b34_a_disk_that_is_full_at_a_start_costs_control_until_it_is_not() {
    let world = World::new().await;
    let serve = world.serve(&rollout("100%", "100%")).await;
    let answered_by = async |serve: &Serve, provider: &str| {
        let answer = serve.chat(world.body(2, Delivery::Whole), &[]).await;
        assert_eq!(answer.status, 200);
        answer.header("x-crossfade-provider") == provider
    };
    until("the candidate serves", || answered_by(&serve, "candidate")).await;
    assert!(serve.stop().await.success());

    let serve = is_served_at_once(&world, FULL).await;
    until("readiness says so", || async {
        serve.page("/readyz").await.contains("could not renew")
    })
    .await;
    assert!(answered_by(&serve, "primary").await);
    let (code, text) = serve.cli(&["rollback", "chat"]).await;
    assert!(code != 0 && text.contains("not possible now"), "{code}: {text}");
    assert!(serve.stop().await.success());

    let serve = is_served_at_once(&world, ":").await;
    until("it goes on where it stood", || answered_by(&serve, "candidate")).await;
}
