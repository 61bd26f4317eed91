//! Fetches images and keeps converted layers.
