//! A mock manager that has so many active rows of schedulers that are gone, and a spool with as many sign-offs of theirs, as a dead
//! agent leaves them: `spool GRPC REST DIRECTORY COUNT`. Says `ready` once they are there, and when (in seconds since the Unix epoch)
//! all of them are inactive; serves until it is killed. For `tests/bench/run`.

use std::{
    error::Error,
    fs,
    time::{Duration, SystemTime},
};

use signoff::{
    key::SchedulerKey,
    manager::State,
    mock::{
        manager::{Config, MockManager},
        table::Registration,
    },
};

#[path = "../record/mod.rs"]
mod record;

type Failed = Box<dyn Error>;

/// Where nobody listens.
const PORT: u16 = 1;

fn main() -> Result<(), Failed> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve())
}

async fn serve() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [grpc, rest, directory, count] = arguments.as_slice() else {
        return Err("spool GRPC REST DIRECTORY COUNT".into());
    };
    let config = Config { grpc: grpc.parse()?, rest: rest.parse()?, ..Config::default() };
    let manager = MockManager::start(config).await?;
    fs::create_dir_all(directory)?;
    for id in 0..count.parse()? {
        let hostname = format!("dragonfly-scheduler-{id}.scheduler.dragonfly.svc.cluster.local");
        let key = SchedulerKey::new(1.try_into()?, hostname.parse()?, "127.0.0.1".parse()?);
        let row = Registration {
            hostname,
            ip: key.ip.to_string(),
            port: PORT.into(),
            cluster_id: key.cluster_id.get(),
            ..Registration::default()
        };
        manager.table().register(row)?;
        manager.table().set_by_hand(&key, State::Active)?;
        let address = format!("{}:{PORT}", key.ip);
        record::write_ask(directory.as_ref(), 1, &key, id, &address, 1_800_000_000_000 + id)?;
    }
    println!("ready");
    while manager.table().rows()?.iter().any(|row| row.port == i32::from(PORT) && row.state == State::Active)
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{}", SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64());
    std::future::pending().await
}
