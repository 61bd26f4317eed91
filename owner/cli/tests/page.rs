//! `caveau verify --html`: what the page says, of every kind of evidence, and that nothing in it runs or loads.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use std::{fs, path::Path, process::Command};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use crate::{
    expected::{Desk, NONCE, policy},
    fixtures::Fixtures,
};

/// Text of whoever is judged that would be more than text.
const HOSTILE: &str =
    "</td><script>document.title='ran'</script><img src=\"http://leak.test/x\" onerror='x'>\u{202e}\u{1b}[2J&amp;";
/// The same as a page must have it.
const WRITTEN: &str = "&lt;/td&gt;&lt;script&gt;document.title=&#39;ran&#39;&lt;/script&gt;&lt;img src=&quot;http://leak.test/x&quot; \
                       onerror=&#39;x&#39;&gt;\\u{202e}\\u{1b}[2J&amp;amp;";
/// What the owner says of a group, and how it is judged.
const GROUP: [&str; 12] = [
    "--allow-emulated",
    "root.der",
    "--at",
    "2026-11-23T01:00:00Z",
    "--nonce",
    NONCE,
    "--policy",
    "web.rego",
    "--reference",
    "guest.json",
    "--cpus",
    "2",
];

/// A page, with the judgement that it is about.
pub(crate) struct Page {
    pub(crate) html: String,
    pub(crate) judgement: Value,
    pub(crate) code: Option<i32>,
}

impl Page {
    /// The page on evidence in that folder. The judgement must be the same as without a page.
    pub(crate) fn of(folder: &Path, evidence: &str, options: &[&str]) -> Self {
        let run = |more: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_caveau"));
            command.current_dir(folder).args(["verify", evidence, "--json"]).args(options).args(more);
            command.env("XDG_CACHE_HOME", folder.join("cache")).env("XDG_DATA_HOME", folder.join("data"));
            command.output().unwrap()
        };
        let (without, with) = (run(&[]), run(&["--html", "page.html"]));
        assert_eq!(without.stdout, with.stdout, "{evidence}");
        assert_eq!(without.status.code(), with.status.code(), "{evidence}");
        let judgement = serde_json::from_slice(&with.stdout)
            .unwrap_or_else(|_| panic!("{evidence}: {}", String::from_utf8_lossy(&with.stderr)));
        let html = fs::read_to_string(folder.join("page.html")).unwrap();
        Self { html, judgement, code: with.status.code() }
    }

    pub(crate) fn has(&self, text: &str) {
        assert!(self.html.contains(text), "{text} is not in {}", self.html);
    }

    fn lacks(&self, text: &str) {
        assert!(!self.html.contains(text), "{text} is in {}", self.html);
    }

    /// What every page has, whatever it is about.
    fn is_whole(&self) {
        assert!(self.html.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"), "{}", self.html);
        is_well_formed(&self.html);
        let policy_of_contents =
            "http-equiv=\"Content-Security-Policy\" content=\"default-src &#39;none&#39;; style-src &#39;sha256-";
        self.has(policy_of_contents);
        for (mark, count) in [("<h1", 1), ("<main", 1), ("<title", 1), ("<style", 1), ("@media print", 1)] {
            assert_eq!(self.html.matches(mark).count(), count, "{mark}: {}", self.html);
        }
        let headline = match self.judgement["outcome"].as_str().unwrap() {
            "passed" => "<strong>Passed",
            "refused" => "<strong>Refused</strong>",
            _ => "<strong>Authentic, not appraised</strong>",
        };
        self.has(headline);
        let is_emulated = self.judgement["tee_class"] == "emulated";
        assert_eq!(self.html.contains("EMULATED TEE: NO HARDWARE PROTECTS"), is_emulated, "{}", self.html);
        for field in ["at", "report_sha256", "recognised", "summary"] {
            self.has(&escaped(self.judgement[field].as_str().unwrap()));
        }
        let table = &self.html[self.html.find("id=\"checks\"").unwrap()..self.html.find("id=\"hashes\"").unwrap()];
        let checks = self.judgement["checks"].as_array().unwrap();
        assert_eq!(table.matches("<tr>").count(), checks.len() + 1, "{table}");
        for check in checks {
            let verdict = match check["verdict"].as_str().unwrap() {
                "failed" => "FAILED",
                "not-applicable" => "n/a",
                other => other,
            };
            let row = format!(
                "<th scope=\"row\">{}</th>\n<td class=\"{}\">{verdict}</td>\n<td>{}</td>\n<td>{}</td>\n",
                check["name"].as_str().unwrap(),
                verdict.replace('/', ""),
                escaped(check["code"].as_str().unwrap_or_default()),
                escaped(check["sentence"].as_str().unwrap())
            );
            assert!(table.contains(&row), "{row} is not in {table}");
        }
        self.has(&format!(" --at={}", self.judgement["at"].as_str().unwrap()));
        self.has(&format!(" --profile={}", self.judgement["profile"].as_str().unwrap()));
    }
}

/// What HTML reads, named. The sentences of these judgements have no control characters.
fn escaped(text: &str) -> String {
    let named = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    named.replace('"', "&quot;").replace('\'', "&#39;")
}

/// Each element is one of these, is closed in its turn, and has none but these attributes.
fn is_well_formed(html: &str) {
    const ELEMENTS: &str = "html head meta title style body header main footer div p strong h1 h2 h3 h4 table caption thead \
                            tbody tr th td ul li pre";
    const ATTRIBUTES: &str = "lang charset http-equiv content name class id scope";
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some((_, from)) = rest.split_once('<') {
        let (tag, after) = from.split_once('>').unwrap();
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{html}");
            continue;
        }
        let (name, mut attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(ELEMENTS.split_whitespace().any(|known| known == name), "<{tag}> in {html}");
        while let Some((attribute, value)) = attributes.split_once("=\"") {
            let attribute = attribute.trim();
            assert!(ATTRIBUTES.split_whitespace().any(|known| known == attribute), "<{tag}> in {html}");
            attributes = value.split_once('"').unwrap().1;
        }
        assert!(attributes.is_empty(), "<{tag}> in {html}");
        if name != "meta" {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?} are open at the end of {html}");
}

/// A page on a group whose policy has hostile text wherever its author has a say.
pub(crate) fn hostile() -> (Desk, Page) {
    let desk = Desk::of_policy(&policy(HOSTILE, &["/bin/web", HOSTILE]));
    let page = Page::of(desk.0.path(), "ev.json", &GROUP);
    (desk, page)
}

#[test]
fn a_page_says_all_of_a_group_that_passed() {
    let desk = Desk::of_policy(&policy("registry.example/shop/web:1", &["/bin/web"]));
    let page = Page::of(desk.0.path(), "ev.json", &GROUP);
    page.is_whole();
    assert_eq!(page.code, Some(0), "{}", page.html);
    for said in [
        "<strong>Passed, on an EMULATED TEE</strong>",
        "registry.example/shop/web:1",
        &"5c".repeat(32),
        "dm-verity virtio-console",
        "Every check",
        "What it leaves to the host",
        "The policy takes no fragments.",
        "SMT (sibling threads)",
        "Microcode level",
        "caveau verify ev.json",
        " --nonce=6e6e",
        " --policy=web.rego --reference=guest.json --allow-emulated=root.der</pre>",
    ] {
        page.has(said);
    }
    // Every file by its hash, and the policy's is its digest.
    for file in ["ev.json", "web.rego", "guest.json", "root.der"] {
        let hash = caveau_evidence::sha256(&fs::read(desk.0.path().join(file)).unwrap()).to_string();
        assert!(page.html.contains(&hash), "{file}: {}", page.html);
    }
    let chain = &page.judgement["claims"]["endorsement"];
    for certificate in ["root", "intermediate", "vek"] {
        page.has(chain[certificate]["sha256"].as_str().unwrap());
    }
}

#[test]
fn the_command_on_a_page_repeats_the_judgement() {
    let desk = Desk::of_policy(&policy("registry.example/shop/web:1", &["/bin/web"]));
    let page = Page::of(desk.0.path(), "ev.json", &GROUP);
    let command = page.html.split("<pre>").nth(1).unwrap().split("</pre>").next().unwrap();
    let words: Vec<&str> = command.split(' ').skip(1).chain(["--json"]).collect();
    let again = desk.run(&words);
    assert_eq!(serde_json::from_slice::<Value>(&again.stdout).unwrap(), page.judgement, "{command}");
}

#[test]
fn a_page_is_written_where_evidence_is_refused() {
    let desk = Desk::of_policy(&policy("registry.example/shop/web:1", &["/bin/web"]));
    let other = "00".repeat(16);
    let mut options = GROUP;
    options[5] = &other;
    let page = Page::of(desk.0.path(), "ev.json", &options);
    page.is_whole();
    assert_eq!((page.code, &page.judgement["outcome"]), (Some(1), &json!("refused")));
    // Without the root, nothing of what it says is authentic, and nothing of it is shown.
    let page = Page::of(desk.0.path(), "ev.json", &["--at", "2026-11-23T01:00:00Z", "--policy", "web.rego"]);
    page.is_whole();
    assert_eq!(page.code, Some(1));
    page.has("Nothing of the evidence is authentic");
    page.has("No policy is shown");
    page.lacks("registry.example/shop/web:1");
    let page = Page::of(desk.0.path(), "ev.json", &[&GROUP[..4], &["--nonce", NONCE]].concat());
    page.is_whole();
    page.has("This is not a pass.");
    page.has("held against no expectation");
}

#[test]
fn hostile_text_is_only_text() {
    let (_desk, page) = hostile();
    page.is_whole();
    assert_eq!(page.code, Some(0), "{}", page.html);
    page.has(WRITTEN);
    for (raw, what) in [("<script", "a script"), ("<img", "an image"), ("\u{202e}", "a turn"), ("\u{1b}", "an escape")]
    {
        assert!(!page.html.contains(raw), "{what}: {}", page.html);
    }
}

#[test]
fn fragments_are_told_apart_from_the_rest_of_the_policy() {
    let feed = json!(format!("example.org/{HOSTILE}"));
    let fragment = format!(
        "\nfragments := [{{\"issuer\": \"did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s::eku:1.2.3\", \
         \"feed\": {feed}, \"minimum_svn\": \"7\", \"includes\": [\"containers\"]}}]\n"
    );
    let desk = Desk::of_policy(&(policy("registry.example/shop/web:1", &["/bin/web"]) + &fragment));
    let page = Page::of(desk.0.path(), "ev.json", &GROUP);
    page.is_whole();
    assert_eq!(page.code, Some(0), "{}", page.html);
    let (before, after) = page.html.split_once("id=\"signed\"").unwrap();
    let title = format!("<h4>Fragment example.org/{WRITTEN}</h4>");
    assert!(!before.contains(&title) && after.contains(&title), "{}", page.html);
    for said in ["Accepted from version &quot;7&quot; or later.", "May bring containers.", "the evidence does not say"]
    {
        assert!(after.contains(said), "{said}: {after}");
    }
}

#[test]
fn a_page_replaces_nothing_that_is_judged() {
    let desk = Desk::of_policy(&policy("registry.example/shop/web:1", &["/bin/web"]));
    for (page, said) in [
        ("ev.json", "is the evidence"),
        ("./web.rego", "is --policy"),
        ("guest.json", "is --reference"),
        ("-", "takes the name of a file"),
        ("missing/page.html", "missing/page.html"),
        (".", "not a regular file"),
    ] {
        let output = desk.run(&[&["verify", "ev.json", "--html", page][..], &GROUP].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(said), "{page}: {text}");
    }
    assert_eq!(Page::of(desk.0.path(), "ev.json", &GROUP).code, Some(0), "all of it is as it was");
}

#[test]
fn a_page_shows_recorded_evidence_of_every_kind() {
    let Some(fixtures) = Fixtures::open() else { return };
    let now = ["--profile", "baseline", "--at", "2026-11-23"];
    let then = ["--profile", "baseline", "--at", "2025-07-08"];
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| BASE64_STANDARD.encode(fixtures.read(name));
    let bundle = json!({
        "attestation": read("snp/reports/genoa-v3-aci/report.bin"),
        "platform_certificates": read("snp/reports/genoa-v3-aci/vcek.der"),
        "uvm_endorsements": read("azure-aci/uvm-endorsement-svn101.cose"),
    });
    let bundle_file = folder.path().join("bundle.json");
    fs::write(&bundle_file, bundle.to_string()).unwrap();
    let did = "did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s::eku:1.3.6.1.4.1.311.76.59.1.2";
    let signer =
        ["--endorsement-issuer", did, "--endorsement-feed", "ContainerPlat-AMD-UVM", "--endorsement-least-svn", "101"];
    let of_azure = [&now[..], &signer].concat();
    for (file, options, says) in [
        ("snp/reports/genoa-v3-aci/report.bin", &now[..], &["product line Genoa", "vcek.der"][..]),
        ("snp/reports/turin-v5-aci/report.bin", &now, &["product line Turin"]),
        ("snp/reports/milan-v2-debug/report.bin", &now, &["<strong>Refused</strong>"]),
        ("snp/reports/milan-v3-vlek-vmpl1/report.bin", &now, &["<strong>Refused</strong>"]),
        ("snp/negative/chip-mismatch-aci/report.bin", &now, &["Nothing of the evidence is authentic"]),
        ("azure-cvm/milan-v3.json", &now, &["product line Milan"]),
        ("azure-cvm/hcl-report-tdx.bin", &now, &["quote-missing"]),
        ("tdx/quote-v4-emr.bin", &then, &["TCB status", "Known advisories", "FMSPC", "collateral.json"]),
        ("tdx/sgx-quote-v3.bin", &then, &["TCB status", "mr enclave"]),
        ("tdx/quote-v4-emr.bin", &now, &["crl-stale"]),
        (bundle_file.to_str().unwrap(), &of_azure, &[did, "Signed reference values (launch digest found in them)"]),
    ] {
        let path = fixtures.path(file);
        let page = Page::of(folder.path(), path.to_str().unwrap(), options);
        page.is_whole();
        assert_eq!(page.code, Some(1), "{file}");
        says.iter().for_each(|text| page.has(text));
    }
}

/// A token is what another verifier says: its claims are its own words, hostile ones too.
#[test]
fn a_page_shows_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let (x, y) = key.public_key().as_ref()[1..].split_at(48);
    let jwk = json!({ "keys": [{ "kty": "EC", "crv": "P-384", "kid": "one", "x": encode(x), "y": encode(y) }] });
    fs::write(folder.path().join("keys.json"), jwk.to_string()).unwrap();
    let claims = json!({
        "iss": "https://verifier.example", "iat": 1_795_392_000, "exp": 1_795_395_600, HOSTILE: HOSTILE,
        "x-ms-isolation-tee": { "x-ms-attestation-type": "sevsnpvm", "x-ms-sevsnpvm-is-debuggable": false }
    });
    let signed =
        [json!({ "alg": "ES384", "kid": "one" }), claims].map(|part| encode(part.to_string().as_bytes())).join(".");
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    fs::write(folder.path().join("token.jwt"), format!("{signed}.{}", encode(signature.as_ref()))).unwrap();
    let page = Page::of(folder.path(), "token.jwt", &["--token-keys", "keys.json", "--at", "2026-11-23T00:10:00Z"]);
    page.is_whole();
    page.has("Claims of another verifier");
    page.has("--token-keys=keys.json");
    assert!(page.html.matches(WRITTEN).count() >= 2, "{}", page.html);
}
