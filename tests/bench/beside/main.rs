//! What signoff does, timed beside the same done by something that does nothing else. Tells a line of JSON; for
//! `tests/bench/run`.

use std::{error::Error, net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use signoff::{
    key::{ClusterId, Hostname, SchedulerIp, SchedulerKey},
    manager::State,
    mock::{Database, Registration},
};

mod backlog;
mod bare;
mod crowd;
mod exit;
mod hook;
mod process;
#[path = "../../record/mod.rs"]
mod record;
mod served;
mod sigterm;

type Failed = Box<dyn Error + Send + Sync>;

/// What a call takes a manager when all is well.
const LATENCY: Duration = Duration::from_millis(2);

#[derive(Parser)]
enum Measure {
    /// The hook of an agent that runs, beside a bare client
    Hook {
        manager: SocketAddr,
        socket: PathBuf,
        dir: PathBuf,
        hostname: Hostname,
        ip: SchedulerIp,
        times: usize,
    },
    /// SIGTERM at an agent until its manager has written it, beside a bare client
    Sigterm { agent: PathBuf, dir: PathBuf, times: usize },
    /// A scheduler's graceful stop with the agent beside it, with an idle connection, and alone
    Exit { agent: PathBuf, mocks: PathBuf, dir: PathBuf, times: usize },
    /// Many agents whose manager comes back
    Crowd { agents: usize, limit: u32, outage: humantime::Duration },
    /// The manager of a full spool
    Spool { grpc: SocketAddr, rest: SocketAddr, dir: PathBuf, count: u64 },
    /// That spool's sign-offs, by a bare client
    Calls { manager: SocketAddr, count: u64 },
}

/// A row as that of a scheduler that serves, at `port`.
fn active_row(table: &Database, key: &SchedulerKey, port: u16) -> Result<(), Failed> {
    table.register(Registration {
        hostname: key.hostname.to_string(),
        ip: key.ip.to_string(),
        port: port.into(),
        cluster_id: key.cluster_id.get(),
        ..Registration::default()
    })?;
    table.set_by_hand(key, State::Active)?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let told = match Measure::parse() {
        Measure::Hook { manager, socket, dir, hostname, ip, times } => {
            let key = SchedulerKey::new(ClusterId::try_from(1)?, hostname, ip);
            hook::run(manager, &socket, &dir, &key, times).await?
        }
        Measure::Sigterm { agent, dir, times } => sigterm::run(&agent, &dir, times).await?,
        Measure::Exit { agent, mocks, dir, times } => exit::run(&agent, &mocks, &dir, times).await?,
        Measure::Crowd { agents, limit, outage } => crowd::run(agents, limit, *outage).await?,
        Measure::Spool { grpc, rest, dir, count } => backlog::serve(grpc, rest, &dir, count).await?,
        Measure::Calls { manager, count } => backlog::calls(manager, count).await?,
    };
    println!("{told}");
    Ok(())
}
