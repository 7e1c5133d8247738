//! The [`Manager`](super::Manager) that users run: gRPC for writes, REST for fresh reads.
