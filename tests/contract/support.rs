//! A manager to test against, and the plainest of clients.

use std::{net::SocketAddr, time::Duration};

use signoff::{
    key::SchedulerKey,
    manager::State,
    mock::{Channel, Config, MockManager},
    proto::manager_v2::{
        KeepAliveRequest, ListSchedulersRequest, Scheduler, UpdateSchedulerRequest,
        manager_client::ManagerClient,
    },
};
use tokio::{sync::mpsc, task::JoinHandle};
use tonic::{Code, Status};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The manager under test.
pub(crate) struct Target {
    pub(crate) grpc: SocketAddr,
    pub(crate) rest: String,
    pub(crate) mock: Option<MockManager>,
}

fn named(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|v| !v.is_empty())
}

impl Target {
    /// The manager that the environment names, or else a mock.
    pub(crate) async fn any() -> Self {
        let Some(grpc) = named("SIGNOFF_TEST_MANAGER") else { return Self::mock().await };
        let rest = named("SIGNOFF_TEST_MANAGER_REST")
            .expect("SIGNOFF_TEST_MANAGER_REST has to name the same manager's REST API");
        let grpc = tokio::net::lookup_host(grpc).await.unwrap().next().unwrap();
        Self { grpc, rest, mock: None }
    }

    /// Whether its rows have keep-alive times, and its lists know the cluster: from v2.3.1 on, and in the mock. A real manager's release
    /// is named by `SIGNOFF_TEST_MANAGER_RELEASE`, such as v2.2.0; what an older one shows is tested in `releases`.
    pub(crate) fn has_times(&self) -> bool {
        let release = named("SIGNOFF_TEST_MANAGER_RELEASE").filter(|_| self.mock.is_none());
        let old = release.is_some_and(|release| {
            let release = release.trim_start_matches('v');
            ["2.1.", "2.2.", "2.3.0"].iter().any(|old| release.starts_with(old))
        });
        if old {
            eprintln!("not of this release: keep-alive times, and lists by cluster");
        }
        !old
    }

    async fn mock() -> Self {
        let mock = mock(Config::default()).await;
        Self { grpc: mock.grpc_addr(), rest: format!("http://{}", mock.rest_addr()), mock: Some(mock) }
    }

    /// The state of a row: from the mock's table, from a real manager's REST API.
    pub(crate) async fn state(&self, key: &SchedulerKey) -> Option<State> {
        match &self.mock {
            Some(mock) => mock.table().state(key).unwrap(),
            None => {
                let row = self.row(key).await?;
                Some(if row["state"] == "active" { State::Active } else { State::Inactive })
            }
        }
    }

    /// A row as REST shows it, never from a cache.
    pub(crate) async fn row(&self, key: &SchedulerKey) -> Option<serde_json::Value> {
        let rows: Vec<serde_json::Value> = reqwest()
            .get(format!("{}/api/v1/schedulers", self.rest))
            .query(&[("host_name", key.hostname.as_str()), ("ip", &key.ip.to_string())])
            .query(&[("per_page", 1000 + fastrand::u64(0..8_000_000))])
            .bearer_auth(self.token().await)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        rows.into_iter().next()
    }

    /// A token; one sign-in for all tests of a process, as a second one could be refused.
    pub(crate) async fn token(&self) -> String {
        static REAL: tokio::sync::Mutex<Option<String>> = tokio::sync::Mutex::const_new(None);
        let sign_in = async || {
            let (status, body) = sign_in(&self.rest, &user(), &password()).await;
            assert_eq!(status, 200, "{body}");
            body["token"].as_str().unwrap().to_owned()
        };
        let mut shared = REAL.lock().await;
        match (&self.mock, &*shared) {
            // A mock's tokens are good at any mock.
            (_, Some(token)) => token.clone(),
            _ => shared.insert(sign_in().await).clone(),
        }
    }

    pub(crate) async fn eventually(&self, key: &SchedulerKey, state: Option<State>) {
        eventually(&format!("{key} {state:?}"), async || self.state(key).await == state).await;
    }
}

pub(crate) fn user() -> String {
    named("SIGNOFF_TEST_MANAGER_USER").unwrap_or_else(|| "root".into())
}

pub(crate) fn password() -> String {
    named("SIGNOFF_TEST_MANAGER_PASSWORD").unwrap_or_else(|| "dragonfly".into())
}

pub(crate) fn reqwest() -> reqwest::Client {
    // The client wants a provider even where it needs no TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

pub(crate) async fn sign_in(rest: &str, name: &str, password: &str) -> (u16, serde_json::Value) {
    let answer = reqwest()
        .post(format!("{rest}/api/v1/users/signin"))
        .json(&serde_json::json!({ "name": name, "password": password }))
        .send()
        .await
        .unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// A mock, for facts that need a hand inside; said aloud where a real manager was named.
pub(crate) async fn mock(config: Config) -> MockManager {
    if named("SIGNOFF_TEST_MANAGER").is_some() {
        eprintln!("on the mock only: this fact needs a hand inside the manager");
    }
    MockManager::start(config).await.unwrap()
}

/// Polls a condition.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(std::time::Instant::now() < end, "never came to be: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A key that nobody else uses: a hostname of its own, and an IP of the documentation's network.
pub(crate) fn key(name: &str) -> SchedulerKey {
    let name = format!("{name}-{:08x}", fastrand::u32(..));
    SchedulerKey::new(1.try_into().unwrap(), name.parse().unwrap(), "192.0.2.1".parse().unwrap())
}

pub(crate) fn with_ip(key: &SchedulerKey, ip: &str) -> SchedulerKey {
    SchedulerKey { ip: ip.parse().unwrap(), ..key.clone() }
}

pub(crate) async fn client(addr: SocketAddr) -> ManagerClient<Channel> {
    let channel = Channel::connect(addr).await.unwrap();
    let origin = channel.origin();
    ManagerClient::with_origin(channel, origin)
}

pub(crate) fn registration(key: &SchedulerKey) -> UpdateSchedulerRequest {
    UpdateSchedulerRequest {
        hostname: key.hostname.to_string(),
        scheduler_cluster_id: key.cluster_id.get(),
        ip: key.ip.to_string(),
        port: 8002,
        config: br#"{"manager_keep_alive_interval":5000000000}"#.to_vec(),
        ..UpdateSchedulerRequest::default()
    }
}

pub(crate) async fn register(addr: SocketAddr, key: &SchedulerKey) -> Scheduler {
    client(addr).await.update_scheduler(registration(key)).await.unwrap().into_inner()
}

pub(crate) fn beat(key: &SchedulerKey) -> KeepAliveRequest {
    KeepAliveRequest {
        source_type: 0,
        hostname: key.hostname.to_string(),
        cluster_id: key.cluster_id.get(),
        ip: key.ip.to_string(),
    }
}

/// An open KeepAlive stream on a connection of its own.
pub(crate) struct Stream {
    send: mpsc::UnboundedSender<KeepAliveRequest>,
    answer: JoinHandle<Result<usize, Status>>,
}

impl Stream {
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        Self::on(client(addr).await)
    }

    pub(crate) fn on(mut client: ManagerClient<Channel>) -> Self {
        let (send, messages) = mpsc::unbounded_channel();
        let messages = futures_util::stream::unfold(messages, |mut messages| async move {
            messages.recv().await.map(|m| (m, messages))
        });
        let answer = tokio::spawn(async move {
            let mut answers = client.keep_alive(messages).await?.into_inner();
            let mut count = 0;
            while answers.message().await?.is_some() {
                count += 1;
            }
            Ok(count)
        });
        Self { send, answer }
    }

    pub(crate) fn send(&self, message: KeepAliveRequest) {
        self.send.send(message).unwrap();
    }

    /// Half-closes; how many messages came before the OK, or the error.
    pub(crate) async fn half_close(self) -> Result<usize, Status> {
        drop(self.send);
        tokio::time::timeout(PATIENCE, self.answer).await.expect("an answer").unwrap()
    }

    /// The answer, without any half-close.
    pub(crate) async fn answer(self) -> Result<usize, Status> {
        tokio::time::timeout(PATIENCE, self.answer).await.expect("an answer").unwrap()
    }

    /// Drops the connection.
    pub(crate) fn lose(self) {
        self.answer.abort();
    }
}

/// A sign-off: one message, half-close, the answer.
pub(crate) async fn sign_off(addr: SocketAddr, key: &SchedulerKey) -> Result<usize, Status> {
    one_message(addr, beat(key)).await
}

pub(crate) async fn one_message(addr: SocketAddr, message: KeepAliveRequest) -> Result<usize, Status> {
    let stream = Stream::open(addr).await;
    stream.send(message);
    stream.half_close().await
}

/// The code and message of an error.
pub(crate) fn said(result: Result<usize, Status>) -> (Code, String) {
    let status = result.expect_err("an error");
    (status.code(), status.message().to_owned())
}

/// ListSchedulers: the cluster's list, or, with 0, the list of active rows under `caller`'s name.
pub(crate) async fn list(addr: SocketAddr, caller: &str, cluster_id: u64) -> Vec<Scheduler> {
    let request = ListSchedulersRequest {
        hostname: caller.to_owned(),
        ip: "192.0.2.9".to_owned(),
        version: "v2.5.0".to_owned(),
        scheduler_cluster_id: cluster_id,
        ..ListSchedulersRequest::default()
    };
    client(addr).await.list_schedulers(request).await.unwrap().into_inner().schedulers
}

pub(crate) fn shows(list: &[Scheduler], key: &SchedulerKey) -> Option<String> {
    list.iter()
        .find(|s| s.hostname == key.hostname.as_str() && s.ip == key.ip.to_string())
        .map(|s| s.state.clone())
}
