//! SIGTERM at an agent until the manager has written `inactive`, beside a bare client's call until then and beside the fsyncs
//! alone, in turn: on a warm connection, and on a cold one (the manager has just come back). Microseconds.

use std::{collections::BTreeMap, net::SocketAddr, path::Path};

use serde::Serialize;
use serde_json::{Value, to_value};
use signoff::{
    key::SchedulerKey,
    mock::{Collation, Config, Database},
    net::Connection,
};
use tokio::time::Instant;

use crate::{
    Failed, LATENCY, active_row, bare,
    process::{Agent, ends, key, terminate},
    served::Served,
};

#[derive(Default, Serialize)]
struct Times {
    client: Vec<u128>,
    fsyncs: Vec<u128>,
    agent: Vec<u128>,
}

/// So many of each; spools are in `dir`.
pub(crate) async fn run(program: &Path, dir: &Path, times: usize) -> Result<Value, Failed> {
    let table = Database::in_memory(Collation::default());
    let config = Config { database: Some(table.clone()), latency: LATENCY, ..Config::default() };
    let manager = Served::start(config).await?;
    // A scheduler that was never seen to serve is not waited for.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?;
    let scheduler = nobody.local_addr()?;
    drop(nobody);
    let mut told: BTreeMap<&str, Times> = BTreeMap::new();
    for (name, is_warm) in [("warm", true), ("cold", false)] {
        let warm = if is_warm { Some(bare::connect(manager.grpc).await?) } else { None };
        let times_of = told.entry(name).or_default();
        for turn in 0..times {
            let of_the_client = key(&format!("client-{name}"), turn)?;
            active_row(&table, &of_the_client, 8002)?;
            times_of.client.push(client(&table, manager.grpc, warm.as_ref(), &of_the_client).await?);

            let of_the_agent = key(&format!("agent-{name}"), turn)?;
            active_row(&table, &of_the_agent, 8002)?;
            if !is_warm {
                manager.stop().await?;
            }
            let mut agent = Agent::start(program, dir, &of_the_agent, scheduler, manager.grpc)?;
            agent
                .until(|status| status["started"] == true && status["manager"]["answered"] == is_warm)
                .await?;
            if !is_warm {
                manager.restart().await?;
            }
            // What its start left for the disk is no part of either: an agent of some seconds has it there.
            bare::fsyncs(dir)?;
            times_of.fsyncs.push(bare::fsyncs(dir)?.as_micros());
            let began = terminate(&agent.child)?;
            let code = agent.child.wait().await?;
            if !code.success() {
                return Err(format!("the agent did not sign off: {code}").into());
            }
            times_of.agent.push(written(&table, &of_the_agent, began).await);
        }
    }
    manager.end()?;
    Ok(to_value(told)?)
}

async fn client(
    table: &Database,
    manager: SocketAddr,
    warm: Option<&Connection>,
    key: &SchedulerKey,
) -> Result<u128, Failed> {
    let began = Instant::now();
    match warm {
        Some(warm) => bare::sign_off(warm, key).await?,
        None => bare::sign_off(&bare::connect(manager).await?, key).await?,
    }
    Ok(written(table, key, began).await)
}

/// From a moment to the write of `inactive`.
async fn written(table: &Database, key: &SchedulerKey, began: Instant) -> u128 {
    let ended = ends(table, key, 1).await;
    ended.first().map_or(0, |at| (*at - began).as_micros())
}
