//! Device mapper, verity mounts, encrypted scratch, overlay.
