//! Gets an image into a store: `pull STORE IMAGE`. Prints diff ID and root hash of each layer, and on standard error what
//! happens meanwhile. Logins and proxies are those of the environment.

use std::process::ExitCode;

use caveau_registry::{Event, ImageSource, Options, Progress, RegistryError, Store, resolve};

/// Prints events as they come.
struct Told;

impl Progress for Told {
    fn report(&self, event: Event<'_>) {
        eprintln!("{event:?}");
    }
}

fn pull(store: &str, image: &str) -> Result<(), RegistryError> {
    let image = resolve(&Store::open(store)?, &ImageSource::parse(image)?, &Options::default(), &Told)?;
    for layer in image.layers {
        println!("{} {}", layer.diff_id, layer.root);
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, image] = arguments.as_slice() else {
        eprintln!("usage: pull STORE IMAGE");
        return ExitCode::from(2);
    };
    match pull(store, image) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
