//! `caveau fragment` as a shell sees it: generated, signed with files and tokens, looked at, attached and found again.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use caveau_oci::Digest;
use serde_json::{Value, json};

const POLICY: &str = "package policy\n\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n\n\
    containers := [{\"command\": [\"sh\"], \"layers\": [], \"env_rules\": []}]\n";
const FEED: &str = "example.org/app";

/// A folder in which the commands run.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, &[])
    }

    fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_caveau"));
        command.arg("fragment").args(arguments).current_dir(self.0.path()).envs(environment.iter().copied());
        command.env_remove("CAVEAU_PIN").env_remove("DOCKER_CONFIG").env("HOME", self.0.path());
        command.envs(environment.iter().copied());
        command.output().expect("caveau starts")
    }

    /// Standard output of a command that must succeed.
    fn ok(&self, arguments: &[&str]) -> String {
        done(&self.run(arguments))
    }

    /// A fragment `app.rego` and a chain in `keys`.
    fn with_fragment(kind: &str) -> Self {
        let place = Self::new();
        fs::write(place.path("policy.rego"), POLICY).expect("a policy");
        let text = place.ok(&["generate", "--policy", "policy.rego", "-n", "app", "--svn", "3"]);
        assert!(
            text.starts_with("package app\n\nsvn := \"3\"\nframework_version := \"0.5.0\"\n\ncontainers := ["),
            "{text}"
        );
        fs::write(place.path("app.rego"), text).expect("a fragment");
        let issuer = place.ok(&["chain", "keys", "--key-type", kind, "--quiet"]);
        assert!(issuer.starts_with("did:x509:0:sha256:") && issuer.ends_with("::eku:1.3.6.1.4.1.311.76.59.1.1\n"));
        place
    }

    fn sign(&self, more: &[&str]) -> String {
        let own =
            ["sign", "app.rego", "--key", "keys/signer.key", "--chain", "keys/chain.pem", "--feed", FEED, "--quiet"];
        self.ok(&[&own, more].concat())
    }

    fn inspect(&self, more: &[&str]) -> (Value, Option<i32>) {
        let output = self.run(&[&["inspect", "app.rego.cose", "--json"], more].concat());
        let report = serde_json::from_slice(&output.stdout);
        (report.unwrap_or_else(|_| panic!("{}", told(&output))), output.status.code())
    }
}

#[track_caller]
fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", told(output));
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn each_kind_of_key_and_form_signs_what_can_be_inspected() {
    for (kind, algorithm) in
        [("p256", "ES256"), ("p384", "ES384"), ("p521", "ES512"), ("rsa", "PS384"), ("ed25519", "EdDSA")]
    {
        let place = Place::with_fragment(kind);
        for form in ["legacy", "claims"] {
            let import: Value = serde_json::from_str(&place.sign(&["--form", form])).expect("JSON");
            assert_eq!((&import["feed"], &import["minimum_svn"]), (&json!(FEED), &json!("3")));
            assert_eq!(import["includes"], json!(["containers"]));
            let (report, code) = place.inspect(&["--feed", FEED, "--minimum-svn", "3"]);
            assert_eq!(code, Some(0), "{report}");
            assert_eq!(report["issuer"], import["issuer"]);
            assert_eq!((&report["algorithm"], &report["svn"]), (&json!(algorithm), &json!("3")));
            assert_eq!(report["svn_in_header"], if form == "claims" { json!(3) } else { Value::Null });
            assert_eq!(report["content"]["namespace"], "app");
            assert_eq!(report["content"]["includes"], json!({"containers": 1}));
            assert_eq!((&report["signature_holds"], &report["issuer_names_signer"]), (&json!(true), &json!(true)));
            let content = place.ok(&["inspect", "app.rego.cose", "--content"]);
            assert_eq!(content, fs::read_to_string(place.path("app.rego")).expect("text"));
        }
    }
    let place = Place::with_fragment("rsa");
    place.sign(&["--algorithm", "PS256"]);
    assert_eq!(place.inspect(&[]).0["algorithm"], "PS256");
}

#[test]
fn what_is_not_as_expected_is_refused() {
    let place = Place::with_fragment("p384");
    place.sign(&[]);
    let other = format!("did:x509:0:sha256:{}::eku:1.2.3", "A".repeat(43));
    for (arguments, why) in [
        (&["--feed", "other"][..], "the feed is example.org/app, expected other"),
        (&["--minimum-svn", "4"], "the svn is 3, expected at least 4"),
        (&["--issuer", &other], "the issuer is did:x509"),
        (&["--at", "2001-01-01"], "certificate 0 is valid from"),
    ] {
        let (report, code) = place.inspect(arguments);
        assert_eq!(code, Some(1), "{report}");
        assert!(report["refused"].to_string().contains(why), "expected {why}: {report}");
    }
    let mut bytes = fs::read(place.path("app.rego.cose")).expect("an envelope");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(place.path("app.rego.cose"), bytes).expect("a file");
    let (report, code) = place.inspect(&[]);
    assert_eq!((code, &report["signature_holds"]), (Some(1), &json!(false)));
    let output = place.run(&["inspect", "app.rego.cose", "--content"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "content without a signature that holds");
    assert_eq!(place.run(&["inspect", "app.rego"]).status.code(), Some(2));
    let attach = place.run(&["attach", "127.0.0.1:1/app:1", "app.rego.cose"]);
    assert!(told(&attach).contains("is refused, and is not attached"), "{}", told(&attach));
}

#[test]
fn what_does_not_go_together_is_not_signed() {
    let place = Place::with_fragment("p384");
    place.ok(&["chain", "others", "--key-type", "p384"]);
    let with = ["--chain", "keys/chain.pem", "--feed", FEED];
    for (arguments, why) in [
        (vec!["app.rego", "--key", "others/signer.key"], "the signature is not that of the signer's key"),
        (vec!["app.rego", "--key", "keys/chain.pem"], "there is no private key"),
        (vec!["app.rego", "--key", "keys/signer.key", "--algorithm", "PS256"], "a key of P-384 cannot sign with PS256"),
        (vec!["app.rego", "--key", "keys/signer.key", "--issuer", "me"], "`me` is no did:x509"),
        (vec!["app.rego", "--key", "keys/signer.key", "--form", "claims", "--svn", "4"], "the fragment itself says 3"),
        (vec!["policy.rego", "--key", "keys/signer.key"], "`policy` cannot be a fragment's package"),
        (vec!["keys/chain.pem", "--key", "keys/signer.key"], "the first line is no `package NAME`"),
        (vec!["app.rego", "--pkcs11", "pkcs11:token=a?pin-value=1"], "seen by everyone"),
    ] {
        let output = place.run(&[&["sign"], &arguments[..], &with].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(told(&output).contains(why), "expected {why}: {}", told(&output));
    }
    // Something else than a fragment may be signed, where that is said.
    fs::write(place.path("list.cbor"), [0xa0]).expect("a file");
    let arguments = ["list.cbor", "--key", "keys/signer.key", "--content-type", "application/octet-stream"];
    place.ok(&[&["sign"], &arguments[..], &with].concat());
    // A folder of keys is not written over, and nobody else may look into it.
    assert_eq!(place.run(&["chain", "keys"]).status.code(), Some(2));
    let mode = |name: &str| {
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(place.path(name)).expect("there").permissions())
    };
    assert_eq!((mode("keys") & 0o77, mode("keys/signer.key") & 0o77), (0, 0));
}

#[test]
fn tokens_sign() {
    let Some(module) = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"]
        .into_iter()
        .find(|path| Path::new(path).exists() && Path::new("/usr/bin/softhsm2-util").exists())
    else {
        println!("skipped: no softhsm2");
        return;
    };
    for (kind, algorithms) in [("p384", &["ES384"][..]), ("p256", &["ES256"]), ("rsa", &["PS256", "PS384", "PS512"])] {
        let place = Place::with_fragment(kind);
        let (config, tokens) = (place.path("softhsm2.conf"), place.path("tokens"));
        fs::create_dir(&tokens).expect("a folder");
        fs::write(&config, format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display()))
            .expect("a file");
        let config = config.to_str().expect("text");
        let softhsm = |arguments: &[&str]| {
            let mut command = Command::new("softhsm2-util");
            let output = command.args(arguments).env("SOFTHSM2_CONF", config).current_dir(place.0.path()).output();
            let output = output.expect("softhsm2-util starts");
            assert!(output.status.success(), "softhsm2-util {arguments:?}: {}", told(&output));
        };
        softhsm(&["--init-token", "--free", "--label", "web", "--so-pin", "8765", "--pin", "1234"]);
        softhsm(&["--import", "keys/signer.key", "--token", "web", "--label", "signer", "--id", "01", "--pin", "1234"]);
        // The file is gone: only the token has the key.
        fs::remove_file(place.path("keys/signer.key")).expect("it is there");
        fs::write(place.path("pin"), "1234\n").expect("a file");
        let sign = |uri: &str, algorithm: &str, environment: &[(&str, &str)]| {
            let arguments = ["sign", "app.rego", "--pkcs11", uri, "--chain", "keys/chain.pem", "--feed", FEED];
            let arguments = [&arguments[..], &["--algorithm", algorithm]].concat();
            place.run_with(&arguments, &[&[("SOFTHSM2_CONF", config)], environment].concat())
        };
        let whole = format!("pkcs11:token=web;object=signer;type=private?module-path={module}&pin-source=pin");
        for algorithm in algorithms {
            done(&sign(&whole, algorithm, &[]));
            let (report, code) = place.inspect(&[]);
            assert_eq!((code, &report["algorithm"]), (Some(0), &json!(algorithm)), "{report}");
        }
        let environment = [("CAVEAU_PKCS11_MODULE", module), ("CAVEAU_PIN", "1234")];
        done(&sign("pkcs11:token=web;id=%01", algorithms[0], &environment));
        for (uri, pin, why) in [
            ("pkcs11:token=web;object=signer", "4321", "failed to log in"),
            ("pkcs11:token=other;object=signer", "1234", "0 tokens are as the URI says, expected one; there are: web"),
            ("pkcs11:token=web;object=other", "1234", "0 private keys"),
        ] {
            let output = sign(uri, algorithms[0], &[("CAVEAU_PKCS11_MODULE", module), ("CAVEAU_PIN", pin)]);
            assert!(told(&output).contains(why), "expected {why}: {}", told(&output));
        }
        let output = sign("pkcs11:token=web", algorithms[0], &[("CAVEAU_PKCS11_MODULE", module)]);
        assert!(told(&output).contains("the token wants a PIN"), "{}", told(&output));
    }
}

/// Debian's docker-registry; ended when dropped.
struct Registry(Child, String);

impl Registry {
    fn start(place: &Place) -> Option<Self> {
        let missing = |program: &&str| !Path::new("/usr/bin").join(program).exists();
        if let Some(program) = ["docker-registry", "skopeo"].into_iter().find(missing) {
            println!("skipped: no {program}");
            return None;
        }
        let address = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
        let config = json!({"version": 0.1, "log": {"level": "error"}, "http": {"addr": address, "secret": "test"},
            "storage": {"filesystem": {"rootdirectory": place.path("data")}}});
        fs::write(place.path("config.yml"), config.to_string()).expect("a file");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(place.path("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self(command.spawn().expect("docker-registry starts"), address);
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(&registry.1).is_err() {
            assert!(Instant::now() < deadline, "the registry did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An image without layers, as a layout.
fn write_layout(folder: &Path) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a folder");
    let write = |content: &str| {
        fs::write(blobs.join(Digest::of(content.as_bytes()).hex()), content).expect("a file");
        json!({"digest": Digest::of(content.as_bytes()), "size": content.len()})
    };
    let mut config = write(r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#);
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": []});
    let mut entry = write(&manifest.to_string());
    entry["mediaType"] = json!("application/vnd.oci.image.manifest.v1+json");
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(folder.join("index.json"), index.to_string()).expect("a file");
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
}

#[test]
fn fragments_are_attached_to_images_and_found_again() {
    let place = Place::with_fragment("p384");
    let Some(registry) = Registry::start(&place) else { return };
    write_layout(&place.path("layout"));
    let image = format!("{}/app:1", registry.1);
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]);
    skopeo.args([format!("oci:{}", place.path("layout").display()), format!("docker://{image}")]);
    assert!(skopeo.status().expect("skopeo starts").success());

    place.sign(&[]);
    assert_eq!(place.ok(&["discover", &image, "--json"]).trim(), "[]");
    let attached: Value =
        serde_json::from_str(&place.ok(&["attach", &image, "app.rego.cose", "--json"])).expect("JSON");
    assert_eq!(attached["listed_by"], "tag");
    let found: Value = serde_json::from_str(&place.ok(&["discover", &image, "--json", "-o", "found"])).expect("JSON");
    assert_eq!((&found[0]["manifest"], &found[0]["feed"]), (&attached["manifest"], &json!(FEED)));
    assert_eq!(found[0]["problem"], Value::Null);
    let digest = attached["manifest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
    let stored = fs::read(place.path("found").join(format!("{digest}.cose"))).expect("it was written");
    assert_eq!(stored, fs::read(place.path("app.rego.cose")).expect("an envelope"));
    let shown = place.ok(&["discover", &image]);
    assert!(shown.contains("holds") && shown.contains(FEED), "{shown}");
    let local = place.run(&["attach", "oci:layout", "app.rego.cose"]);
    assert!(told(&local).contains("only to images in registries"), "{}", told(&local));
}
