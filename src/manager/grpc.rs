//! The manager's gRPC API.
