//! `signoff mock-manager` and `signoff mock-scheduler`.

use std::{io::Write, net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::{
    fault::Fault,
    manager::{Config, MockError, MockManager, Release, User},
    scheduler::{MockScheduler, SchedulerConfig, SchedulerError},
    tls::TlsFiles,
};
use crate::key::{ClusterId, Hostname, SchedulerIp, SchedulerKey};

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; write a duration such as 5s or 200ms"))
}

/// A line for whoever started it; nobody need read it.
fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

const FAULT_HELP: &str = "What goes wrong from the start, repeatable: KIND[,count=N][,seconds=S][,after=S]\n\
    [,scope=grpc|rest][,call=NAME][,status=CODE][,message=TEXT]";

/// Run a mock Dragonfly manager: gRPC, REST, and a page that shows the scheduler table and switches faults.
#[derive(Debug, Clone, Args)]
pub struct MockManagerArgs {
    /// Where gRPC listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:65003")]
    pub grpc_listen: SocketAddr,
    /// Where REST listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub rest_listen: SocketAddr,
    /// Where the page and the fault switches listen, open to all
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    pub admin_listen: SocketAddr,
    /// Keep the table in this file; several managers may share one
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// What goes wrong from the start.
    #[arg(long, value_name = "FAULT", help = FAULT_HELP)]
    pub fault: Vec<Fault>,
    /// What a call takes when all is well
    #[arg(long, value_name = "DURATION", default_value = "2ms", value_parser = duration)]
    pub latency: Duration,
    /// Be like a manager of this release: 2.2 or 2.5
    #[arg(long, value_name = "RELEASE", default_value = "2.5")]
    pub release: Release,
    /// A REST user, repeatable: NAME:PASSWORD:root|guest [default: root:dragonfly:root]
    #[arg(long, value_name = "USER", hide_default_value = true)]
    pub user: Vec<User>,
    /// Serve gRPC and REST over TLS with this certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Ask gRPC clients for a certificate of this CA (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
}

/// Runs a mock manager until `shutdown`, then stops as the real one does: open calls are kept for at most 10 min. Prints a
/// line a listener, with the bound address, once it serves. Fails where it can't start.
pub async fn run_manager(args: MockManagerArgs, shutdown: impl Future<Output = ()>) -> Result<(), MockError> {
    let tls = args.tls_cert.zip(args.tls_key).map(|(cert, key)| TlsFiles {
        cert,
        key,
        client_ca: args.tls_client_ca,
    });
    let users = if args.user.is_empty() { vec![User::root()] } else { args.user };
    let manager = MockManager::start(Config {
        grpc: args.grpc_listen,
        rest: args.rest_listen,
        admin: Some(args.admin_listen),
        state: args.state,
        latency: args.latency,
        release: args.release,
        users,
        collect_every: Some(Duration::from_secs(3600)),
        tls,
        faults: args.fault,
        ..Config::default()
    })
    .await?;
    say(format_args!("grpc {}", manager.grpc_addr()));
    say(format_args!("rest {}", manager.rest_addr()));
    if let Some(admin) = manager.admin_addr() {
        say(format_args!("admin http://{admin}/"));
    }
    manager.run(shutdown).await;
    Ok(())
}

/// Run a mock Dragonfly scheduler: it registers, keeps its row active and serves its health.
#[derive(Debug, Clone, Args)]
pub struct MockSchedulerArgs {
    /// The name it registers with
    #[arg(long, value_name = "NAME")]
    pub hostname: Hostname,
    /// The IP it registers with
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub ip: SchedulerIp,
    /// Where its health service listens
    #[arg(long, value_name = "ADDR", conflicts_with = "port", default_value = "127.0.0.1:8002")]
    pub listen: SocketAddr,
    /// Listen on this port of 127.0.0.1; the same as --listen 127.0.0.1:PORT
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// The port it registers, where that is not the one it listens on
    #[arg(long, value_name = "PORT")]
    pub register_port: Option<u16>,
    /// Its scheduler cluster
    #[arg(long, value_name = "ID", default_value = "1")]
    pub cluster_id: ClusterId,
    /// The manager's gRPC
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:65003")]
    pub manager: String,
    /// Between its KeepAlive messages, and before the first
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub keep_alive_interval: Duration,
}

/// Runs a mock scheduler until `shutdown`, then stops as the real one does: it waits for every open call, for at most
/// 10 min. Prints one line with the bound address once it serves and is registered. Fails where it can't start.
pub async fn run_scheduler(
    args: MockSchedulerArgs,
    shutdown: impl Future<Output = ()>,
) -> Result<(), SchedulerError> {
    let scheduler = MockScheduler::start(SchedulerConfig {
        key: SchedulerKey::new(args.cluster_id, args.hostname, args.ip),
        manager: args.manager,
        listen: args.port.map_or(args.listen, |port| SocketAddr::from(([127, 0, 0, 1], port))),
        register_port: args.register_port,
        keep_alive_interval: args.keep_alive_interval,
    })
    .await?;
    say(format_args!("scheduler {}", scheduler.addr()));
    scheduler.run(shutdown).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Manager {
        #[command(flatten)]
        args: MockManagerArgs,
    }

    #[derive(Debug, Parser)]
    struct Scheduler {
        #[command(flatten)]
        args: MockSchedulerArgs,
    }

    #[test]
    fn the_defaults_are_the_real_ones_ports() {
        let args = Manager::try_parse_from(["x"]).unwrap().args;
        assert_eq!((args.grpc_listen.port(), args.rest_listen.port()), (65003, 8080));
        let args = Scheduler::try_parse_from(["x", "--hostname", "a"]).unwrap().args;
        assert_eq!((args.listen.port(), args.keep_alive_interval), (8002, Duration::from_secs(5)));
    }

    #[test]
    fn a_wrong_value_is_refused_and_a_password_is_not_repeated() {
        for (flag, value, words) in [
            ("--fault", "refused", "black-hole"),
            ("--latency", "fast", "200ms"),
            ("--release", "1.0", "2.2 or 2.5"),
            ("--user", "me:hunter2hunter2:admin", "root or guest"),
        ] {
            let said = Manager::try_parse_from(["x", flag, value]).unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
        let user: User = "me2:with:colons:guest".parse().unwrap();
        assert_eq!(user.password, "with:colons");
        assert!(!format!("{user:?}").contains("with:colons"));
    }

    #[tokio::test]
    async fn both_run_until_their_shutdown_and_leave_their_ports_free() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut args = Manager::try_parse_from(["x"]).unwrap().args;
        (args.grpc_listen, args.rest_listen, args.admin_listen) = (any, any, any);
        run_manager(args, std::future::ready(())).await.unwrap();

        let manager = MockManager::start(Config::default()).await.unwrap();
        let to = manager.grpc_addr().to_string();
        let line = ["x", "--hostname", "a", "--manager", &to, "--port", "0", "--register-port", "8002"];
        let args = Scheduler::try_parse_from(line).unwrap().args;
        run_scheduler(args, std::future::ready(())).await.unwrap();
        assert_eq!(manager.table().rows().unwrap()[0].port, 8002);
    }
}
