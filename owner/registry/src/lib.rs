//! Fetches images and keeps their layers, converted once, for every group to share.
//!
//! **Trusts** the machine it runs on, its user's files and the certificates given to it; no registry, layout, archive or
//! proxy. **Promises** that whatever [`resolve`] returns has the digests by which it was asked for: manifest,
//! configuration, each compressed layer, and each uncompressed tar (its diff ID) are hashed while they stream, and what
//! has another digest or size leaves nothing behind; that an entry of the store is complete or not there, whatever
//! process is killed when; and that a damaged entry is noticed and built again. **Refuses** what is beyond [`Limits`],
//! archives that try to reach outside themselves, downgrades from HTTPS, and logins to servers it was not told to
//! trust.
//!
//! The way of a layer, in one pass: fetch and hash the blob | unpack | hash the tar, write the ext4 image and its hash
//! tree. Each stage has a thread of its own; unpacking gzip and hashing blocks have more. The parts: [`Store`] keeps layers by diff ID and images by name; a source (registry,
//! layout, archive) says what an image is made of and opens its blobs; [`resolve`] brings them together.

mod convert;
mod document;
mod error;
mod fill;
mod images;
mod inflate;
mod kept;
mod layers;
mod local;
mod lock;
mod maintain;
mod options;
mod pipe;
mod plan;
mod progress;
mod remote;
mod resolve;
mod source;
mod store;

#[doc(hidden)]
pub use caveau_gunzip::GunzipReader;
pub use convert::FileImage;
pub use document::fetch_document;
pub use error::RegistryError;
pub use inflate::unpacked;
pub use layers::StoredLayer;
pub use maintain::{ImageEntry, Removed};
pub use options::{Limits, Options, Proxies, PullPolicy, Retry};
pub use progress::{Event, Progress};
pub use remote::{Artifact, Attached, Referrer, attach, discover};
pub use resolve::{Image, resolve};
pub use source::{ImageSource, LocalImage};
pub use store::Store;
