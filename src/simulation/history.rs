//! What happened in a run, in order: written by the world, read by the judges, never by an agent.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    agent::lifecycle::Verdict,
    exit::Exit,
    key::SchedulerKey,
    manager::{Freshness, RowState},
    spool::record::{Cause, RecordId},
};

/// A process of an agent.
pub(super) type Pid = u32;
/// An attempt or a hold.
pub(super) type CallId = u64;

/// How a call ended, without its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Confirmed,
    Absent,
    Rejected,
    Failed,
    Unknown,
}

/// What a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    SignOff { hedge: bool },
    Hold,
    Release,
}

/// What there is to be known of the scheduler whose row is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    /// In truth.
    pub(super) lives: bool,
    /// Its own stream is open: no first message of its own is to come.
    pub(super) streams: bool,
    /// Its row is.
    pub(super) active: bool,
    /// Since when the manager has heard nothing of it.
    pub(super) unheard_for: Duration,
    /// Whoever may read over REST could know that.
    pub(super) times_are_shown: bool,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// What the driver did, in words.
    Fault(String),
    Started {
        pid: Pid,
        key: SchedulerKey,
        spool: String,
    },
    /// It answers for this key from now on.
    AnswersFor {
        pid: Pid,
        key: SchedulerKey,
    },
    Killed {
        pid: Pid,
    },
    Panicked {
        pid: Pid,
    },
    Exited {
        pid: Pid,
        exit: Exit,
        on_disk: bool,
    },
    Terminated {
        pid: Pid,
    },
    PreStop {
        pid: Pid,
        hook: u64,
    },
    Answered {
        pid: Pid,
        hook: u64,
        result: Verdict,
        persisted: bool,
        on_disk: bool,
    },
    /// What the agent was told of its scheduler: it serves (`true`), refuses, or neither.
    Sight {
        pid: Pid,
        serves: Option<bool>,
    },
    Probed {
        pid: Pid,
        address: SocketAddr,
        answers: Option<bool>,
        /// In truth.
        lives: bool,
        /// No packet gets through.
        cut: bool,
    },
    /// The pods of its Kubernetes cluster were listed: these addresses.
    Pods {
        pid: Pid,
        ips: Vec<IpAddr>,
    },
    /// A call began. `on_disk`: an ask for the key is in the durable part of the agent's spool.
    Began {
        pid: Pid,
        call: CallId,
        key: SchedulerKey,
        what: Call,
        on_disk: bool,
        target: Target,
    },
    Ended {
        pid: Pid,
        call: CallId,
        end: End,
    },
    /// A row became what it is, by a call of an agent or by somebody else.
    Row {
        key: SchedulerKey,
        active: bool,
        by: String,
    },
    Read {
        pid: Pid,
        key: SchedulerKey,
        asked: Duration,
        state: Option<RowState>,
        freshness: Freshness,
    },
    Listed {
        pid: Pid,
        /// Each with when it was last heard of, as far as that is shown.
        keys: Vec<(String, IpAddr, Option<String>)>,
    },
    /// A process begins to reconcile.
    Reconciles {
        pid: Pid,
    },
    /// One of its runs ended, and saw these live.
    /// Reconcile deleted this row; whether its scheduler lives, and how long ago the manager heard of it.
    Withdrew {
        pid: Pid,
        key: SchedulerKey,
        lives: bool,
        unheard_for: Duration,
    },
    Reconciled {
        pid: Pid,
        live: Vec<SchedulerKey>,
    },
    /// An ask has its name.
    Asked {
        pid: Pid,
        id: RecordId,
        key: SchedulerKey,
        cause: Cause,
        listed: bool,
    },
    /// An ask has lost its name: it is a mark now, or removed.
    AskGone {
        pid: Pid,
        id: RecordId,
        marked: bool,
    },
    /// The disk of a spool begins, or ends, to make trouble.
    Disk {
        node: usize,
        works: bool,
    },
    /// The faults are over.
    Quiet,
    /// After a while of quiet: what a row was to be, and is.
    Final {
        key: SchedulerKey,
        wanted: bool,
        active: bool,
        why: &'static str,
    },
    /// After a while of quiet: an ask that nobody settled.
    Left {
        id: RecordId,
    },
}

/// The hand that drops asks, as a process.
pub(super) const HAND: Pid = 0;

/// The history of one run.
#[derive(Clone)]
pub(super) struct History {
    start: Instant,
    events: Arc<Mutex<Vec<(Duration, Event)>>>,
}

impl History {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), events: Arc::default() }
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn tell(&self, event: Event) {
        self.events.lock().unwrap().push((self.now(), event));
    }

    pub(super) fn events(&self) -> Vec<(Duration, Event)> {
        self.events.lock().unwrap().clone()
    }
}
