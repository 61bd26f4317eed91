//! Run standard container images in an attested VM.
fn main() {}
