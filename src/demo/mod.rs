//! `signoff demo`: the main job, played on a mock manager with real processes.
