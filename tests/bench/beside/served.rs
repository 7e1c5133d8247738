//! A mock manager on a thread of its own, as a manager has a machine of its own.

use std::{net::SocketAddr, thread::JoinHandle};

use signoff::mock::{Call, Config, MockManager};
use tokio::sync::{mpsc, oneshot};

use crate::Failed;

enum Order {
    Stop,
    Restart,
    Calls(oneshot::Sender<Vec<Call>>),
}

/// Each order is dropped with its sender when it is done.
type Orders = mpsc::Receiver<(Order, oneshot::Sender<()>)>;

pub(crate) struct Served {
    pub(crate) grpc: SocketAddr,
    orders: mpsc::Sender<(Order, oneshot::Sender<()>)>,
    thread: JoinHandle<Result<(), Failed>>,
}

async fn serve(config: Config, ready: oneshot::Sender<SocketAddr>, mut orders: Orders) -> Result<(), Failed> {
    let mut manager = MockManager::start(config).await?;
    ready.send(manager.grpc_addr()).map_err(|_| "nobody waits for the manager")?;
    while let Some((order, _done)) = orders.recv().await {
        match order {
            Order::Stop => manager.stop().await,
            Order::Restart => manager.restart().await?,
            Order::Calls(tell) => drop(tell.send(manager.calls())),
        }
    }
    Ok(())
}

impl Served {
    /// Starts one; it serves when this returns.
    pub(crate) async fn start(config: Config) -> Result<Self, Failed> {
        let (ready, is_ready) = oneshot::channel();
        let (orders, taken) = mpsc::channel(1);
        let thread = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(serve(config, ready, taken))
        });
        Ok(Self { grpc: is_ready.await?, orders, thread })
    }

    async fn order(&self, order: Order) -> Result<(), Failed> {
        let (done, is_done) = oneshot::channel();
        self.orders.send((order, done)).await.map_err(|_| "the manager has ended")?;
        // Never sent, only dropped.
        let _ = is_done.await;
        Ok(())
    }

    /// Kills it.
    pub(crate) async fn stop(&self) -> Result<(), Failed> {
        self.order(Order::Stop).await
    }

    /// Starts it again, at the same port.
    pub(crate) async fn restart(&self) -> Result<(), Failed> {
        self.order(Order::Restart).await
    }

    /// What it was asked, if it has a limit.
    pub(crate) async fn calls(&self) -> Result<Vec<Call>, Failed> {
        let (tell, told) = oneshot::channel();
        self.order(Order::Calls(tell)).await?;
        Ok(told.await?)
    }

    /// Ends it, and says whether all went well.
    pub(crate) fn end(self) -> Result<(), Failed> {
        drop(self.orders);
        self.thread.join().map_err(|_| "the manager panicked")?
    }
}
