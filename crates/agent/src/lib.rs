//! Control loops of a node: wait for a change, ask plan what to do, do one step through the drivers.
