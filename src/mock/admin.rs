//! The admin API and page.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::{fault::Faults, table::Database};

/// The admin port.
pub(super) struct AdminPort {
    #[allow(dead_code)]
    database: Arc<Database>,
    #[allow(dead_code)]
    faults: Arc<Faults>,
}

impl AdminPort {
    pub(super) fn new(database: Arc<Database>, faults: Arc<Faults>) -> Self {
        Self { database, faults }
    }

    pub(super) async fn run(self, listener: TcpListener) {
        let _ = axum::serve(listener, axum::Router::new()).await;
    }
}
