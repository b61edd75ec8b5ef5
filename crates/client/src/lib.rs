//! A client of the HTTP API, for the command line, for tests, and for daemons that ask each other.
