//! The table, row by row. (What must hold in all states is in `tests/handoff`.)
