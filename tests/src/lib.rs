//! End-to-end tests with real VMs.
