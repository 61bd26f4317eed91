//! Bounds on what an image may ask of a reader. They are far above what images in the field use and far below what hurts.

/// Layers of one image: as many as a group can have, so that an image with more is refused before its layers are fetched.
pub use caveau_group::MAX_LAYERS;

/// Bytes of a manifest or an index. Registries refuse to store larger ones (distribution specification 1.1, "Pushing manifests").
pub const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Bytes of an image configuration.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// Entries of one index.
pub const MAX_INDEX_ENTRIES: usize = 4096;
/// Entries of each list or map in an image configuration: arguments, environment, labels, volumes, ports.
pub const MAX_CONFIG_ENTRIES: usize = 8192;
/// Bytes of one string in an image configuration: Linux's own bound for one argument or variable (`MAX_ARG_STRLEN`).
pub const MAX_STRING_BYTES: usize = 128 << 10;
/// Bytes of a whole reference.
pub const MAX_REFERENCE_BYTES: usize = 1024;
/// Bytes of a repository's name (reference grammar: 255 with its registry).
pub const MAX_NAME_BYTES: usize = 255;
/// Bytes of a tag (reference grammar).
pub const MAX_TAG_BYTES: usize = 128;
/// Images in one `docker save` archive.
pub const MAX_ARCHIVE_IMAGES: usize = 4096;
/// Indexes that may point to one another before a manifest must come.
pub const MAX_INDEX_DEPTH: usize = 4;
