//! The HTTP API: requests in, answers out; no decision is made here.
