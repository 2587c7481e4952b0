//! Counters and histograms, in the `prometheus` crate's types; any room may count.

/// All of the server's metrics and the registry they are in.
pub struct Metrics {}
