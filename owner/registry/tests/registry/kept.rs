//! Downloads that break off and go on in another run.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use caveau_oci::Digest;
use caveau_registry::{Image, ImageSource, RegistryError, Store, resolve};

use crate::server::{Reply, Server};
use crate::support::{Parts, Place, Recorder, assert_refused, diff_ids, layer, noise, options};
use crate::wire::honest;

/// An image of one layer, a registry that breaks off after 2,500,000 bytes of it until it is mended, and a store.
struct Bed {
    place: Place,
    parts: Parts,
    server: Server,
    mended: Arc<AtomicBool>,
}

impl Bed {
    fn new() -> Self {
        let parts = Parts::new(&[layer(&[("big", &noise(4_000_000, 5))])]);
        let mended = Arc::new(AtomicBool::new(false));
        let (copy, blob, whole) = (parts.clone(), parts.layers[0].1.clone(), mended.clone());
        let path = format!("blobs/{}", Digest::of(&blob));
        let server = Server::new(move |request| {
            let reply = honest(&copy, request);
            match request.target.ends_with(&path) && !whole.load(Ordering::SeqCst) {
                true if request.headers.contains_key("range") => Reply::status(503),
                true => Reply { cut: Some(2_500_000), ..reply },
                false => reply,
            }
        });
        Self { place: Place::new(), parts, server, mended }
    }

    fn pull(&self) -> (Result<Image, RegistryError>, Recorder) {
        let recorder = Recorder::default();
        let source = ImageSource::parse(&format!("{}/app:v1", self.server.address)).unwrap();
        (resolve(&self.place.store, &source, &options(), &recorder), recorder)
    }

    /// Lets a run break off, and the next one find a registry that works.
    fn break_off(&self) {
        assert_refused(self.pull().0, &["status 503"]);
        self.mended.store(true, Ordering::SeqCst);
    }

    /// Where the layer's part is kept.
    fn part(&self) -> PathBuf {
        self.place.store.root().join("partial").join(Digest::of(&self.parts.layers[0].1).hex())
    }

    /// The ranges that were asked for since the registry works.
    fn ranges(&self) -> Vec<Option<String>> {
        let blob = format!("blobs/{}", Digest::of(&self.parts.layers[0].1));
        let asked = self.server.requests().into_iter().filter(|request| request.target.ends_with(&blob));
        asked.map(|request| request.headers.get("range").cloned()).collect()
    }

    fn is_stored(&self, image: Result<Image, RegistryError>) {
        assert_eq!(diff_ids(&image.unwrap()), [self.parts.layers[0].0]);
        let left = self.place.files().into_iter().filter(|file| file.starts_with("partial") || file.starts_with("tmp"));
        assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new());
    }
}

#[test]
fn the_next_run_goes_on_where_the_last_one_broke_off() {
    let bed = Bed::new();
    bed.break_off();
    let (kept, blob) = (fs::read(bed.part()).unwrap(), &bed.parts.layers[0].1);
    assert!(kept.len() > 2_000_000 && blob.starts_with(&kept), "{} bytes were kept", kept.len());
    let before = bed.ranges().len();
    let (image, told) = bed.pull();
    bed.is_stored(image);
    assert_eq!(bed.ranges()[before..], [Some(format!("bytes={}-", kept.len()))]);
    assert_eq!(told.count("LayerResumed"), 1);
    // All of it counts as fetched, so that a bar gets to its end.
    let advanced = told.0.lock().unwrap().iter().filter(|event| event.starts_with("LayerAdvanced")).cloned().collect();
    let advanced: Vec<String> = advanced;
    let bytes =
        |event: &String| -> usize { event.rsplit("bytes: ").next().unwrap().trim_end_matches(" }").parse().unwrap() };
    assert_eq!(advanced.iter().map(bytes).sum::<usize>(), blob.len());
}

#[test]
fn a_part_that_was_changed_meanwhile_is_noticed_and_removed() {
    let bed = Bed::new();
    bed.break_off();
    let mut kept = fs::read(bed.part()).unwrap();
    // Where the packed bytes are content, so that only the digest tells.
    let middle = kept.len() / 2;
    kept[middle] ^= 1;
    fs::write(bed.part(), kept).unwrap();
    assert_refused(bed.pull().0, &["kept from an earlier run", "try again"]);
    bed.place.assert_nothing_left();
    bed.is_stored(bed.pull().0);
    assert_eq!(bed.ranges().last().unwrap(), &None, "from its first byte");
}

#[test]
fn a_part_of_any_length_leads_to_the_same_layer() {
    for length in [0, 1, 4_000_000, usize::MAX] {
        let bed = Bed::new();
        bed.mended.store(true, Ordering::SeqCst);
        let blob = &bed.parts.layers[0].1;
        fs::write(bed.part(), &blob[..length.min(blob.len())]).unwrap();
        bed.is_stored(bed.pull().0);
        let asked = bed.ranges();
        match length {
            0 => assert_eq!(asked, [None]),
            usize::MAX => assert_eq!(asked, [] as [Option<String>; 0], "all of it was there"),
            _ => assert_eq!(asked, [Some(format!("bytes={length}-"))]),
        }
    }
    // Longer than the blob: of something else.
    let bed = Bed::new();
    bed.mended.store(true, Ordering::SeqCst);
    fs::write(bed.part(), vec![7; bed.parts.layers[0].1.len() + 1]).unwrap();
    bed.is_stored(bed.pull().0);
    assert_eq!(bed.ranges(), [None]);
}

#[test]
fn what_is_wrong_is_not_kept() {
    let parts = Parts::new(&[layer(&[("big", &noise(4_000_000, 5))])]);
    let (copy, blob) = (parts.clone(), format!("blobs/{}", Digest::of(&parts.layers[0].1)));
    let server = Server::new(move |request| {
        let mut reply = honest(&copy, request);
        if request.target.ends_with(&blob) {
            let middle = reply.body.len() / 2;
            reply.body[middle] ^= 1;
        }
        reply
    });
    let place = Place::new();
    assert_refused(place.resolve(&format!("{}/app:v1", server.address)), &["expected"]);
    place.assert_nothing_left();
}

#[test]
fn parts_are_pruned_and_swept_after_a_week() {
    let bed = Bed::new();
    bed.break_off();
    let reopen = || Store::open(bed.place.store.root()).unwrap();
    reopen();
    assert!(bed.part().exists(), "a fresh one stays");
    let held = fs::File::open(bed.part()).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let age = |days: u64| SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
    fs::File::options().write(true).open(bed.part()).unwrap().set_modified(age(8)).unwrap();
    reopen();
    assert!(bed.part().exists(), "somebody has it open");
    drop(held);
    reopen();
    assert!(!bed.part().exists());
    fs::write(bed.part(), vec![0; 1234]).unwrap();
    let removed = reopen().prune(false).unwrap();
    assert_eq!((removed.bytes, bed.part().exists()), (1234, false));
}
