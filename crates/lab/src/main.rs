//! Runs a lab cluster by hand.
fn main() {}
