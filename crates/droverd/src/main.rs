//! The Drover node daemon.
fn main() {}
