//! The manager's REST API.
