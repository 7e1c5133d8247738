//! Logs: JSON or human-readable lines on stderr, by flag and by whether stderr is a terminal.
