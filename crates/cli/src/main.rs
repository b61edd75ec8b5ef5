//! The drover command line.
fn main() {}
