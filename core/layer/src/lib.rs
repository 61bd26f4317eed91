//! A container layer's tar stream to a deterministic ext4 image.
