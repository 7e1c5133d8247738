//! Generated from `proto/*.proto`; `tests/proto.rs` keeps it fresh.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

/// `manager.v2`: the part of Dragonfly's manager API that signoff speaks.
#[rustfmt::skip]
pub mod manager_v2;

/// `grpc.health.v1`.
#[rustfmt::skip]
pub mod health_v1;
