//! What reaches an agent from the pod network: every method on every path, and whatever isn't HTTP, changes nothing.

use std::{collections::BTreeMap, net::SocketAddr, path::Path};

use futures_util::StreamExt;
use signoff::{agent::socket::Status, manager::State};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

use crate::{
    harness::{LONG, Process, World, eventually, run},
    hook::{get, metric, own_address},
    secret,
};

const METHODS: [&str; 12] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "SIGNOFF", "get", "PRI"];

/// Every path that anything in this program serves, or a client of it asks for, and names that it might have had.
const PATHS: [&str; 26] = [
    "/",
    "/livez",
    "/readyz",
    "/metrics",
    "/pre-stop",
    "/status",
    "/check",
    "/queue",
    "/queue/list",
    "/queue/flush",
    "/queue/drop",
    "/state",
    "/faults",
    "/healthy",
    "/api/v1/schedulers",
    "/api/v1/schedulers/1",
    "/api/v1/users/signin",
    "/api/v1/users/refresh_token",
    "/manager.v2.Manager/KeepAlive",
    "/manager.v2.Manager/ListSchedulers",
    "/grpc.health.v1.Health/Check",
    "/drain",
    "/shutdown",
    "/reload",
    "/config",
    "/debug/pprof",
];

/// `/pre-stop`, as somebody might spell it who wants it to be taken for something else, or something else for it.
const SPELLINGS: [&str; 19] = [
    "//pre-stop",
    "/pre-stop/",
    "/pre-stop//",
    "/pre-stop?x",
    "/pre-stop#x",
    "/pre-stop;x",
    "/PRE-STOP",
    "/%70re-stop",
    "/pre%2dstop",
    "/pre-stop%00",
    "/./pre-stop",
    "/livez/../pre-stop",
    "/livez/%2e%2e/pre-stop",
    "/livez?/pre-stop",
    "\\pre-stop",
    "pre-stop",
    "*",
    "http://agent/pre-stop",
    "https://agent:9802/pre-stop",
];

/// Where the node's own processes call from.
const NODE: &str = "127.0.0.1";
/// Where another pod's do.
const POD: &str = "127.9.8.7";

/// A pre-stop in the socket's words.
const LINE: &str = "{\"version\":1,\"request\":\"pre-stop\"}\n";

/// Everything that is sent: each method on each path, without a body and with two kinds of one, and what is no HTTP/1.1.
fn everything(headers: &str) -> Vec<String> {
    let mut all = Vec::new();
    let bodies = [
        String::new(),
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{LINE}", LINE.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{LINE}\r\n0\r\n\r\n", LINE.len()),
    ];
    for method in METHODS {
        for path in PATHS.iter().chain(&SPELLINGS) {
            for body in &bodies {
                let end = if body.is_empty() { "\r\n" } else { body };
                let host = "Host: agent\r\nConnection: close\r\n";
                all.push(format!("{method} {path} HTTP/1.1\r\n{host}{headers}{end}"));
            }
        }
    }
    let pre_stop = format!("GET /pre-stop HTTP/1.1\r\nHost: agent\r\n{headers}\r\n");
    all.extend([
        LINE.to_owned(),
        "GET /pre-stop\r\n\r\n".to_owned(),
        format!("GET /pre-stop HTTP/1.0\r\n{headers}\r\n"),
        format!("GET /pre-stop HTTP/3.0\r\n{headers}\r\n"),
        // HTTP/2 without an upgrade, and with one.
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0".to_owned(),
        format!(
            "GET /livez HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n{pre_stop}"
        ),
        // One request within another, by each way to say where the first ends.
        format!("POST /livez HTTP/1.1\r\nHost: agent\r\nContent-Length: {}\r\n\r\n{pre_stop}", pre_stop.len()),
        format!("GET /livez HTTP/1.1\r\nHost: agent\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\n{pre_stop}"),
        format!("GET /livez HTTP/1.1\r\nHost: agent\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{pre_stop}"),
        // Headers that other servers take for the path, the method or the caller's address.
        format!(
            "POST /livez HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nX-HTTP-Method-Override: GET\r\n\
             X-Original-URL: /pre-stop\r\nX-Rewrite-URL: /pre-stop\r\n{headers}\r\n"
        ),
        pre_stop.replace("GET", " GET"),
        pre_stop.replace("\r\n", "\n"),
        pre_stop.repeat(3),
    ]);
    all
}

/// One connection from `from`: all that was answered until the agent closed it.
async fn answer(to: SocketAddr, from: &str, bytes: &str) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    if from != NODE {
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    }
    let mut stream = socket.connect(to).await.unwrap();
    // It may have closed before it has read all, and what it has answered by then may be lost to a reset.
    let _ = stream.write_all(bytes.as_bytes()).await;
    // The agent closes first, where it is asked to or must: of thousands this process would keep the ports for a minute.
    if !bytes.contains("Connection: close") {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await;
    let _ = read.unwrap_or_else(|_| panic!("it was left hanging by {bytes:?}"));
    let answer = String::from_utf8_lossy(&answer).into_owned();
    secret::none_in(&answer, "an agent's answer");
    answer
}

/// The statuses of an answer, of which there may be several.
fn statuses(answer: &str) -> Vec<u16> {
    let starts = answer.match_indices("HTTP/1.").filter(|(at, _)| *at == 0 || answer[..*at].ends_with('\n'));
    starts.map(|(at, _)| answer[at + 9..at + 12].parse().unwrap()).collect()
}

/// Sends each on a connection of its own, some at once: every answer is of these statuses, or there is none.
async fn all_are(to: SocketAddr, from: &str, sent: &[String], right: std::ops::Range<u16>) {
    let answers = futures_util::stream::iter(sent)
        .map(async |bytes| (bytes, answer(to, from, bytes).await))
        .buffer_unordered(16);
    let wrong = answers.filter(|(_, answer)| {
        let wrong = statuses(answer).iter().any(|status| !right.contains(status));
        std::future::ready(wrong)
    });
    assert_eq!(wrong.collect::<Vec<_>>().await, []);
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let with_content = entries.map(|entry| {
        let content = std::fs::read(entry.path()).unwrap_or_default();
        (entry.file_name().into_string().unwrap(), content)
    });
    with_content.collect()
}

/// All that somebody could have changed, by its name.
async fn all_there_is(world: &World, listen: SocketAddr) -> BTreeMap<&'static str, String> {
    // The last to be asked: behind it in the agent's queue is nothing that was sent before.
    let (code, out, err) = run(world.command(&["status", "-o", "json"])).await;
    assert_eq!(code, 0, "{err}");
    let mut status: Status = serde_json::from_str(&out).unwrap();
    // Times, which are reckoned anew each time.
    (status.now, status.since, status.scheduler.since) = (0, 0, None);
    if let Some(row) = &mut status.row {
        row.at = 0;
    }
    if let Some(known) = &mut status.row_known {
        known.at = 0;
    }
    BTreeMap::from([
        ("status", format!("{status:?}")),
        ("row", format!("{:?}", world.state())),
        ("writes", format!("{:?}", world.manager.table().history())),
        ("spool", format!("{:?}", files(&world.path("spool")))),
        ("run directory", format!("{:?}", files(&world.path("run")))),
        ("metrics", get(listen, "/metrics").await.1.split_once("\r\n\r\n").unwrap().1.to_owned()),
    ])
}

/// What differs of two.
fn changed<'a>(
    before: &BTreeMap<&'a str, String>,
    after: &BTreeMap<&'a str, String>,
) -> BTreeMap<&'a str, String> {
    let differs = before.iter().filter(|(name, was)| after[*name] != **was);
    differs.map(|(name, was)| (*name, format!("{was}\n=>\n{}", after[name]))).collect()
}

/// An agent with both ports, which has nothing more to find out; where they are.
async fn with_both_ports(world: &World, token: bool) -> (Process, SocketAddr, SocketAddr) {
    let (listen, hook) = (own_address(), own_address());
    let mut command = world.agent();
    command
        .env("SIGNOFF_LISTEN", listen.to_string())
        .env("SIGNOFF_HOOK_LISTEN", hook.to_string())
        .env("HOST_IP", NODE);
    if token {
        std::fs::write(world.path("token"), "s3cr3t-Token\n").unwrap();
        command.env("SIGNOFF_HOOK_TOKEN_FILE", world.path("token"));
    }
    let agent = Process::watching(command).await;
    assert_eq!(get(hook, "/").await.0, 404, "it listens");
    eventually("it has read its row", async || {
        let known = metric(listen, "signoff_identity_known").await == "1.0";
        (known && metric(listen, "signoff_row_active").await == "1.0").then_some(())
    })
    .await;
    (agent, listen, hook)
}

#[tokio::test]
async fn whatever_reaches_the_agent_from_the_pod_network_changes_nothing() {
    let world = World::new().await;
    let (agent, listen, hook) = with_both_ports(&world, false).await;
    let before = all_there_is(&world, listen).await;
    let everything = everything("X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n");
    // The open port, from the node itself: nobody can do more there.
    all_are(listen, NODE, &everything, 200..500).await;
    // The hook's, from another pod.
    all_are(hook, POD, &everything, 400..500).await;
    let after = all_there_is(&world, listen).await;
    assert_eq!(changed(&before, &after), BTreeMap::new(), "{}", agent.log());
    // And what is allowed does change it, so that this can be seen.
    let answer = answer(hook, NODE, "GET /pre-stop HTTP/1.0\r\n\r\n").await;
    assert_eq!((statuses(&answer), world.state()), (vec![200], Some(State::Inactive)), "{answer}");
    let changed = changed(&after, &all_there_is(&world, listen).await);
    let seen: Vec<&str> = changed.into_keys().collect();
    assert_eq!(seen, ["metrics", "row", "spool", "status", "writes"]);
    println!("{} requests at each port", everything.len());
}

#[tokio::test]
async fn without_the_token_nothing_that_the_node_sends_is_a_hook() {
    let world = World::new().await;
    let (agent, listen, hook) = with_both_ports(&world, true).await;
    let before = all_there_is(&world, listen).await;
    for headers in [
        "Authorization: Bearer s3cr3t-Toke\r\n",
        "Authorization: Bearer s3cr3t-Token1\r\nX-Signoff-Token: s3cr3t-token\r\n",
        "Authorization: Basic s3cr3t-Token\r\nCookie: token=s3cr3t-Token\r\nX-Token: s3cr3t-Token\r\n",
        "",
    ] {
        let mut everything = everything(headers);
        everything.retain(|bytes| bytes.contains("re-stop"));
        all_are(hook, NODE, &everything, 400..500).await;
    }
    // With it, on the one path: by no method but GET.
    let others = METHODS.iter().filter(|method| **method != "GET");
    let others: Vec<String> = others
        .map(|method| format!("{method} /pre-stop HTTP/1.0\r\nX-Signoff-Token: s3cr3t-Token\r\n\r\n"))
        .collect();
    all_are(hook, NODE, &others, 400..500).await;
    let after = all_there_is(&world, listen).await;
    assert_eq!(changed(&before, &after), BTreeMap::new(), "{}", agent.log());
    let bytes = "GET /pre-stop HTTP/1.0\r\nX-Signoff-Token: s3cr3t-Token\r\n\r\n";
    let answer = answer(hook, NODE, bytes).await;
    assert_eq!((statuses(&answer), world.state()), (vec![200], Some(State::Inactive)), "{answer}");
}
