//! Every type that Drover stores or sends, its validation, and its states; no I/O.
