//! Launches one group's VM and supervises it.
