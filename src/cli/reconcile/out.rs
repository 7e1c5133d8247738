//! Standard output, which nobody may read: what is written there is written on a thread of its own, so that a pipe that takes
//! nothing holds up neither a signal, nor the deadline, nor the next run.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::oneshot;
use tracing::{error, warn};

/// Who writes to standard output, one text at a time.
#[derive(Default)]
pub(super) struct Out {
    busy: Arc<AtomicBool>,
}

impl Out {
    /// Has `write` called on a thread of its own, which the process doesn't wait for at its end. Resolves when it is done; at once
    /// where the text before is still being written: then this one is left out, and that is said.
    pub(super) async fn write(&self, write: impl FnOnce() + Send + 'static) {
        if self.busy.swap(true, Ordering::SeqCst) {
            warn!("Standard output takes nothing: a report was left out.");
            return;
        }
        let (tell, done) = oneshot::channel::<()>();
        let busy = Arc::clone(&self.busy);
        let spawned = std::thread::Builder::new().name("stdout".to_owned()).spawn(move || {
            write();
            busy.store(false, Ordering::SeqCst);
            // Who waited may have given up.
            let _ = tell.send(());
        });
        if let Err(error) = spawned {
            self.busy.store(false, Ordering::SeqCst);
            error!(%error, "Standard output can't be written.");
        }
        // A thread that could not be started is the end too.
        let _ = done.await;
    }
}
