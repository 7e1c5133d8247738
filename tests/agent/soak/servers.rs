//! A manager and two schedulers on a thread of their own, which do as they are told.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use signoff::{
    key::SchedulerKey,
    mock::{
        fault::Fault,
        manager::{Config, MockManager, User},
        scheduler::{MockScheduler, SchedulerConfig},
        table::Database,
    },
};
use tokio::sync::{mpsc, oneshot};

use crate::harness::PASSWORD;

/// What the servers are told.
#[derive(Debug)]
pub(super) enum Order {
    /// The manager is killed.
    ManagerDown,
    /// It stops as on SIGTERM; open streams are cut.
    ManagerStops,
    ManagerUp,
    Fault(Fault),
    AllWell,
    /// A scheduler stops as on SIGTERM.
    SchedulerStops(usize),
    SchedulerDown(usize),
    /// Fails where the manager can't be reached.
    SchedulerUp(usize),
}

pub(super) struct Servers {
    pub(super) table: Arc<Database>,
    pub(super) grpc: SocketAddr,
    pub(super) rest: SocketAddr,
    pub(super) schedulers: Vec<SocketAddr>,
    orders: mpsc::UnboundedSender<(Order, oneshot::Sender<bool>)>,
}

impl Servers {
    /// Schedulers of these keys, which send a message so often.
    pub(super) async fn start(keys: Vec<SchedulerKey>, interval: Duration) -> Self {
        let (orders, mut told) = mpsc::unbounded_channel::<(Order, oneshot::Sender<bool>)>();
        let (ready, started) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let users = vec![User::root(), User::guest("viewer", PASSWORD)];
                let mut manager = MockManager::start(Config { users, ..Config::default() }).await.unwrap();
                let mut schedulers = Vec::new();
                for key in keys {
                    let config = SchedulerConfig::new(key, manager.grpc_addr()).every(interval);
                    schedulers.push(MockScheduler::start(config).await.unwrap());
                }
                let addrs = schedulers.iter().map(MockScheduler::addr).collect();
                let found = (Arc::clone(manager.table()), manager.grpc_addr(), manager.rest_addr(), addrs);
                drop(ready.send(found));
                while let Some((order, done)) = told.recv().await {
                    let mut well = true;
                    match order {
                        Order::ManagerDown => manager.stop().await,
                        Order::ManagerStops => {
                            manager.stop_gracefully().await;
                            manager.stop().await;
                        }
                        Order::ManagerUp => manager.restart().await.unwrap(),
                        Order::Fault(fault) => manager.faults().add(fault).unwrap(),
                        Order::AllWell => manager.faults().clear(),
                        Order::SchedulerStops(n) => schedulers[n].stop().await,
                        Order::SchedulerDown(n) => schedulers[n].kill().await,
                        Order::SchedulerUp(n) => well = schedulers[n].restart().await.is_ok(),
                    }
                    let _ = done.send(well);
                }
            });
        });
        let (table, grpc, rest, schedulers) = started.await.unwrap();
        Self { table, grpc, rest, schedulers, orders }
    }

    /// Tells them, and waits for it. Answers whether it was possible.
    pub(super) async fn tell(&self, order: Order) -> bool {
        let (done, told) = oneshot::channel();
        self.orders.send((order, done)).unwrap();
        told.await.unwrap()
    }
}
