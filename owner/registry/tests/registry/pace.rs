//! When requests are made: beside each other, and after pauses.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use caveau_oci::Digest;
use caveau_registry::{ImageSource, Options, Retry, resolve};

use crate::server::{Reply, Server};
use crate::support::{Parts, Place, Recorder, layer, options};
use crate::wire::honest;

#[test]
fn two_layers_are_fetched_at_the_same_time() {
    let (place, parts) = (Place::new(), Parts::new(&[layer(&[("one", b"1")]), layer(&[("two", b"2")])]));
    let blobs: Vec<_> = parts.layers.iter().map(|(_, blob)| format!("blobs/{}", Digest::of(blob))).collect();
    let (asked, both) = (Mutex::new(0), Condvar::new());
    let server = Server::new(move |request| {
        if blobs.iter().any(|blob| request.target.ends_with(blob)) {
            // Neither layer comes before the other has been asked for.
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            both.notify_all();
            let limit = Duration::from_secs(60);
            if both.wait_timeout_while(asked, limit, |asked| *asked < 2).unwrap().1.timed_out() {
                return Reply::status(404);
            }
        }
        honest(&parts, request)
    });
    assert_eq!(place.resolve(&format!("{}/app:v1", server.address)).unwrap().layers.len(), 2);
}

#[test]
fn pauses_double_up_to_the_longest() {
    let place = Place::new();
    let server = Server::new(|request| Reply::status(if request.target == "/v2/" { 200 } else { 503 }));
    let retry = Retry { attempts: 6, first_pause: Duration::from_millis(8), longest_pause: Duration::from_millis(50) };
    let source = ImageSource::parse(&format!("{}/app:v1", server.address)).unwrap();
    let recorder = Recorder::default();
    assert!(resolve(&place.store, &source, &Options { retry, ..options() }, &recorder).is_err());
    let events = recorder.0.into_inner().unwrap();
    let pauses = events.iter().filter_map(|event| event.split_once("seconds: ")?.1.strip_suffix(" }")?.parse().ok());
    let pauses: Vec<f32> = pauses.collect();
    let least = [0.008, 0.016, 0.032, 0.05, 0.05];
    assert_eq!(pauses.len(), least.len(), "{events:?}");
    for (pause, least) in pauses.iter().zip(least) {
        // As told to the user, and up to a quarter more.
        assert!((least..=least * 1.25).contains(pause), "{pauses:?}");
    }
}
