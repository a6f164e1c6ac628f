//! The harness and the whole-market tests.
