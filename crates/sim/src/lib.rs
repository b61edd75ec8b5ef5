//! Whole clusters of agents in one thread on virtual time, with seeded faults.
