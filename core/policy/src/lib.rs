//! The CCE policy: generate, parse, enforce, explain.
