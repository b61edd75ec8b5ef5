//! Pure decisions: what to do next, given what is known. No I/O, no clock, no async.
