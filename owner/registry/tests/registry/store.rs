//! The store: damage, crowds, users, pruning.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use caveau_registry::{ImageSource, Options, PullPolicy, Store, StoredLayer, resolve};

use crate::support::{Parts, Place, Recorder, assert_refused, diff_ids, layer, noise, options};

fn layout(place: &Place) -> String {
    Parts::small().write_layout(&place.path("layout"), "v1");
    format!("oci:{}", place.path("layout").display())
}

fn resolve_recorded(place: &Place, source: &str) -> (Vec<StoredLayer>, Recorder) {
    let recorder = Recorder::default();
    let image = resolve(&place.store, &ImageSource::parse(source).unwrap(), &options(), &recorder).unwrap();
    (image.layers, recorder)
}

fn content(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

/// Opens a layer's file for writing, which its owner has to be allowed first.
fn writable(path: &Path) -> File {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(path, permissions).unwrap();
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// Writes one other byte into a file that is read-only to everybody.
fn flip(path: &Path, offset: u64) {
    let file = writable(path);
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[test]
fn layers_are_verified_devices_and_read_only() {
    let place = Place::new();
    let (layers, _) = resolve_recorded(&place, &layout(&place));
    for layer in layers {
        let image = content(&layer.path);
        let threads = std::num::NonZeroUsize::MIN;
        caveau_verity::verify_device(image.as_slice(), layer.bytes, &layer.root, threads).unwrap();
        let mut through_file = Vec::new();
        layer.file().read_to_end(&mut through_file).unwrap();
        assert!(through_file == image);
        assert!(fs::metadata(&layer.path).unwrap().permissions().readonly());
    }
    let files = place.files();
    assert!(files.iter().all(|file| !file.starts_with("tmp/")), "{files:?}");
}

#[test]
fn the_second_time_nothing_is_converted() {
    let place = Place::new();
    let source = layout(&place);
    let (first, recorder) = resolve_recorded(&place, &source);
    assert_eq!((recorder.count("LayerStored"), recorder.count("LayerCached")), (3, 0));
    let (second, recorder) = resolve_recorded(&place, &source);
    assert_eq!((recorder.count("LayerStarted"), recorder.count("LayerCached")), (0, 3));
    assert!(first.iter().zip(&second).all(|(a, b)| a.root == b.root && a.path == b.path));
}

/// What was done to a layer's files, and the doing.
type Damage<'a> = (&'static str, Box<dyn Fn() + 'a>);

#[test]
fn damage_anywhere_is_noticed_and_repaired() {
    let place = Place::new();
    let source = layout(&place);
    let (layers, _) = resolve_recorded(&place, &source);
    let victim = layers[0].clone();
    let good = content(&victim.path);
    let record = victim.path.with_extension("json");
    let damage: Vec<Damage<'_>> = vec![
        ("first block", Box::new(|| flip(&victim.path, 1024))),
        ("data", Box::new(|| flip(&victim.path, 4096 * 30))),
        ("tree", Box::new(|| flip(&victim.path, victim.bytes - 4000))),
        ("cut off", Box::new(|| writable(&victim.path).set_len(4096).unwrap())),
        ("longer", Box::new(|| writable(&victim.path).write_all_at(b"x", victim.bytes).unwrap())),
        ("empty", Box::new(|| writable(&victim.path).set_len(0).unwrap())),
        ("gone", Box::new(|| fs::remove_file(&victim.path).unwrap())),
        ("record gone", Box::new(|| fs::remove_file(&record).unwrap())),
        ("record junk", Box::new(|| fs::write(&record, b"junk").unwrap())),
        (
            "record of another layer",
            Box::new(|| assert!(fs::copy(layers[1].path.with_extension("json"), &record).unwrap() > 0)),
        ),
        (
            "another layer's image",
            Box::new(|| {
                fs::remove_file(&victim.path).unwrap();
                fs::copy(&layers[1].path, &victim.path).unwrap();
            }),
        ),
        (
            "a link to the same bytes",
            Box::new(|| {
                fs::rename(&victim.path, place.path("moved")).unwrap();
                std::os::unix::fs::symlink(place.path("moved"), &victim.path).unwrap();
            }),
        ),
    ];
    for (what, act) in damage {
        act();
        let source = ImageSource::parse(&source).unwrap();
        let recorder = Recorder::default();
        let image = resolve(&place.store, &source, &options(), &recorder).unwrap();
        assert_eq!(recorder.count("LayerStored"), 1, "{what}: it was served");
        assert!(content(&image.layers[0].path) == good, "{what}: it was not repaired");
        assert!(fs::symlink_metadata(&victim.path).unwrap().is_file());
    }
}

#[test]
fn damage_that_hides_its_time_is_noticed() {
    let place = Place::new();
    let source = layout(&place);
    let (layers, _) = resolve_recorded(&place, &source);
    let before = fs::metadata(&layers[0].path).unwrap();
    flip(&layers[0].path, 4096 * 30);
    let file = File::options().write(true).open(&layers[0].path).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    let (_, recorder) = resolve_recorded(&place, &source);
    assert_eq!((recorder.count("LayerDamaged"), recorder.count("LayerStored")), (1, 1));
}

#[test]
fn a_good_copy_is_verified_once_and_kept() {
    let place = Place::new();
    let source = layout(&place);
    let (layers, _) = resolve_recorded(&place, &source);
    // As after restoring from a backup: other inode, other times, same bytes.
    let bytes = content(&layers[0].path);
    fs::remove_file(&layers[0].path).unwrap();
    fs::write(&layers[0].path, &bytes).unwrap();
    let record = layers[0].path.with_extension("json");
    let old = content(&record);
    for _ in 0..2 {
        let (_, recorder) = resolve_recorded(&place, &source);
        assert_eq!((recorder.count("LayerCached"), recorder.count("LayerStarted")), (3, 0));
    }
    assert!(content(&record) != old, "the new stamp was not kept");
}

#[test]
fn many_at_once_convert_each_layer_once() {
    let place = Place::new();
    let source = layout(&place);
    let (count, recorder) = (8, Recorder::default());
    let barrier = Barrier::new(count);
    let roots: Vec<_> = std::thread::scope(|scope| {
        let run = || {
            // Each opens the store for itself, as another process would; locks are between open files.
            let store = Store::open(place.store.root()).unwrap();
            barrier.wait();
            let image = resolve(&store, &ImageSource::parse(&source).unwrap(), &options(), &recorder).unwrap();
            image.layers.iter().map(|layer| layer.root).collect::<Vec<_>>()
        };
        let runs: Vec<_> = (0..count).map(|_| scope.spawn(run)).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(roots.iter().all(|root| *root == roots[0]));
    assert_eq!(recorder.count("LayerStored"), 3);
}

#[test]
fn equal_layers_are_stored_once() {
    let place = Place::new();
    let tar = layer(&[("same", &noise(10_000, 5))]);
    Parts::new(&[tar.clone(), layer(&[("other", b"x")]), tar]).write_layout(&place.path("layout"), "v1");
    let (layers, recorder) = resolve_recorded(&place, &format!("oci:{}", place.path("layout").display()));
    assert_eq!(layers[0].root, layers[2].root);
    assert_eq!((layers.len(), recorder.count("LayerStored")), (3, 2));
}

#[test]
fn what_an_interrupted_conversion_leaves_is_not_served() {
    let place = Place::new();
    let source = layout(&place);
    let (layers, _) = resolve_recorded(&place, &source);
    let image = content(&layers[0].path);
    // Killed after the image got its name and before the record was written, or while writing to a temporary file.
    fs::remove_file(layers[0].path.with_extension("json")).unwrap();
    fs::write(place.store.root().join("tmp/left"), &image[..1000]).unwrap();
    let store = Store::open(place.store.root()).unwrap();
    assert!(!store.root().join("tmp/left").exists());
    let (_, recorder) = resolve_recorded(&place, &source);
    assert_eq!(recorder.count("LayerStored"), 1);
}

#[test]
fn listing_removing_and_pruning() {
    let place = Place::new();
    let source = layout(&place);
    let shared = layer(&[("etc/two", b"two")]);
    Parts::new(&[layer(&[("own", b"1")]), shared]).write_layout(&place.path("second"), "v1");
    let second = format!("oci:{}", place.path("second").display());
    let image = place.resolve(&source).unwrap();
    place.resolve(&second).unwrap();

    let images = place.store.images().unwrap();
    assert_eq!(images.len(), 2);
    let entry = images.iter().find(|entry| entry.reference == image.reference).unwrap();
    assert_eq!((entry.layers.clone(), entry.platform.as_str()), (diff_ids(&image), "linux/amd64"));
    assert_eq!(entry.bytes, image.layers.iter().map(|layer| layer.bytes).sum::<u64>());
    assert_eq!((entry.manifest, entry.config), (image.manifest_digest, image.config_digest));

    // Removing an image while a group of it starts leaves its layers to the group.
    let removed = place.store.remove(&source).unwrap();
    assert_eq!((removed.images, removed.layers, removed.in_use), (1, 0, 2));
    assert!(image.layers.iter().all(|layer| layer.path.exists()));
    assert_refused(place.store.remove(&source), &["no image", "caveau image ls"]);
    drop(image);
    let pruned = place.store.prune(false).unwrap();
    assert_eq!((pruned.layers, pruned.in_use), (2, 0));
    assert!(pruned.bytes > 300_000);
    let second = place.resolve(&second).unwrap();
    assert_eq!(place.store.remove(&second.config_digest.to_string()).unwrap().in_use, 2);
    drop(second);
    place.store.prune(true).unwrap();
    place.assert_nothing_left();
}

#[test]
fn an_image_is_removed_by_the_digits_that_are_listed() {
    let place = Place::new();
    let image = place.resolve(&layout(&place)).unwrap();
    let id = image.config_digest.hex();
    for other in [&id[..11], "000000000000", "0000000000zz"] {
        assert_refused(place.store.remove(other), &["no image"]);
    }
    drop(image);
    assert_eq!(place.store.remove(&id[..12]).unwrap().images, 1);
}

#[test]
fn pruning_and_resolving_at_once_never_serve_a_missing_layer() {
    let place = Place::new();
    let source = layout(&place);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                place.store.prune(true).unwrap();
            }
        });
        // Also when the loop below fails.
        let _end = OnDrop(|| done.store(true, Ordering::Relaxed));
        for _ in 0..20 {
            let image = place.resolve(&source).unwrap();
            for layer in &image.layers {
                let mut file = layer.file();
                file.seek(SeekFrom::Start(0)).unwrap();
                assert!(layer.path.exists() && file.read_exact(&mut [0; 4096]).is_ok());
            }
        }
    });
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn never_means_never() {
    let place = Place::new();
    let options = Options { pull: PullPolicy::Never, ..options() };
    let result = place.resolve_with("registry.invalid/some/image:1", &options);
    assert_refused(result, &["registry.invalid/some/image:1", "--pull missing"]);
}
