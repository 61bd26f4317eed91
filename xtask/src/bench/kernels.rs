//! The product with the guest's own kernel, and with the distribution's.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::Bed;
use crate::{guest, images, images_folder, process::output};

/// Two guests that differ in their kernel, and an image that is in the store.
pub(super) struct Guests<'a> {
    bed: &'a Bed<'a>,
    /// The folder of the one with its own kernel.
    pub(super) own: PathBuf,
    /// The folder of the one with the distribution's.
    pub(super) distribution: PathBuf,
    image: String,
}

impl<'a> Guests<'a> {
    /// Builds the guests and the image of that name where they are missing, and has the image in the store.
    ///
    /// # Errors
    /// Where one of them cannot be built.
    pub(super) fn prepare(bed: &'a Bed<'a>, image: &str) -> Result<Self> {
        let own = guest::build_once(bed.root, bed.setup)?;
        let distribution = guest::build_with_distribution_kernel(bed.root, bed.setup)?;
        let image = images::build_one(&images_folder(bed.root), image, &bed.setup.apt_config, &|step| {
            eprintln!("   {step}");
        })?;
        let guests = Self { bed, own, distribution, image: format!("oci:{}", image.display()) };
        let [ours, _] = guests.products();
        output(&mut ours.caveau(&["image", "pull", &guests.image]))?;
        Ok(guests)
    }

    /// Ours, and with the distribution's kernel.
    pub(super) fn products(&self) -> [Product<'_>; 2] {
        [&self.own, &self.distribution].map(|guest| Product { bed: self.bed, guest, image: &self.image })
    }
}

/// A guest under `caveau`.
pub(super) struct Product<'a> {
    bed: &'a Bed<'a>,
    guest: &'a Path,
    /// The image's source.
    pub(super) image: &'a str,
}

impl Product<'_> {
    /// `caveau` with this guest.
    pub(super) fn caveau(&self, arguments: &[&str]) -> Command {
        self.bed.caveau(self.guest, arguments)
    }
}
