//! Debian's registry and the tools that people make images with.
//!
//! The images are those that `cargo xtask test` builds (`$CAVEAU_TEST_IMAGES`): layouts by umoci, pushed and converted by
//! skopeo. Without them or the tools a test says `skipped`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use caveau_oci::Digest;
use caveau_registry::{Image, Options};
use serde_json::json;

use crate::support::{Parts, Place, archive, assert_refused, diff_ids, layer, options};

/// The user `user` with the password `pass:word`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "user:$2b$05$iHuc6bCcgiDIjVjS2EyED.9sORAyqL/NQj/MTAcAuVwQrNXiyPfdC\n";
const LOGIN: &str = "user:pass:word";

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Debian's docker-registry on a free port of the loopback interface; ended when dropped.
pub(crate) struct Registry {
    child: Child,
    pub(crate) address: String,
    dir: tempfile::TempDir,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Plain,
    Password,
    Tls,
}

impl Registry {
    pub(crate) fn start(kind: Kind) -> Option<Self> {
        let missing = |program: &&str| !Path::new("/usr/bin").join(program).exists();
        if let Some(program) = ["docker-registry", "skopeo", "openssl"].into_iter().find(missing) {
            println!("skipped: no {program}");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let at = |name: &str| dir.path().join(name);
        let mut http = json!({"addr": address, "secret": "test"});
        let mut config = json!({"version": 0.1, "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": at("data")}}});
        if kind == Kind::Password {
            fs::write(at("htpasswd"), HTPASSWD).unwrap();
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": at("htpasswd")}});
        }
        if kind == Kind::Tls {
            make_certificate(dir.path());
            http["tls"] = json!({"certificate": at("server.crt"), "key": at("server.key")});
        }
        config["http"] = http;
        // JSON is YAML.
        fs::write(at("config.yml"), config.to_string()).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(at("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { child, address, dir };
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(&registry.address).is_err() {
            assert!(Instant::now() < deadline, "the registry did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    pub(crate) fn push(&self, layout: &Path, name: &str, arguments: &[&str]) {
        let (source, target) =
            (format!("oci:{}:latest", layout.display()), format!("docker://{}/{name}", self.address));
        skopeo(&[&["--dest-tls-verify=false", "--dest-creds", LOGIN], arguments, &[&source, &target]].concat());
    }

    pub(crate) fn source(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate for 127.0.0.1 and the authority that signed it.
fn make_certificate(dir: &Path) {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        let status = command.args(arguments.split(' ')).current_dir(dir).stderr(Stdio::null()).status();
        assert!(status.unwrap().success(), "openssl {arguments}");
    };
    let curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {curve} -keyout ca.key -out ca.crt -days 30 -subj /CN=TestCA"));
    openssl(&format!("req {curve} -keyout server.key -out server.csr -subj /CN=registry"));
    fs::write(dir.join("extensions"), "subjectAltName=IP:127.0.0.1,DNS:registry.invalid\n").unwrap();
    openssl(
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile extensions -out server.crt",
    );
}

fn skopeo(arguments: &[&str]) {
    let output =
        Command::new("skopeo").args(["--insecure-policy", "copy", "--quiet"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The layouts that were built for tests, or what is said instead.
fn layouts() -> Vec<(&'static str, PathBuf)> {
    let Some(dir) = std::env::var_os("CAVEAU_TEST_IMAGES").map(PathBuf::from) else {
        println!("skipped: no images; run the tests with `cargo xtask test`");
        return Vec::new();
    };
    ["busybox", "nginx", "redis", "python3"].map(|name| (name, dir.join(name))).to_vec()
}

/// The roots of an image's layers, as text.
fn roots(image: &Image) -> Vec<String> {
    image.layers.iter().map(|layer| layer.root.to_string()).collect()
}

#[test]
fn images_of_standard_tools_come_through_every_way() {
    let Some(registry) = Registry::start(Kind::Plain) else { return };
    for (name, layout) in layouts() {
        let place = Place::new();
        let direct = place.resolve(&format!("oci:{}:latest", layout.display())).unwrap();
        if name != "busybox" {
            assert!(direct.layers.len() > 2, "{name} has several layers");
        }
        registry.push(&layout, &format!("{name}:gzip"), &[]);
        registry.push(&layout, &format!("{name}:zstd"), &["--dest-compress-format", "zstd", "--dest-compress"]);
        registry.push(&layout, &format!("library/{name}:docker"), &["--format", "v2s2"]);
        let from = format!("oci:{}:latest", layout.display());
        let at = |kind: &str| format!("{kind}:{}", place.path(&format!("{name}.{kind}.tar")).display());
        let (docker, oci) = (at("docker-archive"), at("oci-archive"));
        skopeo(&[&from, &format!("{docker}:example.com/{name}:1")]);
        skopeo(&[&from, &format!("{oci}:one")]);
        for source in [
            registry.source(&format!("{name}:gzip")),
            registry.source(&format!("{name}:zstd")),
            registry.source(&format!("library/{name}:docker")),
            docker.clone(),
            format!("{docker}:example.com/{name}:1"),
            format!("{oci}:one"),
        ] {
            // A store of its own each time, so that everything is fetched and converted again.
            let other = Place::new();
            let image = other.resolve(&source).unwrap_or_else(|error| panic!("{source}: {error}"));
            assert_eq!(diff_ids(&image), diff_ids(&direct), "{source}");
            assert_eq!(roots(&image), roots(&direct), "{source}");
            assert_eq!(image.config.env, direct.config.env, "{source}");
            assert_eq!(image.config.cmd, direct.config.cmd, "{source}");
        }
        let digest = direct.manifest_digest.unwrap();
        let pinned = place.resolve(&registry.source(&format!("{name}@{digest}"))).unwrap();
        assert_eq!(pinned.manifest_digest, Some(digest));
    }
}

#[test]
fn the_layers_that_images_share_are_stored_once() {
    let layouts = layouts();
    let several: Vec<_> = layouts.iter().filter(|(name, _)| *name != "busybox").collect();
    let place = Place::new();
    let images: Vec<_> =
        several.iter().map(|(_, path)| place.resolve(&format!("oci:{}:latest", path.display())).unwrap()).collect();
    let bases: Vec<_> = images.iter().map(|image| diff_ids(image)[0]).collect();
    assert!(bases.windows(2).all(|pair| pair[0] == pair[1]), "{bases:?}");
    let all: usize = images.iter().map(|image| image.layers.len()).sum();
    let stored = place.files().iter().filter(|file| file.ends_with(".img")).count();
    assert_eq!(stored, all - images.len().saturating_sub(1));
}

#[test]
fn passwords_are_taken_from_dockers_configuration() {
    let Some(registry) = Registry::start(Kind::Password) else { return };
    let place = Place::new();
    Parts::small().write_layout(&place.path("layout"), "latest");
    registry.push(&place.path("layout"), "private:1", &[]);
    let source = registry.source("private:1");
    assert_refused(place.resolve(&source), &["denied", "no", "config.json"]);
    let login = |auth: &str| {
        let config = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, registry.address);
        fs::write(place.path("config.json"), config).unwrap();
        Options { docker_config: Some(place.path("")), ..options() }
    };
    assert_refused(place.resolve_with(&source, &login("dXNlcjp3cm9uZw==")), &["denied", "UNAUTHORIZED"]);
    place.assert_nothing_left();
    let image = place.resolve_with(&source, &login("dXNlcjpwYXNzOndvcmQ=")).unwrap();
    assert_eq!(image.layers.len(), 3);
}

#[test]
fn certificates_are_verified_unless_said_otherwise() {
    let Some(registry) = Registry::start(Kind::Tls) else { return };
    let place = Place::new();
    Parts::small().write_layout(&place.path("layout"), "latest");
    registry.push(&place.path("layout"), "app:1", &[]);
    // The loopback address needs no certificate; its name by another word does. There is no name service in tests, so the
    // name is reached through a proxy that knows it.
    place.resolve(&registry.source("app:1")).unwrap();
    let proxy = crate::wire::start_proxy(&registry.address, "registry.invalid:443 ");
    let proxies = caveau_registry::Proxies::from_variables(|name| (name == "HTTPS_PROXY").then(|| proxy.clone()));
    let strict = Options { proxies, ..options() };
    let source = "registry.invalid/app:1";
    assert_refused(Place::new().resolve_with(source, &strict), &["registry.invalid", "certificate"]);
    let ca_certificates = vec![registry.dir.path().join("ca.crt")];
    Place::new().resolve_with(source, &Options { ca_certificates, ..strict.clone() }).unwrap();
    let insecure_registries = vec!["registry.invalid".to_owned()];
    Place::new().resolve_with(source, &Options { insecure_registries, ..strict.clone() }).unwrap();
    let ca_certificates = vec![registry.dir.path().join("ca.key")];
    let result = Place::new().resolve_with(source, &Options { ca_certificates, ..strict.clone() });
    assert_refused(result, &["ca.key", "no certificate"]);
    let ca_certificates = vec![PathBuf::from("/nonexistent.pem")];
    assert_refused(Place::new().resolve_with(source, &Options { ca_certificates, ..strict }), &["/nonexistent.pem"]);
}

#[test]
fn a_registry_with_several_platforms_gives_the_one_asked_for() {
    let Some(registry) = Registry::start(Kind::Plain) else { return };
    let place = Place::new();
    push_two_platforms(&registry, &place, "multi");
    let platform = |text: &str| Options { platform: text.parse().unwrap(), ..options() };
    let source = registry.source("multi:all");
    assert_eq!(place.resolve(&source).unwrap().config.architecture, "amd64");
    assert_eq!(place.resolve_with(&source, &platform("linux/arm64")).unwrap().config.architecture, "arm64");
    assert_refused(place.resolve_with(&source, &platform("linux/s390x")), &["linux/arm64, linux/amd64"]);
}

/// Pushes an image for arm64 and one for amd64, and an index of the two as `NAME:all`; gives that for amd64.
pub(crate) fn push_two_platforms(registry: &Registry, place: &Place, name: &str) -> Parts {
    // One layer with gzip, which skopeo takes as it is.
    let amd = Parts::new(&[layer(&[("etc/one", b"one")])]);
    let mut arm = amd.clone();
    arm.config["architecture"] = json!("arm64");
    let mut entries = Vec::new();
    for (parts, architecture) in [(&arm, "arm64"), (&amd, "amd64")] {
        let dir = place.path(architecture);
        parts.write_layout(&dir, "latest");
        registry.push(&dir, &format!("{name}:{architecture}"), &[]);
        let bytes = parts.manifest_bytes();
        entries.push(json!({"mediaType": MANIFEST, "digest": Digest::of(&bytes), "size": bytes.len(),
            "platform": {"os": "linux", "architecture": architecture}}));
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    put_manifest(&registry.address, name, "all", &index.to_string());
    amd
}

/// Stores an index in the registry; skopeo copies indexes but does not make them.
fn put_manifest(address: &str, name: &str, tag: &str, content: &str) {
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    let length = content.len();
    write!(
        connection,
        "PUT /v2/{name}/manifests/{tag} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {INDEX}\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{content}"
    )
    .unwrap();
    let answer = std::io::read_to_string(connection).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[test]
fn both_forms_of_docker_save_come_through() {
    for (name, layout) in layouts() {
        let place = Place::new();
        let direct = place.resolve(&format!("oci:{}:latest", layout.display())).unwrap();
        // What `docker save` writes since version 25: the layout and a manifest.json that points into it.
        let mut files = Vec::new();
        for entry in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("blobs/sha256/{}", path.file_name().unwrap().to_str().unwrap());
            files.push((name, fs::read(&path).unwrap()));
        }
        for name in ["index.json", "oci-layout"] {
            files.push((name.to_owned(), fs::read(layout.join(name)).unwrap()));
        }
        let manifest = fs::read(layout.join("blobs/sha256").join(direct.manifest_digest.unwrap().hex())).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let blob = |digest: &serde_json::Value| format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
        let layers: Vec<_> = manifest["layers"].as_array().unwrap().iter().map(|l| blob(&l["digest"])).collect();
        let list = json!([{"Config": blob(&manifest["config"]["digest"]), "RepoTags": ["x:1"], "Layers": layers}]);
        files.push(("manifest.json".to_owned(), list.to_string().into_bytes()));
        fs::write(place.path("saved.tar"), archive(&files)).unwrap();
        for kind in ["docker-archive", "oci-archive"] {
            let other = Place::new();
            let image = other.resolve(&format!("{kind}:{}", place.path("saved.tar").display())).unwrap();
            assert_eq!(roots(&image), roots(&direct), "{name}");
            assert_eq!(image.manifest_digest, direct.manifest_digest, "{name}");
        }
    }
}
