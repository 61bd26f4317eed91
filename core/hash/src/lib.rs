//! SHA-256 of many equal blocks at once, two streams a core.
