//! A full spool and its manager, and the same calls by a bare client.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use signoff::{
    key::SchedulerKey,
    manager::State,
    mock::manager::{Config, MockManager},
};

use crate::{Failed, LATENCY, active_row, bare, record};

/// Where nobody listens.
const PORT: u16 = 1;

fn key(id: u64) -> Result<SchedulerKey, Failed> {
    let hostname = format!("dragonfly-scheduler-{id}.scheduler.dragonfly.svc.cluster.local");
    Ok(SchedulerKey::new(1.try_into()?, hostname.parse()?, "127.0.0.1".parse()?))
}

/// A manager that has so many active rows of schedulers that are gone, and a spool with as many sign-offs of theirs, as a dead agent
/// leaves them. Says `ready` once they are there, and when (in seconds since the Unix epoch) all of them are inactive; serves until it
/// is killed.
pub(crate) async fn serve(
    grpc: SocketAddr,
    rest: SocketAddr,
    spool: &Path,
    count: u64,
) -> Result<Value, Failed> {
    let manager = MockManager::start(Config { grpc, rest, latency: LATENCY, ..Config::default() }).await?;
    fs::create_dir_all(spool)?;
    for id in 0..count {
        let key = key(id)?;
        active_row(manager.table(), &key, PORT)?;
        let address = format!("{}:{PORT}", key.ip);
        let managers = [format!("grpc://{grpc}")];
        record::write_ask(spool, 1, &key, id, &address, 1_800_000_000_000 + id, &[&managers[0]])?;
    }
    println!("ready");
    while manager.table().rows()?.iter().any(|row| row.port == i32::from(PORT) && row.state == State::Active)
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{}", SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64());
    std::future::pending().await
}

/// Signs them off one after the other, on one warm connection.
pub(crate) async fn calls(manager: SocketAddr, count: u64) -> Result<Value, Failed> {
    let warm = bare::connect(manager).await?;
    let began = Instant::now();
    for id in 0..count {
        bare::sign_off(&warm, &key(id)?).await?;
    }
    Ok(json!({ "seconds": began.elapsed().as_secs_f64() }))
}
