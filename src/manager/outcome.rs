//! What each answer of the manager means: the one table.
