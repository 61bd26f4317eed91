//! Images in files and folders: OCI layouts, OCI archives, Docker archives.

mod archive;
mod docker;
mod oci;

pub(crate) use docker::open_docker_archive;
pub(crate) use oci::{open_oci_archive, open_oci_layout};
