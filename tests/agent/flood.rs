//! Clients without end and without manners: the agent answers the others all the same, and none of them costs it more
//! than its place.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit, setrlimit};
use signoff::{
    agent::socket::{PreStopAnswer, Request, Response, ask},
    manager::State,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::{
    harness::{LONG, Process, World, eventually},
    hook::{own_address, send},
    soak::usage::Usage,
};

/// What each listener has room for.
const CAP: u64 = 64;
/// So many connections at each.
const MANY: usize = 10_000;

/// What somebody may send who wants to stay: nothing, a part of a head, and more than anybody reads.
const RUDE: [&[u8]; 5] = [
    b"",
    b"{\"version\":1,",
    b"GET /livez HTTP/1.1\r\nHost: agent\r\nX: ",
    b"POST /livez HTTP/1.1\r\nHost: agent\r\nContent-Length: 1000\r\n\r\nx",
    &[b'x'; 60 << 10],
];

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

#[derive(Debug, Clone)]
enum Listener {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Listener {
    async fn connect(&self) -> Box<dyn Stream> {
        eventually("a connection", async || {
            let connected: io::Result<Box<dyn Stream>> = match self {
                Self::Tcp(address) => TcpStream::connect(address).await.map(|stream| Box::new(stream) as _),
                Self::Unix(path) => UnixStream::connect(path).await.map(|stream| Box::new(stream) as _),
            };
            match connected {
                Ok(stream) => Some(stream),
                // A unix socket's queue is full.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                Err(error) => panic!("{self:?}: {error}"),
            }
        })
        .await
    }
}

/// An agent with all it can listen on.
struct Target {
    agent: Process,
    world: World,
    listen: SocketAddr,
    listeners: [Listener; 3],
}

impl Target {
    async fn new() -> Self {
        let world = World::new().await;
        let (listen, hook) = (own_address(), own_address());
        let mut command = world.agent();
        command
            .env("SIGNOFF_LISTEN", listen.to_string())
            .env("SIGNOFF_HOOK_LISTEN", hook.to_string())
            .env("SIGNOFF_LOG_LEVEL", "info");
        let agent = Process::watching(command).await;
        let socket = world.path("run").join("agent.sock");
        let listeners = [Listener::Tcp(listen), Listener::Tcp(hook), Listener::Unix(socket)];
        for listener in &listeners {
            if let Listener::Tcp(address) = listener {
                eventually("it listens", async || TcpStream::connect(address).await.ok()).await;
            }
        }
        Self { agent, world, listen, listeners }
    }

    fn usage(&self) -> Usage {
        Usage::of(self.agent.pid(), Path::new("/nowhere"))
    }

    /// It has no more threads than before, and no more files than that and a full house.
    fn is_bounded(&self, before: Usage) -> Usage {
        let now = self.usage();
        // Beside the connections: the one that was accepted and has no place yet, a read of a route table, the manager's,
        // the scheduler's.
        assert!(now.files <= before.files + CAP + 8, "{before} => {now}");
        assert!(now.threads <= before.threads + 1, "{before} => {now}");
        now
    }

    /// kubelet's probe, by which it would be killed.
    async fn lives(&self) {
        let probe = "GET /livez HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n";
        let (status, _) = send(self.listen, None, probe).await.expect("an answer to the probe");
        assert_eq!(status, 200);
    }

    async fn pre_stop(&self) -> PreStopAnswer {
        let request = Request::PreStop { deadline: Some(LONG) };
        match ask(&self.world.path("run"), &request, LONG).await {
            Ok(Response::PreStop(answer)) => answer,
            other => panic!("{other:?}: {}", self.agent.log()),
        }
    }
}

/// How many this process may open beside what other tests need; says so where that is fewer than wanted.
fn room() -> usize {
    let limits = getrlimit(Resource::Nofile);
    // Never lowered: it is this process's alone, and its children's.
    let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limits.maximum, ..limits });
    let limit = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| usize::try_from(n).unwrap());
    let room = MANY.min(limit.saturating_sub(2_000));
    if room < MANY {
        println!("only {room} of {MANY} connections: the limit of open files is {limit}");
    }
    assert!(room > 10 * CAP as usize, "{limit} open files are too few for this test");
    room
}

#[tokio::test]
async fn ten_thousand_rude_clients_at_each_listener_shut_nobody_out_and_leave_nothing_behind() {
    let target = Target::new().await;
    target.lives().await;
    let before = target.usage();
    let mut most = before;
    for listener in &target.listeners {
        let mut open = Vec::new();
        for n in 0..room() {
            let mut stream = listener.connect().await;
            // To one that was made to go already nothing can be sent; and nobody waits for a client that isn't read.
            let sent = stream.write_all(RUDE[n % RUDE.len()]);
            let _ = tokio::time::timeout(Duration::from_millis(1), sent).await;
            open.push(stream);
            if n % 100 == 0 {
                let now = target.is_bounded(before);
                most = if now.files > most.files { now } else { most };
                target.lives().await;
            }
        }
        target.lives().await;
        let answer = target.pre_stop().await;
        assert_eq!(target.world.state(), Some(State::Inactive), "{listener:?}: {answer}");
        target.is_bounded(before);
        drop(open);
        eventually("all is given back", async || (target.usage().files <= before.files + 2).then_some(()))
            .await;
    }
    let after = target.usage();
    println!("before: {before}\nmost:   {most}\nafter:  {after}");
    // Full of files, so that this has been seen at all; and of what it took for them not much is kept.
    assert!(most.files >= before.files + CAP / 2, "{before} => {most}");
    assert!(after.memory < before.memory + 8 * 1024, "{before} => {after}");
}

#[tokio::test]
async fn clients_that_trickle_are_cut_while_the_others_are_answered() {
    let target = Target::new().await;
    let mut trickling = tokio::task::JoinSet::new();
    for listener in &target.listeners {
        // Some places are left, for the probes and for those before them that are just ending.
        for _ in 4..CAP {
            let mut stream = listener.connect().await;
            // A head without an end, a line without one.
            let begin: &[u8] = match listener {
                Listener::Tcp(_) => b"GET /livez HTTP/1.1\r\nX: ",
                Listener::Unix(_) => b"{\"version\":1,",
            };
            trickling.spawn(async move {
                let began = Instant::now();
                let mut sent = stream.write_all(begin).await;
                while sent.is_ok() {
                    // So that it is never idle; whatever comes back ends it.
                    let pause = tokio::time::timeout(Duration::from_millis(200), stream.read_u8());
                    sent = match pause.await {
                        Ok(_) => break,
                        Err(_) => stream.write_all(b"x").await,
                    };
                }
                began.elapsed()
            });
        }
    }
    target.lives().await;
    assert_eq!(trickling.try_join_next().map(|ended| ended.unwrap()), None, "none was cut for that");
    target.pre_stop().await;
    assert_eq!(target.world.state(), Some(State::Inactive));
    let mut longest = Duration::ZERO;
    while let Some(ended) =
        tokio::time::timeout(LONG, trickling.join_next()).await.expect("each is cut in the end")
    {
        longest = longest.max(ended.unwrap());
        target.lives().await;
    }
    println!("all were cut within {longest:?}");
}
