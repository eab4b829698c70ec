//! The server: all services, health and reflection on one socket.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time;
use tonic::transport::{Server, server::Router};
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{
    DESCRIPTORS, PlanDefaults,
    flags::FlagsApi,
    guests::guests,
    pairs::Pairs,
    proto::{
        flag_service_server::FlagServiceServer, pair_service_server::PairServiceServer,
        rollout_service_server::RolloutServiceServer, usage_service_server::UsageServiceServer,
    },
    rollouts::Rollouts,
    usage::UsageApi,
};
use crate::controller::Handle;
use crate::listeners::{Arrivals, Listener};
use crate::tasks::{BoxError, Stop};

/// Most bytes of a request.
const REQUEST_LEN_MAX: usize = 4 << 20;
/// Most requests of one connection at a time.
const STREAMS_MAX: u32 = 128;
/// How often a silent connection is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long requests that run may take to end once the program stops.
pub const DRAIN: Duration = Duration::from_secs(3);

/// Serves the API until told to stop.
///
/// While there are no `pairs` everything but `PairService` works, and that says what is missing.
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    listener: Listener,
    handle: Handle,
    pairs: Arc<Pairs>,
    defaults: PlanDefaults,
    stop: Stop,
) -> Result<(), BoxError> {
    let health = HealthReporter::new();
    health.set_serving::<RolloutServiceServer<Rollouts>>().await;
    health.set_serving::<FlagServiceServer<FlagsApi>>().await;
    // Without a store it says so itself, until there is one.
    health.set_serving::<PairServiceServer<Pairs>>().await;
    health.set_serving::<UsageServiceServer<UsageApi>>().await;
    let flags =
        FlagServiceServer::new(FlagsApi(handle.clone())).max_decoding_message_size(REQUEST_LEN_MAX);
    let rollouts = RolloutServiceServer::new(Rollouts::new(handle, defaults, stop.clone()))
        .max_decoding_message_size(REQUEST_LEN_MAX);
    let router = router(&health, Arc::clone(&pairs))?.add_service(rollouts).add_service(flags);
    tokio::select! {
        served = listen(listener, router, announce(stop.clone(), health), stop) => served,
        () = pairs.settle() => Ok(()),
    }
}

async fn listen(
    listener: Listener,
    router: Router,
    signal: impl Future<Output = ()>,
    stop: Stop,
) -> Result<(), BoxError> {
    match listener {
        Listener::Tcp(socket) => {
            let incoming = guests(Arrivals::tcp("control", socket));
            drained(router.serve_with_incoming_shutdown(incoming, signal), stop).await
        }
        Listener::Unix(socket, file) => {
            let incoming = guests(Arrivals::unix("control", socket));
            let life = stop.clone();
            let ended = drained(router.serve_with_incoming_shutdown(incoming, signal), stop).await;
            if life.has_left() {
                file.leave();
            }
            ended
        }
    }
}

/// Everything that needs no controller.
fn router(health: &HealthReporter, pairs: Arc<Pairs>) -> Result<Router, BoxError> {
    let health = tonic_health::pb::health_server::HealthServer::new(
        tonic_health::server::HealthService::from_health_reporter(health.clone()),
    );
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let usage = UsageServiceServer::new(UsageApi(pairs.store.clone()));
    let pairs = PairServiceServer::from_arc(pairs);
    Ok(Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        // Many clients, the Python one among them, ask for the version before.
        .add_service(reflection().build_v1alpha()?)
        .add_service(pairs.max_decoding_message_size(REQUEST_LEN_MAX))
        .add_service(usage.max_decoding_message_size(REQUEST_LEN_MAX)))
}

/// Resolves when it is time to stop, after those who watch the health were told.
async fn announce(mut stop: Stop, health: HealthReporter) {
    stop.wait().await;
    health.set_service_status("", ServingStatus::NotServing).await;
    health.set_not_serving::<RolloutServiceServer<Rollouts>>().await;
    health.set_not_serving::<FlagServiceServer<FlagsApi>>().await;
    health.set_not_serving::<PairServiceServer<Pairs>>().await;
    health.set_not_serving::<UsageServiceServer<UsageApi>>().await;
}

/// Lets a server end in peace, but not for ever: whoever watches the health never leaves.
async fn drained<E: Into<BoxError>>(
    serving: impl Future<Output = Result<(), E>>,
    mut stop: Stop,
) -> Result<(), BoxError> {
    let late = async {
        stop.wait().await;
        time::sleep(DRAIN).await;
    };
    tokio::select! {
        result = serving => result.map_err(Into::into),
        () = late => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };

    use super::*;
    use crate::api::{Caller, Client, FailureKind, Past, proto};
    use crate::config::Control;
    use crate::listeners::{Passed, bind};
    use crate::tasks::Tasks;

    /// Serves what needs no controller until the tasks are stopped.
    async fn served(control: &Control, tasks: &mut Tasks) -> String {
        let (listener, address) = bind(control, &mut Passed::default()).unwrap();
        let health = HealthReporter::new();
        health.set_not_serving::<PairServiceServer<Pairs>>().await;
        let router = router(&health, Arc::new(Pairs::new(Past::none().await))).unwrap();
        tasks.start("api", |stop| listen(listener, router, announce(stop.clone(), health), stop));
        address
    }

    #[tokio::test]
    async fn a_client_is_answered_over_loopback_and_over_a_socket_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        for control in [Control::Tcp("127.0.0.1:0".parse().unwrap()), Control::Unix(path.clone())] {
            let mut tasks = Tasks::default();
            let address = served(&control, &mut tasks).await;
            let talk = async {
                let timeout = Duration::from_secs(5);
                let caller = Caller { actor: Some("ana".to_owned()), timeout };
                let mut client = Client::connect(&address, caller).await.unwrap();
                let name = "rollouts/-/pairs/00000000000000000000000000000001".to_owned();
                let request = proto::GetPairRequest { name };
                let failure = client.get_pair(request).await.unwrap_err();
                assert_eq!(failure.kind, FailureKind::Other);
                assert!(failure.message.contains("not usable"), "{failure}");
                assert!(failure.hint.contains("not affected"), "{failure:?}");
            };
            tasks.run(talk, Duration::from_secs(10)).await.unwrap();
        }
        assert!(!path.exists(), "the socket file goes with its server");
    }

    #[tokio::test]
    async fn reflection_lists_the_services_and_health_knows_each() {
        let mut tasks = Tasks::default();
        let control = Control::Tcp("127.0.0.1:0".parse().unwrap());
        let address = served(&control, &mut tasks).await;
        let talk = async {
            let channel = tonic::transport::Endpoint::from_shared(address).unwrap();
            let channel = channel.connect().await.unwrap();
            let ask = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut reflection = ServerReflectionClient::new(channel.clone());
            let answers = reflection.server_reflection_info(tokio_stream::once(ask)).await;
            let answer = answers.unwrap().into_inner().next().await.unwrap().unwrap();
            let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
                panic!("{answer:?}");
            };
            let names: Vec<String> = list.service.into_iter().map(|it| it.name).collect();
            for service in ["RolloutService", "PairService", "FlagService", "UsageService"] {
                let service = &format!("crossfade.v1.{service}");
                assert!(names.contains(service), "{names:?}");
            }
            let mut health = HealthClient::new(channel);
            for (service, status) in [("", 1), ("crossfade.v1.PairService", 2)] {
                let request = HealthCheckRequest { service: service.to_owned() };
                let answer = health.check(request).await.unwrap().into_inner();
                assert_eq!(answer.status, status, "{service}");
            }
        };
        tasks.run(talk, Duration::from_secs(10)).await.unwrap();
    }
}
