//! What a Dragonfly manager and a scheduler really do, one test a fact.
//!
//! Facts that a client alone can provoke are tested against any manager: `SIGNOFF_TEST_MANAGER=host:port` (gRPC) and
//! `SIGNOFF_TEST_MANAGER_REST=http://host:port` (with SIGNOFF_TEST_MANAGER_USER, _PASSWORD and _RELEASE), else against the mock. The
//! others need a hand inside; they run against the mock alone, and say so where a manager was named.
//!
//! Facts without a test, since no API shows them: times without a zone in the database, the columns and answers of v2.2.0,
//! the metric label that each made-up version leaves behind.

#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "contract/support.rs"]
mod support;

#[path = "contract/accounts.rs"]
mod accounts;
#[path = "contract/faults.rs"]
mod faults;
#[path = "contract/keep_alive.rs"]
mod keep_alive;
#[path = "contract/lists.rs"]
mod lists;
#[path = "contract/outages.rs"]
mod outages;
#[path = "contract/releases.rs"]
mod releases;
#[path = "contract/rest.rs"]
mod rest;
#[path = "contract/scheduler.rs"]
mod scheduler;
#[path = "contract/tls.rs"]
mod tls;
