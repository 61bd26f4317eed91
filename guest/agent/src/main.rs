//! PID 1 of the guest: boot, gate, lifecycle.
fn main() {}
