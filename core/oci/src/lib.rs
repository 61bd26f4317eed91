//! The documents that describe a container image: references, digests, indexes, manifests, configurations.
//!
//! **Trusts** nothing: every byte comes from a registry, a folder or an archive that somebody else made.
//! **Promises** that a value of these types keeps the bounds of [`limits`], that a [`Digest`] is a well-formed SHA-256
//! and that a [`Document`] is either an index or a manifest and never something that could be read as both
//! (CVE-2021-41190). **Refuses** other digest algorithms than SHA-256, manifests of schema 1, artifacts that are not
//! container images, encrypted layers, and documents beyond the limits. It does no I/O: whoever fetches the bytes
//! compares them with their digest ([`Digest::check`]).
//!
//! Formats: OCI image specification 1.1 (manifest, index, config, image-layout), Docker image manifest version 2
//! schema 2, the Docker image specification 1.2 (`manifest.json` of `docker save`), and the reference grammar of the
//! distribution project.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::allow_attributes,
        reason = "a test may stop at the first surprise"
    )
)]

mod archive;
mod config;
mod digest;
mod error;
mod json;
mod layout;
mod manifest;
mod media;
mod platform;
mod reference;
mod shown;

pub mod limits;

pub use archive::{ArchiveImage, parse_archive_manifest};
pub use config::ImageConfig;
pub use digest::{Digest, Hasher};
pub use error::OciError;
pub use layout::{check_layout_marker, parse_layout_index, select_named};
pub use manifest::{Descriptor, Document, Index, Manifest, parse_document};
pub use media::MediaType;
pub use platform::Platform;
pub use reference::Reference;
pub use shown::shown;
