//! The launch digest of a launch specification.
