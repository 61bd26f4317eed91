//! What a fetch tells while it runs.

use caveau_oci::Digest;

/// Something that happened to an image or one of its layers.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The manifest is known: so many layers make up the image.
    Resolved {
        /// The image's name.
        image: &'a str,
        /// The number of its layers.
        layers: usize,
    },
    /// The layer is in the store already and was checked.
    LayerCached {
        /// The layer's diff ID.
        layer: Digest,
    },
    /// The layer was in the store and was damaged; it is built again.
    LayerDamaged {
        /// The layer's diff ID.
        layer: Digest,
    },
    /// Another process builds the same layer; this one waits for it.
    LayerAwaited {
        /// The layer's diff ID.
        layer: Digest,
    },
    /// Fetching begins.
    LayerStarted {
        /// The layer's diff ID.
        layer: Digest,
        /// Bytes to fetch.
        bytes: u64,
    },
    /// Bytes that an earlier run fetched before it broke off are used; they count as fetched.
    LayerResumed {
        /// The layer's diff ID.
        layer: Digest,
        /// The number of those bytes.
        bytes: u64,
    },
    /// So many bytes more were fetched.
    LayerAdvanced {
        /// The layer's diff ID.
        layer: Digest,
        /// Bytes since the last such event.
        bytes: u64,
    },
    /// The layer is checked, converted and in the store.
    LayerStored {
        /// The layer's diff ID.
        layer: Digest,
    },
    /// A request failed and is tried again.
    Retrying {
        /// What failed.
        reason: &'a str,
        /// Seconds until the next attempt.
        seconds: f32,
    },
}

/// Takes events of a fetch, from several threads at once. The unit type ignores them.
pub trait Progress: Sync {
    /// Something happened.
    fn report(&self, event: Event<'_>);
}

impl Progress for () {
    fn report(&self, _event: Event<'_>) {}
}
