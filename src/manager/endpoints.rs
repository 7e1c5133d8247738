//! Where the managers are.
