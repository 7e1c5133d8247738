//! The mock manager and the mock scheduler: real servers with the semantics of the real ones.
