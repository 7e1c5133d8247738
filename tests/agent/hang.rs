//! Files that never answer: a frozen disk, a dead NFS server, a FIFO in a file's place, a pipe that nobody reads.
//!
//! Each file that an agent reads or writes hangs in turn. Whatever it is, the agent starts, serves `/livez`, answers `status`
//! (unless the socket is what hangs), signs its scheduler off where it can know whose row that is, and is gone by its deadline.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use signoff::manager::State;

use crate::{
    harness::{LONG, Process, World, eventually, run},
    hook::{get, metric, own_address},
    strace::{Strace, can_inject, traced},
};

/// The grace of these agents. A process that is still there half a second past it was killed by its kubelet.
const GRACE: Duration = Duration::from_secs(5);

/// What hangs.
enum What {
    /// Every open of this path: a FIFO that nobody writes is there.
    Fifo(PathBuf),
    /// These system calls on this path, for an hour each.
    Calls(&'static str, PathBuf),
    /// Log lines: nobody reads stderr, and its pipe is full.
    Stderr,
}

/// How it goes all the same.
#[derive(Clone, Copy)]
struct Expected {
    /// `status` answers.
    status: bool,
    /// The reason of `signoff_degraded`.
    degraded: Option<&'static str>,
    /// The exit code, and whether the row is inactive then.
    end: (i32, State),
}

impl Expected {
    const SIGNED_OFF: Self = Self { status: true, degraded: None, end: (0, State::Inactive) };
    /// Nobody knows whose row it is.
    const NOBODYS: Self = Self { status: true, degraded: None, end: (69, State::Active) };
    /// The manager can't be spoken to.
    const QUEUED: Self = Self { status: true, degraded: None, end: (75, State::Active) };

    const fn degraded(self, reason: &'static str) -> Self {
        Self { degraded: Some(reason), ..self }
    }

    const fn without_a_socket(self) -> Self {
        Self { status: false, ..self }
    }
}

struct Case {
    name: &'static str,
    set: fn(&World) -> (Command, What),
    expected: Expected,
}

const fn case(name: &'static str, set: fn(&World) -> (Command, What), expected: Expected) -> Case {
    Case { name, set, expected }
}

/// REST over TLS, which asks for files; gRPC asks for none.
fn with_rest_over_tls(world: &World, variable: &str, file: &str) -> (Command, What) {
    let mut command = world.agent_with_rest();
    command.env(
        "SIGNOFF_MANAGER",
        format!("{},https://{}", world.manager.grpc_addr(), world.manager.rest_addr()),
    );
    for other in ["SIGNOFF_CERT_FILE", "SIGNOFF_KEY_FILE"] {
        command.env(other, world.path("never-read"));
    }
    std::fs::write(world.path("never-read"), "").unwrap();
    command.env(variable, world.path(file));
    let hangs = What::Fifo(world.path(file));
    (command, hangs)
}

/// All that a scheduler.yaml says, in flags.
fn told_by_flags(world: &World) -> Command {
    let mut command = world.agent();
    command
        .env("SIGNOFF_HOSTNAME", world.key.hostname.to_string())
        .env("SIGNOFF_IP", world.key.ip.to_string())
        .env("SIGNOFF_CLUSTER_ID", world.key.cluster_id.to_string())
        .env("SIGNOFF_SCHEDULER_ADDR", world.scheduler.addr().to_string())
        .env("SIGNOFF_MANAGER", world.manager.grpc_addr().to_string());
    command
}

fn without(world: &World, line: &str, also: &str) {
    let path = world.path("scheduler.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let kept: Vec<&str> = text.lines().filter(|l| !l.trim_start().starts_with(line)).collect();
    std::fs::write(path, format!("{}\n{also}", kept.join("\n"))).unwrap();
}

const READS: &str = "openat,statx,newfstatat";

const CASES: &[Case] = &[
    case(
        "the password file",
        |world| {
            let mut command = world.agent_with_rest();
            command.env("SIGNOFF_PASSWORD_FILE", world.path("fifo"));
            (command, What::Fifo(world.path("fifo")))
        },
        Expected::SIGNED_OFF.degraded("files"),
    ),
    case(
        "the CA file of REST",
        |world| with_rest_over_tls(world, "SIGNOFF_CA_FILE", "fifo"),
        Expected::SIGNED_OFF.degraded("files"),
    ),
    case(
        "the client certificate",
        |world| with_rest_over_tls(world, "SIGNOFF_CERT_FILE", "fifo"),
        Expected::SIGNED_OFF.degraded("files"),
    ),
    case(
        "the CA file of gRPC",
        |world| {
            let mut command = world.agent();
            command
                .env("SIGNOFF_MANAGER", format!("grpcs://{}", world.manager.grpc_addr()))
                .env("SIGNOFF_CA_FILE", world.path("fifo"));
            (command, What::Fifo(world.path("fifo")))
        },
        Expected::QUEUED.degraded("files"),
    ),
    case(
        "the hook's token",
        |world| {
            let mut command = world.agent();
            command
                .env("SIGNOFF_HOOK_LISTEN", own_address().to_string())
                .env("SIGNOFF_HOOK_TOKEN_FILE", world.path("fifo"));
            (command, What::Fifo(world.path("fifo")))
        },
        Expected::SIGNED_OFF.degraded("hook-token"),
    ),
    case(
        "the certificate of the scheduler's own TLS",
        |world| {
            let command = world.agent();
            let fifo = world.path("fifo");
            let tls = format!(
                "  tls:\n    caCert: {fifo}\n    cert: {fifo}\n    key: {fifo}\nmanager:",
                fifo = fifo.display()
            );
            let path = world.path("scheduler.yaml");
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(path, text.replacen("manager:", &tls, 1)).unwrap();
            (command, What::Fifo(fifo))
        },
        Expected::SIGNED_OFF,
    ),
    case(
        "scheduler.yaml",
        |world| (world.agent(), What::Calls(READS, world.path("scheduler.yaml"))),
        Expected::NOBODYS.degraded("scheduler-config"),
    ),
    case(
        "scheduler.yaml, where flags say it all",
        |world| (told_by_flags(world), What::Calls(READS, world.path("scheduler.yaml"))),
        Expected::SIGNED_OFF.degraded("scheduler-config"),
    ),
    case(
        "/etc/hosts, where the manager has a name",
        |world| {
            let command = world.agent();
            let manager = world.manager.grpc_addr();
            without(world, "addr:", "");
            let path = world.path("scheduler.yaml");
            let text = std::fs::read_to_string(&path).unwrap();
            let named = format!("manager:\n  addr: localhost:{}", manager.port());
            std::fs::write(path, text.replacen("manager:", &named, 1)).unwrap();
            (command, What::Calls(READS, "/etc/hosts".into()))
        },
        Expected::QUEUED,
    ),
    case(
        "the run directory",
        |world| (world.agent(), What::Calls("statx,mkdir", world.path("run"))),
        Expected::SIGNED_OFF.degraded("socket").without_a_socket(),
    ),
    case(
        "the run directory's lock",
        |world| (world.agent(), What::Calls("openat", world.path("run/agent.lock"))),
        Expected::SIGNED_OFF.degraded("socket").without_a_socket(),
    ),
    case(
        "the socket, as it is bound",
        |world| (world.agent(), What::Calls("unlink,chmod,rename", world.path("run/agent.sock.new"))),
        Expected::SIGNED_OFF.degraded("socket").without_a_socket(),
    ),
    case(
        "the socket, as it is removed",
        |world| (world.agent(), What::Calls("unlink", world.path("run/agent.sock"))),
        Expected::SIGNED_OFF,
    ),
    case(
        "agent.json",
        |world| {
            // The socket finds the directory there; who writes agent.json makes sure of it first.
            std::fs::create_dir(world.path("run")).unwrap();
            (world.agent(), What::Calls("mkdir", world.path("run")))
        },
        Expected::SIGNED_OFF.degraded("settings"),
    ),
    case(
        "the spool",
        |world| (world.agent(), What::Calls("openat", world.path("spool/spool.lock"))),
        Expected::SIGNED_OFF,
    ),
    case(
        "mountinfo",
        |world| (world.agent(), What::Calls("openat", "/proc/self/mountinfo".into())),
        Expected::SIGNED_OFF,
    ),
    case(
        "mountinfo, and the manager is away",
        |world| {
            let mut command = world.agent();
            command.env("SIGNOFF_MANAGER", "127.0.0.1:1");
            (command, What::Calls("openat", "/proc/self/mountinfo".into()))
        },
        Expected::QUEUED,
    ),
    case("stderr", |world| (world.agent(), What::Stderr), Expected::SIGNED_OFF),
];

/// A pipe that is full, whose other end is kept open and never read.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let size = rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    writer.write_all(&vec![b'\n'; size]).unwrap();
    (reader, writer)
}

/// An agent, and what must stay for it to hang.
struct Hanging {
    agent: Process,
    traced: bool,
    _unread: Option<std::io::PipeReader>,
}

impl Hanging {
    fn start(world: &World, command: Command, what: What) -> Self {
        let (mut traces, mut unread) = (false, None);
        let agent = match what {
            What::Fifo(path) => {
                mkfifo(&path);
                Process::start(command)
            }
            What::Calls(calls, path) => {
                traces = true;
                let arguments = [
                    "-P".to_owned(),
                    path.display().to_string(),
                    "-e".to_owned(),
                    format!("trace={calls}"),
                    "-e".to_owned(),
                    format!("inject={calls}:delay_enter=3600s"),
                ];
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                Process::start(traced(&command, &world.path("strace"), &arguments))
            }
            What::Stderr => {
                let (reader, writer) = full_pipe();
                unread = Some(reader);
                Process::start_saying_to(command, Stdio::piped(), writer.into())
            }
        };
        Self { agent, traced: traces, _unread: unread }
    }

    /// Waits until it has called exit: how long after `since`, its exit code, and what it said.
    async fn exits(mut self, since: Instant) -> (Duration, i32, String) {
        let status = format!("/proc/{}/status", self.agent.pid());
        // A thread that strace delays stays until strace lets go of it: the process is a zombie by then.
        let gone = async || std::fs::read_to_string(&status).unwrap().contains("State:\tZ").then_some(());
        eventually("the agent's exit", gone).await;
        let took = since.elapsed();
        if std::mem::take(&mut self.traced) {
            let_go(self.agent.pid());
        }
        let (code, log) = self.agent.end().await;
        (took, code, log)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // Else it would wait for its threads, which wait for strace.
        if self.traced {
            let_go(self.agent.pid());
        }
    }
}

fn mkfifo(path: &Path) {
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, path, fifo, 0o600.into(), 0).unwrap();
}

/// Ends the strace that traces this process.
fn let_go(pid: u32) {
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:\t")?.parse().ok());
        if let Some(tracer) = tracer.and_then(rustix::process::Pid::from_raw) {
            // It may have ended by itself this moment.
            let _ = rustix::process::kill_process(tracer, rustix::process::Signal::KILL);
        }
    }
}

async fn goes_on(case: &Case) {
    let Case { name, set, expected } = case;
    let mut world = World::new().await;
    let (mut command, what) = set(&world);
    let listen = own_address();
    command.env("SIGNOFF_LISTEN", listen.to_string()).env("SIGNOFF_GRACE", format!("{}s", GRACE.as_secs()));
    let hanging = Hanging::start(&world, command, what);
    assert_eq!(get(listen, "/livez").await.0, 200, "{name}");
    let serving = expected.end.0 != 69 && *name != "the certificate of the scheduler's own TLS";
    if serving {
        eventually("the scheduler seen", async || {
            (metric(listen, "signoff_scheduler_up").await == "1.0").then_some(())
        })
        .await;
    }
    if let Some(reason) = expected.degraded {
        let reason = format!("signoff_degraded{{reason=\"{reason}\"}}");
        eventually(&format!("{name}: {reason}"), async || {
            (metric(listen, &reason).await == "1").then_some(())
        })
        .await;
    }
    if expected.status {
        let answers = async || (run(world.command(&["status"])).await.0 == 0).then_some(());
        eventually(&format!("{name}: status"), answers).await;
    }
    let began = Instant::now();
    hanging.agent.term();
    world.scheduler.vanish().await;
    let (took, code, log) = hanging.exits(began).await;
    assert_eq!((code, world.state()), (expected.end.0, Some(expected.end.1)), "{name}: {log}");
    assert!(took < GRACE + Duration::from_millis(500), "{name}: {took:?}: {log}");
    // This machine's own disk may be too slow, by chance.
    if code == 75 && !log.contains("has not answered within 500 ms") {
        assert!(!world.asks().is_empty(), "{name}: {log}");
    }
}

#[tokio::test]
async fn g8_whichever_file_hangs_the_agent_starts_answers_signs_off_and_is_gone_in_time() {
    if !can_inject() {
        return;
    }
    let failed = tokio::task::LocalSet::new().run_until(all_in_turn()).await;
    assert!(failed.is_empty(), "with each of these hanging: {failed:#?}");
}

/// The cases that don't go as expected; why is in what they panic with.
async fn all_in_turn() -> Vec<&'static str> {
    let mut failed = Vec::new();
    // As many at once as don't crowd each other out of the time that is measured.
    for some in CASES.chunks(4) {
        let one = |case| tokio::task::spawn_local(tokio::time::timeout(LONG * 2, goes_on(case)));
        for (case, task) in some.iter().map(|case| (case, one(case))).collect::<Vec<_>>() {
            if !matches!(task.await, Ok(Ok(()))) {
                failed.push(case.name);
            }
        }
    }
    failed
}

#[tokio::test]
async fn g4_an_agent_whose_runtime_hangs_is_gone_by_its_deadline() {
    if !can_inject() {
        return;
    }
    let world = World::new().await;
    let listen = own_address();
    let mut command = world.agent();
    command.env("SIGNOFF_LISTEN", listen.to_string()).env("SIGNOFF_GRACE", format!("{}s", GRACE.as_secs()));
    let agent = Process::watching(command).await;
    assert_eq!(get(listen, "/livez").await.0, 200);
    // The runtime's thread never comes back from its next wait, which somebody's call ends.
    let hangs =
        ["-e", "trace=epoll_wait,epoll_pwait", "-e", "inject=epoll_wait,epoll_pwait:delay_exit=3600s"];
    let strace = Strace::attach(agent.pid(), &hangs);
    let call = tokio::net::TcpStream::connect(listen).await.unwrap();
    let status = format!("/proc/{}/status", agent.pid());
    let hung = async || std::fs::read_to_string(&status).unwrap().contains("State:\tt").then_some(());
    eventually("the runtime hangs", hung).await;
    let began = Instant::now();
    agent.term();
    // Once exit was called only the thread that strace holds is left.
    let threads = format!("/proc/{}/task", agent.pid());
    let gone = async || (std::fs::read_dir(&threads).unwrap().count() == 1).then_some(());
    eventually("the agent's exit", gone).await;
    let took = began.elapsed();
    drop((strace, call));
    let (code, log) = agent.ended().await;
    assert_eq!(code, 75, "{log}");
    assert!(took < GRACE + Duration::from_millis(500), "{took:?}: {log}");
}

/// What a command for people does while a file hangs: its exit code, and a word of what it says.
type Said = (&'static [&'static str], fn(&World) -> What, i32, &'static str);

const COMMANDS: &[Said] = &[
    (&["check"], agent_json, 0, "no answer within 1s"),
    (&["pre-stop"], agent_json, 0, "confirmed"),
    (&["queue", "list"], agent_json, 0, "no pending sign-offs"),
    (&["check"], |world| What::Fifo(world.path("password")), 1, "no answer within 1s"),
    (&["queue", "list"], the_spool, 69, "no answer within 15s"),
    (&["queue", "show", "1"], the_spool, 69, "no answer within 15s"),
    (&["queue", "drop", "1"], the_spool, 69, "no answer within 15s"),
    (
        &["queue", "flush"],
        |world| What::Calls("openat", world.path("spool/spool.lock")),
        69,
        "has not answered within",
    ),
    (&["check"], the_spool, 1, "no answer within"),
    (&["pre-stop"], |world| What::Calls("openat", world.path("spool/spool.lock")), 0, "confirmed"),
];

fn agent_json(world: &World) -> What {
    What::Calls(READS, world.path("run/agent.json"))
}

fn the_spool(world: &World) -> What {
    What::Calls("openat,statx", world.path("spool"))
}

async fn ends_and_says_why((arguments, hangs, expected, words): &Said) {
    let world = World::new().await;
    std::fs::create_dir(world.path("spool")).unwrap();
    let agent = world.agent_with_rest();
    let mut command = world.command(arguments);
    command.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if arguments[0] != "queue" || arguments[1] == "flush" {
        command.env("SIGNOFF_SPOOL", world.path("spool"));
    }
    let what = hangs(&world);
    if let What::Fifo(path) = &what {
        std::fs::remove_file(path).unwrap();
    }
    let began = Instant::now();
    let (took, code, log) = Hanging::start(&world, command, what).exits(began).await;
    assert_eq!(code, *expected, "{arguments:?}: {log}");
    assert!(log.contains(words), "{arguments:?}: {log}");
    assert!(took < Duration::from_secs(30), "{arguments:?}: {took:?}: {log}");
}

#[tokio::test]
async fn whichever_file_hangs_a_command_for_people_ends_and_says_why() {
    if !can_inject() {
        return;
    }
    let commands = tokio::task::LocalSet::new();
    let all = async {
        let one = |said| tokio::task::spawn_local(tokio::time::timeout(LONG * 2, ends_and_says_why(said)));
        let mut failed = Vec::new();
        for (said, task) in COMMANDS.iter().map(|said| (said, one(said))).collect::<Vec<_>>() {
            if !matches!(task.await, Ok(Ok(()))) {
                failed.push((said.0, said.3));
            }
        }
        failed
    };
    let failed = commands.run_until(all).await;
    assert!(failed.is_empty(), "these don't: {failed:#?}");
}

/// Files that are no file on a disk: the kernel answers from memory.
const OF_THE_KERNEL: [&str; 2] = ["\"/proc/self/maps\"", "\"/proc/net/"];

#[tokio::test]
async fn g8_the_runtimes_thread_touches_no_file() {
    if !can_inject() {
        return;
    }
    let mut world = World::new().await;
    // Everything that has a file.
    let (mut command, _) = with_rest_over_tls(&world, "SIGNOFF_CA_FILE", "never-read");
    let hook = own_address();
    std::fs::write(world.path("token"), "s3cr3t-sesame").unwrap();
    command
        .env("SIGNOFF_HOOK_LISTEN", hook.to_string())
        .env("SIGNOFF_HOOK_TOKEN_FILE", world.path("token"))
        .env("HOST_IP", "127.0.0.1")
        .env(
            "SIGNOFF_MANAGER",
            format!("localhost:{},https://{}", world.manager.grpc_addr().port(), world.manager.rest_addr()),
        );
    let trace = world.path("strace");
    let arguments = ["-e", "trace=%file,bind,connect,flock,fsync", "-e", "signal=none"];
    let agent = Process::watching(traced(&command, &trace, &arguments)).await;
    agent.says("Listening for hooks.").await;
    assert_eq!(run(world.command(&["status"])).await.0, 0);
    assert_eq!(get(hook, "/pre-stop").await.0, 401);
    // As strace begins its lines.
    let of_the_first_thread = format!("{:<5} ", agent.pid());
    agent.term();
    world.scheduler.vanish().await;
    agent.ends_signed_off(&world).await;
    // The last that strace writes is that it ended.
    let trace = eventually("all of the trace", async || {
        let trace = std::fs::read_to_string(&trace).unwrap();
        trace.contains(&format!("{of_the_first_thread}+++ exited")).then_some(trace)
    })
    .await;
    let lines = trace.lines().filter(|line| line.starts_with(&of_the_first_thread));
    // First the loader's.
    let lines = lines.skip_while(|line| !line.contains("/proc/self/maps"));
    let touched = |line: &&str| {
        let internet = line.contains("AF_INET") || line.contains("AF_NETLINK");
        let by_descriptor = line.contains("AT_EMPTY_PATH");
        // Its beginning is a line of its own.
        let goes_on = line.contains(" resumed>") || line.contains("+++");
        !internet && !by_descriptor && !goes_on && !OF_THE_KERNEL.iter().any(|file| line.contains(file))
    };
    let touched: Vec<&str> = lines.filter(touched).collect();
    assert!(trace.contains("agent.sock.new") && trace.contains("agent.json"), "this has seen nothing");
    assert!(touched.is_empty(), "the runtime's thread: {touched:#?}");
}
