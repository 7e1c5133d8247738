//! Many agents whose manager comes back after an outage, for real: each has the shipped client with a warm connection of its
//! own, the shipped attempts and their delays. Then what the same connections ask when they don't wait at all, which is what
//! this machine can do.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use signoff::{
    agent::{
        attempts::{ATTEMPT_LIMIT, Attempts, Ended, Urgency},
        clock::Clock,
    },
    key::SchedulerKey,
    manager::{
        AttemptOptions, Manager, State,
        client::{Client, ManagerSettings},
        endpoints::Endpoint,
    },
    mock::{Call, Collation, Config, Database},
};
use tokio::time::Instant;

use crate::{Failed, LATENCY, active_row, served::Served};

/// All of them shut down, with this grace.
const URGENCY: Urgency = Urgency::Urgent(Duration::from_secs(30));
/// For how long they don't wait at all.
const FLAT_OUT: Duration = Duration::from_secs(3);

/// What became of one agent: when each of its attempts began, and when its sign-off was acknowledged.
struct Told {
    begun: Vec<Instant>,
    acknowledged: Instant,
}

/// Signs off as an agent does that nothing but the manager keeps from it.
async fn agent(manager: Arc<Client>, key: SchedulerKey) -> Told {
    let clock = Clock::start();
    let mut contact = manager.watch();
    let mut gains = contact.borrow_and_update().gains;
    let mut attempts = Attempts::new(clock.now().at);
    let (mut open, mut begun) = (FuturesUnordered::new(), Vec::new());
    loop {
        let now = clock.now();
        let hedge = attempts.may_hedge(now.at);
        if hedge || attempts.may_begin(now.at) {
            let id = attempts.begin(Vec::new(), now.at);
            begun.push(Instant::now());
            let options = AttemptOptions { hedge, limit: ATTEMPT_LIMIT };
            let (manager, key) = (&manager, &key);
            open.push(async move { (id, manager.sign_off(key, options).await) });
            continue;
        }
        let wake = attempts.wake_at(true, now.at);
        tokio::select! {
            Some((id, outcome)) = open.next() => {
                match attempts.ended(id, &outcome, URGENCY, clock.now()) {
                    Ended::Settled { .. } | Ended::Watched { .. } => return Told { begun, acknowledged: Instant::now() },
                    Ended::Again => {}
                }
            }
            Ok(()) = contact.changed() => {
                let known = std::mem::replace(&mut gains, contact.borrow_and_update().gains);
                if gains > known {
                    attempts.manager_is_back(URGENCY, clock.now());
                }
            }
            () = async { match wake {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            } } => {}
        }
    }
}

/// So many agents, whose manager is away for `outage` and takes `limit` requests a second: seconds and counts. Fails where a row
/// is still active at the end.
pub(crate) async fn run(agents: usize, limit: u32, outage: Duration) -> Result<Value, Failed> {
    // Two ends of a connection each, and of its hedge.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;

    let table = Database::in_memory(Collation::default());
    let keys = (0..agents).map(key).collect::<Result<Vec<SchedulerKey>, Failed>>()?;
    for key in &keys {
        active_row(&table, key, 8002)?;
    }
    let config =
        Config { database: Some(table.clone()), latency: LATENCY, limit: Some(limit), ..Config::default() };
    let manager = Served::start(config).await?;
    let grpc = vec![manager.grpc.to_string().parse::<Endpoint>()?];
    let client = || Client::new(ManagerSettings { grpc: grpc.clone(), ..ManagerSettings::default() });
    let clients = keys.iter().map(|_| client().map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    for client in &clients {
        client.watch().wait_for(|contact| contact.answered).await?;
    }

    manager.stop().await?;
    let working: Vec<_> =
        clients.iter().cloned().zip(keys).map(|(client, key)| tokio::spawn(agent(client, key))).collect();
    tokio::time::sleep(outage).await;
    let back = Instant::now();
    manager.restart().await?;
    let told = join_all(working).await.into_iter().collect::<Result<Vec<Told>, _>>()?;

    let active = table.rows()?.iter().filter(|row| row.state == State::Active).count();
    if active > 0 {
        return Err(format!("{active} rows are still active").into());
    }
    let (peak, refused) = worst(&manager.calls().await?, back);
    let last = told.iter().map(|agent| agent.acknowledged - back).max().unwrap_or_default();
    let since = |agent: &Told| agent.begun.iter().filter(|at| **at >= back).count();
    let most = told.iter().map(since).max().unwrap_or(0);

    let began = Instant::now();
    join_all(clients.iter().enumerate().map(async |(n, client)| {
        let key = key(n)?;
        while began.elapsed() < FLAT_OUT {
            client.sign_off(&key, AttemptOptions { hedge: false, limit: ATTEMPT_LIMIT }).await;
        }
        Ok(())
    }))
    .await
    .into_iter()
    .collect::<Result<(), Failed>>()?;
    let (able, turned_away) = worst(&manager.calls().await?, began);
    manager.end()?;
    let last = last.as_secs_f64();
    Ok(
        json!({ "peak": peak, "last": last, "most": most, "refused": refused, "able": able, "turned_away": turned_away }),
    )
}

fn key(n: usize) -> Result<SchedulerKey, Failed> {
    let ip = format!("10.0.{}.{}", n / 250, n % 250 + 1);
    Ok(SchedulerKey::new(1.try_into()?, format!("sched-{n}").parse()?, ip.parse()?))
}

/// The most calls within any second since a moment, and how many were refused.
fn worst(calls: &[Call], since: Instant) -> (usize, usize) {
    let calls = &calls[calls.partition_point(|call| call.at < since)..];
    let within = |from: &Call| calls.partition_point(|call| call.at < from.at + Duration::from_secs(1));
    let most = calls.iter().enumerate().map(|(first, from)| within(from) - first).max();
    (most.unwrap_or(0), calls.iter().filter(|call| call.refused).count())
}
