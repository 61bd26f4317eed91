//! Image references, manifests and configurations.
