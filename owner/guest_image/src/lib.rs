//! Assembles kernel, modules and agent into the measured guest.
