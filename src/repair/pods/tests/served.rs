//! The list, from an API server over TLS on loopback.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;

use super::*;
use crate::net::testing::{Authority, BlackHole, refusing};

/// What the server does with a request.
#[derive(Clone)]
enum Reply {
    Says(u16, String),
    Hangs,
    /// The head and some of the body, and nothing after that.
    HangsInTheMiddle,
}

#[derive(Default)]
struct Script {
    replies: Mutex<VecDeque<Reply>>,
    /// Path and query, and the authorization, of each request.
    seen: Mutex<Vec<(String, String)>>,
}

struct Api {
    addr: SocketAddr,
    script: Arc<Script>,
    authority: Authority,
    dir: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

/// A body that never ends.
struct Endless(bool);

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        if std::mem::replace(&mut self.0, true) {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(Bytes::from_static(b"{\"kind\":")))))
    }
}

async fn answer(script: Arc<Script>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    use http_body_util::BodyExt;
    let authorization =
        request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let asked = request.uri().path_and_query().unwrap().to_string();
    script.seen.lock().unwrap().push((asked, authorization.unwrap_or_default()));
    let reply = script.replies.lock().unwrap().pop_front().unwrap_or(Reply::Says(500, String::new()));
    match reply {
        Reply::Says(status, text) => {
            let answer = Response::builder().status(status).header("retry-after", "7");
            Ok(answer.body(Full::from(text).boxed()).unwrap())
        }
        Reply::Hangs => std::future::pending().await,
        Reply::HangsInTheMiddle => Ok(Response::new(Endless(false).boxed())),
    }
}

impl Api {
    async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let authority = Authority::new();
        let script = Arc::new(Script::default());
        *script.replies.lock().unwrap() = replies.into_iter().collect();
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(authority.server(None)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = script.clone();
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (tls, script) = (tls.clone(), shared.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(tcp).await else { return };
                    let service = service_fn(move |request| answer(script.clone(), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let api = Self { addr, script, authority, dir, task };
        api.write("token", "token-1\n");
        api.write("namespace", "dragonfly");
        api.write("ca.crt", &api.authority.pem());
        api.write("resolv.conf", "search dragonfly.svc.cluster.local svc.cluster.local\n");
        api
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn place(&self) -> InCluster {
        self.place_of(self.addr)
    }

    fn place_of(&self, addr: SocketAddr) -> InCluster {
        InCluster {
            host: Some(addr.ip().to_string()),
            port: Some(addr.port().to_string()),
            account: self.dir.path().to_owned(),
            resolv_conf: self.path("resolv.conf"),
        }
    }

    async fn client(&self) -> Kubernetes {
        Kubernetes::in_cluster(self.place()).await.unwrap()
    }

    async fn failure(&self) -> String {
        self.client().await.pods().await.unwrap_err().to_string()
    }

    fn asked(&self) -> Vec<String> {
        self.script.seen.lock().unwrap().iter().map(|(asked, _)| asked.clone()).collect()
    }
}

fn page(pods: &[Value], next: Option<&str>) -> Reply {
    Reply::Says(200, body(pods, next))
}

fn refusal(status: u16, message: &str) -> Reply {
    Reply::Says(status, json!({ "kind": "Status", "message": message, "code": status }).to_string())
}

const FIRST: &str = "/api/v1/namespaces/dragonfly/pods?limit=500";

#[tokio::test]
async fn g7_all_pages_make_one_list() {
    let api = Api::start([
        page(&[pod("s-0", "10.0.0.1")], Some("next/+=")),
        page(&[], Some("more")),
        page(&[pod("s-1", "10.0.0.2")], Some("")),
    ])
    .await;
    let before = Instant::now();
    let pods = api.client().await.pods().await.unwrap();
    assert_eq!(pods.len(), 2);
    assert_eq!(pods.says(S0, ip("10.0.0.1")), Says::Lives);
    assert!(pods.taken() >= before && pods.taken() <= Instant::now());
    assert_eq!(
        api.asked(),
        [FIRST.to_owned(), format!("{FIRST}&continue=next%2F%2B%3D"), format!("{FIRST}&continue=more")]
    );
    assert!(api.script.seen.lock().unwrap().iter().all(|(_, said)| said == "Bearer token-1"));
}

#[tokio::test]
async fn g7_a_list_that_has_expired_is_begun_anew_once() {
    let gone = || refusal(410, "The provided continue parameter is too old");
    let half = || page(&[pod("s-0", "10.0.0.1")], Some("next"));
    let api =
        Api::start([half(), gone(), page(&[pod("s-1", "10.0.0.2")], None), half(), gone(), half(), gone()])
            .await;
    let client = api.client().await;
    let pods = client.pods().await.unwrap();
    assert_eq!(
        (pods.len(), pods.says(S0, ip("10.0.0.1"))),
        (1, Says::Gone),
        "nothing of the first half is in it"
    );
    let said = client.pods().await.unwrap_err().to_string();
    assert!(said.contains("HTTP 410") && said.contains("too old"), "{said}");
    let next = format!("{FIRST}&continue=next");
    assert_eq!(api.asked(), [FIRST, &next, FIRST, FIRST, &next, FIRST, &next]);
}

#[tokio::test]
async fn a_missing_right_is_named_with_what_gives_it() {
    let api = Api::start([refusal(
        403,
        "pods is forbidden: User \"system:serviceaccount:dragonfly:x\" cannot list",
    )])
    .await;
    let said = api.failure().await;
    for part in [
        "HTTP 403",
        "get, list on pods in namespace dragonfly",
        "Role",
        "RoleBinding",
        "dragonfly:x\" cannot list",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

#[tokio::test]
async fn the_servers_words_and_wishes_are_passed_on() {
    let api = Api::start([
        refusal(429, &format!("\u{1b}[31mtoo many{}", "x".repeat(5000))),
        Reply::Says(401, "no json".to_owned()),
        Reply::Says(302, String::new()),
    ])
    .await;
    let client = api.client().await;
    let failure = client.pods().await.unwrap_err();
    assert_eq!((failure.floor, failure.exhausted), (Some(Duration::from_secs(7)), true));
    assert!(failure.why.contains("HTTP 429") && failure.why.contains("too many"), "{failure}");
    assert!(!failure.why.contains('\u{1b}') && failure.why.len() < 500, "{failure}");
    let said = client.pods().await.unwrap_err().to_string();
    assert!(said.contains("HTTP 401: the token of this pod's ServiceAccount is not accepted"), "{said}");
    assert!(client.pods().await.unwrap_err().why.contains("HTTP 302"), "a redirect is not followed");
}

#[tokio::test]
async fn the_token_is_read_for_each_list_and_never_shown() {
    let api = Api::start([page(&[], None), page(&[], None), refusal(401, "Unauthorized")]).await;
    let client = api.client().await;
    client.pods().await.unwrap();
    api.write("token", "token-2");
    client.pods().await.unwrap();
    api.write("token", "token-3");
    let said = format!("{} {client:?}", client.pods().await.unwrap_err());
    let tokens: Vec<_> = api.script.seen.lock().unwrap().iter().map(|(_, said)| said.clone()).collect();
    assert_eq!(tokens, ["Bearer token-1", "Bearer token-2", "Bearer token-3"]);
    assert!(!said.contains("token-"), "{said}");
    for (text, why) in [("", "it is no token"), ("two words", "it is no token")] {
        api.write("token", text);
        let said = client.pods().await.unwrap_err().to_string();
        assert!(said.contains(why) && said.contains(&api.path("token").display().to_string()), "{said}");
        assert!(!said.contains("two words"), "{said}");
    }
    assert_eq!(api.asked().len(), 3);
}

#[tokio::test]
async fn a_server_that_another_ca_signed_is_not_told_the_token() {
    let api = Api::start([page(&[], None)]).await;
    api.write("ca.crt", &Authority::new().pem());
    let said = api.failure().await;
    assert!(said.contains("invalid peer certificate") && said.contains("ca.crt signed is trusted"), "{said}");
    assert!(api.asked().is_empty());
    // The CA's file may change too.
    let client = api.client().await;
    api.write("ca.crt", &format!("{}\n", api.authority.pem()));
    client.pods().await.unwrap();
}

#[tokio::test]
async fn g7_a_server_that_hangs_is_given_up_on() {
    const TINY: Duration = Duration::from_millis(300);
    let api =
        Api::start([Reply::Hangs, page(&[pod("s-0", "10.0.0.1")], Some("next")), Reply::HangsInTheMiddle])
            .await;
    let silent = BlackHole::start().await;
    let client = api.client().await.within(TINY);
    let mute = Kubernetes::in_cluster(api.place_of(silent.addr)).await.unwrap().within(TINY);
    for client in [&client, &client, &mute] {
        let said = client.pods().await.unwrap_err().to_string();
        assert!(said.contains("was not there within 300ms"), "{said}");
    }
    let refused = Kubernetes::in_cluster(api.place_of(refusing().await)).await.unwrap();
    let said = refused.pods().await.unwrap_err().to_string();
    assert!(said.contains("refused"), "{said}");
}

#[tokio::test]
async fn g7_a_list_that_is_too_large_or_cut_off_is_not_used() {
    let many: Vec<_> = (0..5001).map(|n| json!({ "metadata": { "name": format!("p-{n}") } })).collect();
    let api = Api::start([
        page(&many, Some("next")),
        page(&many, None),
        Reply::Says(200, " ".repeat((16 << 20) + 1)),
        Reply::Says(200, "{\"kind\":\"PodList\",\"items\":[".to_owned()),
        Reply::Says(200, "<html>sign in</html>".to_owned()),
    ])
    .await;
    let client = api.client().await;
    for why in [
        "more than 10000 pods in namespace dragonfly",
        "larger than 16777216 bytes",
        "no list of pods",
        "no list of pods",
    ] {
        let said = client.pods().await.unwrap_err().to_string();
        assert!(said.contains(why) && said.contains(&api.addr.to_string()), "{said}");
    }
}

#[tokio::test]
async fn what_is_missing_is_named_with_what_would_be_right() {
    let api = Api::start([]).await;
    let said = async |place: InCluster| Kubernetes::in_cluster(place).await.unwrap_err().to_string();
    let place = || api.place();
    for (place, parts) in [
        (InCluster { host: None, ..place() }, ["KUBERNETES_SERVICE_HOST is not set", "inside a cluster"]),
        (InCluster { port: None, ..place() }, ["KUBERNETES_SERVICE_PORT is not set", "inside a cluster"]),
        (InCluster { port: Some("https".into()), ..place() }, ["\"https\"", "a port of 1 to 65535"]),
        (InCluster { host: Some("a/b".into()), ..place() }, ["\"a/b\"", "an IP or a name"]),
        (
            InCluster { account: "/nowhere".into(), ..place() },
            ["/nowhere/namespace: No such file", "automountServiceAccountToken: true"],
        ),
        (
            InCluster { resolv_conf: "/nowhere".into(), ..place() },
            ["/nowhere: No such file", "dnsPolicy: ClusterFirst"],
        ),
    ] {
        let said = said(place).await;
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
    // Each is found before those that are broken already.
    for (file, text, parts) in [
        ("ca.crt", "nonsense", ["ca.crt: no certificate in PEM", "serviceAccountName"]),
        ("token", "\n", ["token: it is no token", "serviceAccountName"]),
        (
            "resolv.conf",
            "search lan\n",
            ["no search domain is dragonfly.svc.DOMAIN", "dnsPolicy: ClusterFirst"],
        ),
        ("namespace", "a/../b", ["namespace: \"a/../b\" is no namespace", "serviceAccountName"]),
    ] {
        api.write(file, text);
        let said = said(place()).await;
        assert!(parts.iter().all(|part| said.contains(part)), "{file}: {said}");
    }
}

#[tokio::test]
async fn an_ipv6_server_is_put_in_brackets() {
    let api = Api::start([]).await;
    for (host, server) in [
        ("fd00:0::1", "https://[fd00::1]:443"),
        ("[fd00::1]", "https://[fd00::1]:443"),
        (" 10.96.0.1\n", "https://10.96.0.1:443"),
        ("Api.example.com", "https://Api.example.com:443"),
    ] {
        let place = InCluster { host: Some(host.into()), port: Some("443".into()), ..api.place() };
        let client = Kubernetes::in_cluster(place).await.unwrap();
        assert!(format!("{client:?}").contains(&format!("{server:?}")), "{client:?}");
        assert_eq!(client.zone().to_string(), "dragonfly.svc.cluster.local");
    }
}
