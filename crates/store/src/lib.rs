//! Records, compare-and-set, watches, sessions and locks, over ZooKeeper, an embedded database or memory.
