//! Getting images, with progress on a terminal.

use std::{
    collections::HashMap,
    io::IsTerminal as _,
    sync::{Mutex, PoisonError},
};

use anyhow::Result;
use caveau_registry::{Event, Image, ImageSource, Options, Progress, PullPolicy, Store, resolve};
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};

use crate::{args, ui};

/// The image that was asked for, its layers converted and in the store.
///
/// # Errors
/// Where it cannot be had, or something in it is wrong.
pub(crate) fn image(source: &args::Source, quiet: bool) -> Result<Image> {
    let store = Store::open_default()?;
    let options = options(&source.fetch)?;
    let source = ImageSource::parse(&source.image)?;
    if quiet || !std::io::stderr().is_terminal() {
        return Ok(resolve(&store, &source, &options, &Warnings { quiet })?);
    }
    Ok(resolve(&store, &source, &options, &Bars::default())?)
}

/// How images are fetched, as it was asked for.
///
/// # Errors
/// Where the platform is none.
pub(crate) fn options(fetch: &args::Fetch) -> Result<Options> {
    Ok(Options {
        platform: fetch.platform.parse()?,
        pull: match fetch.pull {
            args::Pull::Always => PullPolicy::Always,
            args::Pull::Missing => PullPolicy::Missing,
            args::Pull::Never => PullPolicy::Never,
        },
        ca_certificates: fetch.ca_cert.clone(),
        insecure_registries: fetch.insecure_registry.clone(),
        ..Options::default()
    })
}

/// Without a terminal: only what a person must know.
pub(crate) struct Warnings {
    /// Not even those.
    pub(crate) quiet: bool,
}

impl Progress for Warnings {
    fn report(&self, event: Event<'_>) {
        match event {
            Event::Retrying { reason, seconds } if !self.quiet => {
                ui::note(false, &format!("{reason}; trying again in {seconds:.0} s"));
            }
            Event::LayerDamaged { layer } if !self.quiet => {
                ui::note(false, &format!("{layer} in the store was damaged; it is made again"));
            }
            _ => {}
        }
    }
}

/// On a terminal: a bar for each layer.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    layers: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    /// The bar of a layer.
    fn bar(&self, layer: &str) -> ProgressBar {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let add = || {
            let bar = self.all.add(ProgressBar::new_spinner());
            bar.set_prefix(layer.trim_start_matches("sha256:").chars().take(12).collect::<String>());
            bar.set_style(style("{prefix} {spinner} {msg}"));
            bar
        };
        layers.entry(layer.to_owned()).or_insert_with(add).clone()
    }
}

impl Progress for Bars {
    fn report(&self, event: Event<'_>) {
        match event {
            Event::Resolved { image, layers } => {
                // A terminal that cannot be written to has no use for the line.
                let _ = self.all.println(format!("{image}: {layers} layer{}", if layers == 1 { "" } else { "s" }));
            }
            Event::LayerCached { layer } => self.bar(&layer.to_string()).finish_with_message("here already"),
            Event::LayerDamaged { layer } => self.bar(&layer.to_string()).set_message("damaged, making it again"),
            Event::LayerAwaited { layer } => self.bar(&layer.to_string()).set_message("another process is making it"),
            Event::LayerStarted { layer, bytes } => {
                let bar = self.bar(&layer.to_string());
                bar.set_length(bytes);
                bar.set_style(style("{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {msg}"));
            }
            Event::LayerResumed { layer, bytes } => {
                self.bar(&layer.to_string()).set_message(format!("going on after {}", HumanBytes(bytes)));
            }
            Event::LayerAdvanced { layer, bytes } => self.bar(&layer.to_string()).inc(bytes),
            Event::LayerStored { layer } => self.bar(&layer.to_string()).finish_with_message("converted"),
            Event::Retrying { reason, seconds } => {
                let _ = self.all.println(format!("{reason}; trying again in {seconds:.0} s"));
            }
            _ => {}
        }
    }
}

/// A bar's look; a template that indicatif cannot read would fall back to its own.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
