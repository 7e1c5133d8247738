//! A scheduler's graceful stop: alone, with an idle gRPC connection to it, and with the agent beside it, in turn. From its
//! SIGTERM to its process' end, to the first write of `inactive`, and to the last. Microseconds.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde::Serialize;
use serde_json::{Value, to_value};
use signoff::{
    manager::State,
    mock::{Collation, Config, Database},
};

use crate::{
    Failed, LATENCY, bare,
    process::{Agent, ends, key, scheduler, terminate},
    served::Served,
};

/// A bound for a machine that hangs, no verdict.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it has served, and was watched, when it stops: a connection that is lost sooner is taken for a peer that cuts at once,
/// and one that has just started has its caches warm.
const SERVED: Duration = Duration::from_millis(300);

#[derive(Default, Serialize)]
struct Stops {
    end: Vec<u128>,
    first: Vec<u128>,
    last: Vec<u128>,
}

/// So many stops of each kind.
pub(crate) async fn run(program: &Path, mocks: &Path, dir: &Path, times: usize) -> Result<Value, Failed> {
    let table = Database::in_memory(Collation::default());
    let config = Config { database: Some(table.clone()), latency: LATENCY, ..Config::default() };
    let manager = Served::start(config).await?;
    let mut stops: BTreeMap<&str, Stops> = BTreeMap::new();
    for turn in 0..times {
        for kind in ["alone", "connection", "agent"] {
            let key = key(kind, turn)?;
            let (mut child, addr) = scheduler(mocks, &key, manager.grpc).await?;
            if !table.eventually_state(&key, Some(State::Active), PATIENCE).await {
                return Err(format!("{key} was never active").into());
            }
            let (mut connection, mut agent) = (None, None);
            match kind {
                "connection" => connection = Some(bare::connect(addr).await?),
                "agent" => {
                    let beside = agent.insert(Agent::start(program, dir, &key, addr, manager.grpc)?);
                    let watches = |status: &Value| {
                        status["scheduler"]["state"] == "serving" && status["identity_known"] == true
                    };
                    beside.until(watches).await?;
                }
                _ => {}
            }
            tokio::time::sleep(SERVED).await;
            let began = terminate(&child)?;
            child.wait().await?;
            let gone = began.elapsed();
            // The scheduler's own stream, and the agent's.
            let mut ended = ends(&table, &key, 1 + usize::from(agent.is_some())).await;
            drop((connection, agent));
            ended.sort();
            let stops = stops.entry(kind).or_default();
            stops.end.push(gone.as_micros());
            stops.first.extend(ended.first().map(|at| (*at - began).as_micros()));
            stops.last.extend(ended.last().map(|at| (*at - began).as_micros()));
        }
    }
    manager.end()?;
    Ok(to_value(stops)?)
}
