//! Artifacts attached to images: in Debian's registry, which lists no referrers, in one that does, and in ones that
//! lie.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use caveau_oci::{Digest, Reference};
use caveau_registry::{Artifact, Attached, Options, Referrer, RegistryError, attach, discover};
use serde_json::{Value, json};

use crate::server::{Reply, Request, Server};
use crate::support::{Parts, Place, assert_refused, options};
use crate::tools::{INDEX, Kind, MANIFEST, Registry, push_two_platforms};

const TYPES: (&str, &str) = ("application/x-ms-ccepolicy-frag", "application/cose-x509+rego");

fn attach_to(image: &str, content: &[u8], options: &Options) -> Result<Attached, RegistryError> {
    let annotations = BTreeMap::from([("example.org/note".to_owned(), "a note".to_owned())]);
    let artifact = Artifact {
        artifact_type: TYPES.0,
        media_type: TYPES.1,
        content,
        title: "fragment.rego.cose",
        annotations: &annotations,
    };
    attach(&Reference::parse(image).unwrap(), &artifact, options, &())
}

fn found(image: &str, options: &Options) -> Result<Vec<Referrer>, RegistryError> {
    discover(&Reference::parse(image).unwrap(), TYPES, options, &())
}

fn contents(found: &[Referrer]) -> Vec<&[u8]> {
    found.iter().map(|referrer| referrer.content.as_slice()).collect()
}

#[test]
fn debians_registry_keeps_them_under_a_tag_for_each_platform() {
    let Some(registry) = Registry::start(Kind::Plain) else { return };
    let place = Place::new();
    let amd = push_two_platforms(&registry, &place, "app");
    let arm64 = Options { platform: "linux/arm64".parse().unwrap(), ..options() };
    let image = registry.source("app:all");
    assert_eq!(found(&image, &options()).unwrap(), []);

    let first = attach_to(&image, b"first", &options()).unwrap();
    assert_eq!(first.subject, Digest::of(&amd.manifest_bytes()), "attached to another manifest than the platform's");
    assert!(!first.listed_by_registry);
    let listed = found(&image, &options()).unwrap();
    assert_eq!(contents(&listed), [b"first"]);
    assert_eq!(listed[0].manifest, first.manifest);
    assert_eq!(listed[0].annotations["example.org/note"], "a note");
    assert_eq!(listed[0].annotations["org.opencontainers.image.title"], "fragment.rego.cose");
    assert_eq!(found(&image, &arm64).unwrap(), [], "attached to another platform, too");

    // A second beside it; the same again is the same; the other platform has its own.
    let second = attach_to(&registry.source("app:amd64"), b"second", &options()).unwrap();
    assert_eq!(second.subject, first.subject);
    assert_eq!(attach_to(&image, b"first", &options()).unwrap(), first);
    assert_eq!(contents(&found(&image, &options()).unwrap()), [&b"first"[..], b"second"]);
    attach_to(&image, b"third", &arm64).unwrap();
    assert_eq!(contents(&found(&image, &arm64).unwrap()), [b"third"]);
    // The image is as it was.
    assert_eq!(place.resolve(&image).unwrap().layers.len(), 1);
    let other = discover(&Reference::parse(&image).unwrap(), ("application/other", TYPES.1), &options(), &());
    assert_eq!(other.unwrap(), []);
    assert_refused(attach_to(&registry.source("none:1"), b"x", &options()), &["404"]);
}

#[test]
fn writing_takes_a_login() {
    let Some(registry) = Registry::start(Kind::Password) else { return };
    let place = Place::new();
    Parts::small().write_layout(&place.path("layout"), "latest");
    registry.push(&place.path("layout"), "private:1", &[]);
    let image = registry.source("private:1");
    assert_refused(attach_to(&image, b"x", &options()), &["denied", "config.json"]);
    let config = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpwYXNzOndvcmQ="}}}}}}"#, registry.address);
    std::fs::write(place.path("config.json"), config).unwrap();
    let with_login = Options { docker_config: Some(place.path("")), ..options() };
    attach_to(&image, b"x", &with_login).unwrap();
    assert_eq!(contents(&found(&image, &with_login).unwrap()), [b"x"]);
}

/// A registry of one image that lists referrers itself, and takes uploads after a challenge for a token.
fn listing(parts: &Parts) -> Server {
    let manifest = parts.manifest_bytes();
    let subject = Digest::of(&manifest);
    let kept: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
    kept.lock().unwrap().insert("manifests/1".to_owned(), manifest);
    Server::new(move |request| {
        let mut kept = kept.lock().unwrap();
        let path = request.target.strip_prefix("/v2/app/").unwrap_or_default().to_owned();
        let token = request.headers.get("authorization").map(String::as_str);
        match (request.method.as_str(), path.as_str()) {
            _ if request.target == "/v2/" => Reply::ok(""),
            _ if request.target.starts_with("/token") => Reply::ok(json!({"token": scope(request)}).to_string()),
            ("POST" | "PUT", _) if token != Some("Bearer pull,push") => {
                let realm = format!("http://{}/token", request.headers["host"]);
                let challenge = format!(r#"Bearer realm="{realm}",scope="repository:app:pull,push""#);
                Reply::status(401).with("www-authenticate", challenge)
            }
            ("POST", "blobs/uploads/") => Reply::status(202).with("location", "/v2/app/upload?state=a%2Bb"),
            ("PUT", upload) if upload.starts_with("upload?state=a%2Bb&digest=") => {
                let digest = upload.rsplit_once('=').unwrap().1;
                assert_eq!(digest, Digest::of(request.body.as_bytes()).to_string());
                kept.insert(format!("blobs/{digest}"), request.body.clone().into_bytes());
                Reply::status(201)
            }
            ("PUT", manifest) if manifest.starts_with("manifests/sha256:") => {
                let document: Value = serde_json::from_str(&request.body).unwrap();
                let descriptor = json!({"mediaType": MANIFEST, "digest": Digest::of(request.body.as_bytes()),
                    "size": request.body.len(), "artifactType": document["artifactType"]});
                kept.insert(path, request.body.clone().into_bytes());
                kept.insert("list".to_owned(), descriptor.to_string().into_bytes());
                Reply::status(201).with("OCI-Subject", document["subject"]["digest"].as_str().unwrap())
            }
            ("GET", list) if list == format!("referrers/{subject}") => {
                let entries: Vec<Value> =
                    kept.get("list").map(|entry| serde_json::from_slice(entry).unwrap()).into_iter().collect();
                Reply::ok(json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string())
            }
            ("GET" | "HEAD", path) => match kept.get(path) {
                Some(content) if request.method == "GET" => Reply::ok(content.clone()),
                Some(_) => Reply::ok(""),
                None => Reply::status(404),
            },
            _ => Reply::status(405),
        }
    })
}

/// What a token is asked for.
fn scope(request: &Request) -> &'static str {
    if request.target.contains("push") { "pull,push" } else { "pull" }
}

#[test]
fn a_registry_that_lists_referrers_needs_no_tag() {
    let server = listing(&Parts::small());
    let image = format!("{}/app:1", server.address);
    let attached = attach_to(&image, b"content", &options()).unwrap();
    assert!(attached.listed_by_registry);
    assert_eq!(contents(&found(&image, &options()).unwrap()), [b"content"]);
    assert_eq!(server.count("/manifests/sha256-"), 0, "a tag was kept all the same");
    assert!(server.count("/token") >= 1);
    // What is there is not written again.
    let uploads = server.count("/uploads/");
    attach_to(&image, b"content", &options()).unwrap();
    assert_eq!(server.count("/uploads/"), uploads);
}

/// A registry of one image with this list of referrers, and these manifests and blobs.
fn lying(parts: &Parts, list: Value, contents: Vec<(String, Vec<u8>)>) -> Server {
    let manifest = parts.manifest_bytes();
    Server::new(move |request| {
        let path = request.target.strip_prefix("/v2/app/").unwrap_or_default();
        let known = contents.iter().find(|(name, _)| name == path);
        match (known, path) {
            (Some((_, content)), _) => Reply::ok(content.clone()),
            (_, "manifests/1") => Reply::ok(manifest.clone()),
            (_, path) if path.starts_with("referrers/") => Reply::ok(list.to_string()),
            _ if request.target == "/v2/" => Reply::ok(""),
            _ => Reply::status(404),
        }
    })
}

#[test]
fn what_a_registry_lists_is_held_against_its_digest_and_subject() {
    let parts = Parts::small();
    let subject = Digest::of(&parts.manifest_bytes());
    let artifact = |subject: Digest, size: usize| {
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": TYPES.0,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"), "size": 2},
            "layers": [{"mediaType": TYPES.1, "digest": Digest::of(b"content"), "size": size}],
            "subject": {"mediaType": MANIFEST, "digest": subject, "size": 1}})
        .to_string()
        .into_bytes()
    };
    let entry =
        |manifest: &[u8]| json!({"mediaType": MANIFEST, "digest": Digest::of(manifest), "size": manifest.len()});
    let ask = |list: Value, manifest: &[u8], named: &[u8], blob: &[u8]| {
        let contents = vec![
            (format!("manifests/{}", Digest::of(named)), manifest.to_vec()),
            (format!("blobs/{}", Digest::of(b"content")), blob.to_vec()),
        ];
        let server = lying(&parts, list, contents);
        found(&format!("{}/app:1", server.address), &options())
    };
    let good = artifact(subject, 7);
    let list = |manifest: &[u8]| json!({"manifests": [entry(manifest)]});
    assert_eq!(contents(&ask(list(&good), &good, &good, b"content").unwrap()), [b"content"]);
    // Another blob, another manifest, a size that is not so.
    assert_refused(ask(list(&good), &good, &good, b"consent"), &["digest"]);
    let other = artifact(subject, 8);
    assert_refused(ask(list(&good), &other, &good, b"content"), &["manifest", "digest"]);
    assert_refused(ask(list(&other), &other, &other, b"content"), &["bytes, expected 8"]);
    let huge = artifact(subject, 1 << 40);
    assert_refused(ask(list(&huge), &huge, &huge, b"content"), &["limit"]);
    // One that refers to another image does not count; nor do entries of other forms.
    let foreign = artifact(Digest::of(b"another"), 7);
    assert_eq!(ask(list(&foreign), &foreign, &foreign, b"content").unwrap(), []);
    let odd = json!({"manifests": [1, {"digest": "md5:1"}, {"mediaType": "x"}]});
    assert_eq!(ask(odd, &good, &good, b"content").unwrap(), []);
    let listed_as_other = json!({"manifests": [{"mediaType": MANIFEST, "digest": Digest::of(&good), "size": good.len(),
        "artifactType": "application/other"}]});
    assert_eq!(ask(listed_as_other, &good, &good, b"content").unwrap(), []);
    // No list at all, or a list without end.
    assert_refused(ask(json!([1]), &good, &good, b"content"), &["list of referrers"]);
    let many = json!({"manifests": vec![entry(&good); 257]});
    assert_refused(ask(many, &good, &good, b"content"), &["more than 256"]);
}

#[test]
fn uploads_do_not_leave_https_or_go_nowhere() {
    for (location, why) in [(None, "nowhere"), (Some("//elsewhere/x"), "neither a URL"), (Some("ftp://x/y"), "neither")]
    {
        let parts = Parts::small();
        let manifest = parts.manifest_bytes();
        let server = Server::new(move |request| match request.method.as_str() {
            "GET" if request.target.ends_with("/manifests/1") => Reply::ok(manifest.clone()),
            "GET" => Reply::ok(""),
            "POST" => {
                let reply = Reply::status(202);
                match location {
                    Some(location) => reply.with("location", location),
                    None => reply,
                }
            }
            _ => Reply::status(404),
        });
        assert_refused(attach_to(&format!("{}/app:1", server.address), b"x", &options()), &[why]);
    }
}
