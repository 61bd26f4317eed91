//! The registry protocol, with a server that breaks off, lies, redirects and asks for logins.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use caveau_oci::Digest;
use caveau_registry::{Image, ImageSource, Options, Proxies, PullPolicy, RegistryError, resolve};

use crate::server::{Reply, Request, Server};
use crate::support::{Parts, Place, Recorder, assert_refused, diff_ids, layer, noise, options};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a registry without faults answers for an image in the repository `app`.
pub(crate) fn honest(parts: &Parts, request: &Request) -> Reply {
    let manifest = parts.manifest_bytes();
    let by_digest = format!("/v2/app/manifests/{}", Digest::of(&manifest));
    if request.target == "/v2/" {
        return Reply::ok("{}");
    }
    if request.target == "/v2/app/manifests/v1" || request.target == by_digest {
        return Reply::ok(manifest).with("content-type", MANIFEST_TYPE);
    }
    let blobs = parts.layers.iter().map(|(_, blob)| blob.clone()).chain([parts.config_bytes()]);
    for blob in blobs {
        if request.target == format!("/v2/app/blobs/{}", Digest::of(&blob)) {
            return ranged(request, blob);
        }
    }
    Reply { body: br#"{"errors":[{"code":"UNKNOWN","message":"nothing here"}]}"#.to_vec(), ..Reply::status(404) }
}

/// The blob, or the part of it that the request asks for.
fn ranged(request: &Request, blob: Vec<u8>) -> Reply {
    let Some(range) = request.headers.get("range") else { return Reply::ok(blob) };
    let from: usize = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    let content_range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
    Reply { body: blob[from..].to_vec(), ..Reply::status(206) }.with("content-range", content_range)
}

/// The blob's path of the first layer.
fn first_blob(parts: &Parts) -> String {
    format!("blobs/{}", Digest::of(&parts.layers[0].1))
}

fn pull(place: &Place, server: &Server) -> Result<Image, RegistryError> {
    place.resolve(&format!("{}/app:v1", server.address))
}

fn large() -> Parts {
    Parts::new(&[layer(&[("big", &noise(2_000_000, 11))]), layer(&[("small", b"x")])])
}

#[test]
fn pulls_by_tag_and_digest_and_remembers() {
    let (place, parts) = (Place::new(), Parts::small());
    let copy = parts.clone();
    let server = Server::new(move |request| honest(&copy, request));
    let image = pull(&place, &server).unwrap();
    assert_eq!(diff_ids(&image), parts.layers.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    assert_eq!(image.manifest_digest, Some(Digest::of(&parts.manifest_bytes())));
    assert_eq!(image.reference, format!("{}/app:v1", server.address));
    let before = server.requests().len();
    pull(&place, &server).unwrap();
    assert_eq!(server.requests().len(), before, "what is stored needs no registry");
    let never = Options { pull: PullPolicy::Never, ..options() };
    place.resolve_with(&format!("{}/app:v1", server.address), &never).unwrap();
    let always = Options { pull: PullPolicy::Always, ..options() };
    place.resolve_with(&format!("{}/app:v1", server.address), &always).unwrap();
    assert_eq!(server.count("/manifests/"), 2, "always asks what the tag means");
    assert_eq!(server.count(&first_blob(&parts)), 1, "and fetches no layer again");
    let pinned = format!("{}/app@{}", server.address, image.manifest_digest.unwrap());
    assert_eq!(place.resolve(&pinned).unwrap().manifest_digest, image.manifest_digest);
    assert_refused(place.resolve(&format!("{}/app:other", server.address)), &["status 404: UNKNOWN: nothing here"]);
}

#[test]
fn a_missing_layer_is_fetched_by_what_is_remembered() {
    let (place, parts) = (Place::new(), Parts::small());
    let copy = parts.clone();
    let server = Server::new(move |request| honest(&copy, request));
    let image = pull(&place, &server).unwrap();
    std::fs::remove_file(&image.layers[0].path).unwrap();
    let never = Options { pull: PullPolicy::Never, ..options() };
    let result = place.resolve_with(&format!("{}/app:v1", server.address), &never);
    assert_refused(result, &["layer sha256:", "--pull missing"]);
    pull(&place, &server).unwrap();
    assert_eq!((server.count("/manifests/"), server.count(&first_blob(&parts))), (1, 2));
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_was() {
    let (place, parts) = (Place::new(), large());
    let (copy, blob, breaks) = (parts.clone(), first_blob(&parts), AtomicUsize::new(0));
    let server = Server::new(move |request| {
        let reply = honest(&copy, request);
        // Each answer brings some bytes and breaks off; progress starts the count of attempts anew.
        let cut = request.target.contains(&blob) && breaks.fetch_add(1, Ordering::Relaxed) < 6;
        Reply { cut: cut.then_some(300_000.min(reply.body.len())), ..reply }
    });
    pull(&place, &server).unwrap();
    let ranges: Vec<_> = server.requests().iter().filter_map(|r| r.headers.get("range").cloned()).collect();
    assert_eq!(ranges.len(), 6);
    let starts: Vec<u64> = ranges.iter().map(|range| range["bytes=".len()..range.len() - 1].parse().unwrap()).collect();
    assert!(starts.windows(2).all(|pair| pair[0] < pair[1]), "{starts:?}");
}

#[test]
fn a_download_that_ends_badly_after_its_last_byte_is_complete() {
    let (place, parts) = (Place::new(), large());
    let (copy, blob) = (parts.clone(), first_blob(&parts));
    let server = Server::new(move |request| {
        if request.headers.contains_key("range") {
            return Reply::status(416);
        }
        let reply = honest(&copy, request);
        if !request.target.contains(&blob) {
            return reply;
        }
        // The chunk that says that there is no more never comes.
        let body = [format!("{:x}\r\n", reply.body.len()).as_bytes(), &reply.body, b"\r\n"].concat();
        let cut = Some(body.len());
        Reply { body, cut, ..reply }.with("transfer-encoding", "chunked")
    });
    pull(&place, &server).unwrap();
    assert_eq!(server.count(&first_blob(&parts)), 1);
}

#[test]
fn one_layer_that_is_wrong_ends_the_others() {
    let (place, parts) = (Place::new(), large());
    let (copy, blob) = (parts.clone(), first_blob(&parts));
    let server = Server::new(move |request| {
        let mut reply = honest(&copy, request);
        if request.target.contains(&blob) {
            // A thousand bytes at a time, so that it takes two thousand requests.
            reply.cut = Some(1000.min(reply.body.len()));
        } else if request.target.contains("/blobs/") && reply.body.starts_with(&[0x28, 0xb5]) {
            reply.body[9] ^= 1;
        }
        reply
    });
    assert_refused(pull(&place, &server), &["has digest"]);
    let count = server.count(&first_blob(&parts));
    assert!(count < 1500, "{count} requests");
    place.assert_nothing_left();
}

#[test]
fn a_download_is_given_up_after_as_many_attempts_as_any_request() {
    let (place, parts) = (Place::new(), large());
    let (copy, blob, asked) = (parts.clone(), first_blob(&parts), AtomicUsize::new(0));
    let server = Server::new(move |request| {
        if !request.target.contains(&blob) {
            return honest(&copy, request);
        }
        match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Reply { cut: Some(300_000), ..honest(&copy, request) },
            _ => Reply::status(503),
        }
    });
    assert_refused(pull(&place, &server), &["status 503"]);
    assert_eq!(server.count(&first_blob(&parts)), options().retry.attempts as usize);
}

#[test]
fn a_server_without_ranges_begins_anew() {
    let (place, parts) = (Place::new(), large());
    let (copy, blob, breaks) = (parts.clone(), first_blob(&parts), AtomicUsize::new(0));
    let server = Server::new(move |request| {
        let plain = Request { headers: Default::default(), ..request.clone() };
        let reply = honest(&copy, &plain);
        let cut = request.target.contains(&blob) && breaks.fetch_add(1, Ordering::Relaxed) == 0;
        Reply { cut: cut.then_some(500_000), ..reply }
    });
    pull(&place, &server).unwrap();
    assert_eq!(server.count(&first_blob(&parts)), 2);
}

#[test]
fn a_download_that_never_goes_on_ends_in_an_error() {
    let (place, parts) = (Place::new(), Parts::new(&[layer(&[("big", &noise(100_000, 1))])]));
    let (copy, blob) = (parts.clone(), first_blob(&parts));
    let server = Server::new(move |request| {
        let reply = honest(&copy, request);
        Reply { cut: request.target.contains(&blob).then_some(0), ..reply }
    });
    assert_refused(pull(&place, &server), &["failed to reach http://127.0.0.1", "blobs/sha256"]);
    assert_eq!(server.count(&first_blob(&parts)), options().retry.attempts as usize);
    place.assert_nothing_left();
}

#[test]
fn busy_servers_are_asked_again() {
    let (place, parts) = (Place::new(), Parts::small());
    let (copy, count) = (parts, AtomicUsize::new(0));
    let server = Server::new(move |request| match count.fetch_add(1, Ordering::Relaxed) {
        1 => Reply::status(503),
        2 => Reply::status(429).with("retry-after", "0"),
        _ => honest(&copy, request),
    });
    let recorder = Recorder::default();
    let source = ImageSource::parse(&format!("{}/app:v1", server.address)).unwrap();
    resolve(&place.store, &source, &options(), &recorder).unwrap();
    assert_eq!(recorder.count("Retrying"), 2);

    let server = Server::new(|_| Reply::status(429).with("retry-after", "3600"));
    assert_refused(place.resolve(&format!("{}/app:v2", server.address)), &["status 429"]);
    assert_eq!(server.count("/manifests/"), 1, "an hour is not waited for");
}

#[test]
fn lies_about_content_leave_nothing() {
    type Lie = fn(Reply) -> Reply;
    let lies: [(&str, Lie, &str); 5] = [
        ("manifests", |reply| Reply { body: [&reply.body[..], b" "].concat(), ..reply }, "has digest"),
        (
            "blobs",
            |mut reply| {
                reply.body[20] ^= 1;
                reply
            },
            "has digest",
        ),
        ("blobs", |reply| Reply { body: [&reply.body[..], b"more"].concat(), ..reply }, "bytes, expected"),
        (
            "blobs",
            |mut reply| {
                reply.body.truncate(9);
                reply
            },
            "bytes, expected",
        ),
        ("blobs", |_| Reply::ok("<html>log in to the network</html>"), "bytes, expected"),
    ];
    for (part, lie, word) in lies {
        let (place, parts) = (Place::new(), Parts::new(&[layer(&[("one", &noise(50_000, 5))])]));
        let copy = parts.clone();
        let server = Server::new(move |request| {
            let reply = honest(&copy, request);
            if request.target.contains(part) { lie(reply) } else { reply }
        });
        let pinned = format!("{}/app@{}", server.address, Digest::of(&parts.manifest_bytes()));
        assert_refused(place.resolve(&pinned), &[word]);
        place.assert_nothing_left();
    }
}

#[test]
fn layers_are_checked_too() {
    let (place, parts) = (Place::new(), large());
    let (copy, blob) = (parts.clone(), first_blob(&parts));
    let server = Server::new(move |request| {
        let mut reply = honest(&copy, request);
        if request.target.contains(&blob) {
            reply.body[1_000_000] ^= 1;
        }
        reply
    });
    assert_refused(pull(&place, &server), &["has digest", &Digest::of(&parts.layers[0].1).to_string()]);
    assert!(place.files().iter().all(|file| !file.contains(&parts.layers[0].0.hex()) && !file.starts_with("tmp/")));
}

#[test]
fn documents_without_end_are_cut() {
    let place = Place::new();
    let server = Server::new(|request| match request.target.as_str() {
        "/v2/" => Reply::ok("{}"),
        _ => Reply::ok(vec![b' '; 5 << 20]).with("content-type", MANIFEST_TYPE),
    });
    assert_refused(pull(&place, &server), &["more than the limit of 4194304 bytes"]);
    place.assert_nothing_left();
}

#[test]
fn tokens_are_fetched_and_renewed() {
    let (place, parts) = (Place::new(), large());
    let (copy, issued) = (parts, Arc::new(AtomicUsize::new(0)));
    let (count, address) = (issued.clone(), Arc::new(std::sync::OnceLock::<String>::new()));
    let own = address.clone();
    let server = Server::new(move |request| {
        if request.target.starts_with("/token?") {
            let number = count.fetch_add(1, Ordering::Relaxed) + 1;
            return Reply::ok(format!(r#"{{"access_token":"t{number}","expires_in":60}}"#));
        }
        if request.target == "/v2/" {
            return Reply::status(401);
        }
        // The first token expires before the blobs are fetched.
        let good = if request.target.contains("manifests") { "Bearer t1" } else { "Bearer t2" };
        if request.headers.get("authorization").map(String::as_str) == Some(good) {
            return honest(&copy, request);
        }
        let realm = format!("http://{}/token", own.get().unwrap());
        let challenge = format!(r#"Bearer realm="{realm}",service="reg & co",scope="repository:app:pull""#);
        Reply::status(401).with("www-authenticate", challenge)
    });
    address.set(server.address.clone()).unwrap();
    pull(&place, &server).unwrap();
    assert_eq!(issued.load(Ordering::Relaxed), 2);
    let asked = server.requests().into_iter().find(|request| request.target.starts_with("/token")).unwrap();
    assert_eq!(asked.target, "/token?scope=repository%3Aapp%3Apull&service=reg%20%26%20co");
    assert_eq!(asked.method, "GET");
}

#[test]
fn a_login_that_is_wanted_and_not_there_is_said() {
    let place = Place::new();
    let server = Server::new(|_| Reply::status(401).with("www-authenticate", "Basic realm=\"r\""));
    assert_refused(pull(&place, &server), &["denied", "app:v1", "config.json"]);
    let server = Server::new(|_| Reply::status(401).with("www-authenticate", "Negotiate"));
    assert_refused(pull(&place, &server), &["not supported"]);
    let body = br#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#;
    let server = Server::new(|_| Reply { body: body.to_vec(), ..Reply::status(403) });
    assert_refused(pull(&place, &server), &["DENIED: requested access is denied"]);
    place.assert_nothing_left();
}

#[test]
fn tokens_are_not_asked_for_without_tls_elsewhere() {
    let place = Place::new();
    let challenge = r#"Bearer realm="http://tokens.example/t",service="s""#;
    let server = Server::new(move |_| Reply::status(401).with("www-authenticate", challenge));
    assert_refused(pull(&place, &server), &["tokens.example", "only https"]);
}

#[test]
fn redirects_are_followed_without_the_login() {
    let (place, parts) = (Place::new(), Parts::small());
    let copy = parts.clone();
    let elsewhere = Server::new(move |request| {
        let target = request.target.split('?').next().unwrap().to_owned();
        honest(&copy, &Request { target, ..request.clone() })
    });
    let (copy, there, token) = (parts, elsewhere.address.clone(), Arc::new(std::sync::OnceLock::<String>::new()));
    let own = token.clone();
    let server = Server::new(move |request| {
        if request.target.starts_with("/token") {
            return Reply::ok(r#"{"token":"secret"}"#);
        }
        if !request.headers.contains_key("authorization") {
            let challenge = format!(r#"Bearer realm="http://{}/token",service="s""#, own.get().unwrap());
            return Reply::status(401).with("www-authenticate", challenge);
        }
        if request.target.contains("/blobs/") {
            return Reply::status(307).with("location", format!("http://{there}{}?signature=1", request.target));
        }
        honest(&copy, request)
    });
    token.set(server.address.clone()).unwrap();
    pull(&place, &server).unwrap();
    assert_eq!(elsewhere.count("/blobs/"), 4);
    assert!(elsewhere.requests().iter().all(|request| !request.headers.contains_key("authorization")));
}

#[test]
fn bad_redirects_are_refused() {
    for (location, word) in [
        (Some("http://cdn.example/blob"), "only https"),
        (Some("ftp://cdn.example/blob"), "neither a URL"),
        (Some("//cdn.example/blob"), "neither a URL"),
        (Some("relative"), "neither a URL"),
        (Some("/v2/app/manifests/v1"), "too often"),
        (None, "to nowhere"),
    ] {
        let place = Place::new();
        let server = Server::new(move |request| match (request.target.as_str(), location) {
            ("/v2/", _) => Reply::ok("{}"),
            (_, Some(location)) => Reply::status(302).with("location", location),
            (_, None) => Reply::status(302),
        });
        assert_refused(pull(&place, &server), &[word]);
    }
}

#[test]
fn nobody_there_is_said_at_once() {
    let place = Place::new();
    let gone = Server::new(|_| Reply::ok("")).address.clone();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    drop(gone);
    assert_refused(place.resolve(&format!("{free}/app:v1")), &["failed to reach", "refused"]);
}

/// Options with a Docker configuration that holds `config`.
fn with_logins(place: &Place, config: &str) -> Options {
    let dir = place.path("docker");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("config.json"), config).unwrap();
    Options { docker_config: Some(dir), ..options() }
}

#[test]
fn passwords_go_to_the_token_server() {
    let (place, parts) = (Place::new(), Parts::small());
    let (address, copy) = (Arc::new(std::sync::OnceLock::<String>::new()), parts);
    let own = address.clone();
    let server = Server::new(move |request| {
        let sent = request.headers.get("authorization").map_or("", String::as_str);
        match (request.target.as_str(), sent) {
            (target, "Basic dXNlcjpwYXNz") if target.starts_with("/token?") => Reply::ok(r#"{"token":"by-password"}"#),
            (target, _) if target.starts_with("/token") => Reply::status(401),
            (_, "Bearer by-password") => honest(&copy, request),
            _ => {
                let realm = format!("http://{}/token", own.get().unwrap());
                Reply::status(401).with("www-authenticate", format!(r#"Bearer realm="{realm}",service="s""#))
            }
        }
    });
    address.set(server.address.clone()).unwrap();
    let source = format!("{}/app:v1", server.address);
    let wrong = format!(r#"{{"auths":{{"{}":{{"username":"user","password":"other"}}}}}}"#, server.address);
    assert_refused(place.resolve_with(&source, &with_logins(&place, &wrong)), &["denied"]);
    let right = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpwYXNz"}}}}}}"#, server.address);
    place.resolve_with(&source, &with_logins(&place, &right)).unwrap();
}

#[test]
fn identity_tokens_are_exchanged() {
    let (place, parts) = (Place::new(), Parts::small());
    let address = Arc::new(std::sync::OnceLock::<String>::new());
    let own = address.clone();
    let server = Server::new(move |request| {
        if request.target == "/token" && request.method == "POST" {
            return Reply::ok(r#"{"access_token":"exchanged"}"#);
        }
        if request.headers.get("authorization").map(String::as_str) == Some("Bearer exchanged") {
            return honest(&parts, request);
        }
        let realm = format!("http://{}/token", own.get().unwrap());
        Reply::status(401).with("www-authenticate", format!(r#"Bearer realm="{realm}",service="s""#))
    });
    address.set(server.address.clone()).unwrap();
    let config = format!(r#"{{"auths":{{"{}":{{"identitytoken":"id & token"}}}}}}"#, server.address);
    place.resolve_with(&format!("{}/app:v1", server.address), &with_logins(&place, &config)).unwrap();
    let posts: Vec<_> = server.requests().into_iter().filter(|request| request.method == "POST").collect();
    assert_eq!(posts.len(), 1);
    assert!(
        posts[0].body.contains("grant_type=refresh_token") && posts[0].body.contains("refresh_token=id%20%26%20token")
    );
    assert!(posts[0].body.contains("scope=repository%3Aapp%3Apull"), "{}", posts[0].body);
}

#[test]
fn proxies_carry_what_is_not_excepted() {
    let (place, parts) = (Place::new(), Parts::small());
    let server = Server::new(move |request| honest(&parts, request));
    let (address, asked) = run_proxy(&server.address, ":80 ");
    let variables = move |name: &str| match name {
        "HTTP_PROXY" | "HTTPS_PROXY" => Some(address.clone()),
        "NO_PROXY" => Some("direct.invalid".to_owned()),
        _ => None,
    };
    let through = Options {
        proxies: Proxies::from_variables(variables),
        insecure_registries: vec!["registry.invalid".to_owned()],
        ..options()
    };
    place.resolve_with("registry.invalid/app:v1", &through).unwrap();
    let asked = asked.lock().unwrap().clone();
    assert!(asked.iter().any(|line| line.starts_with("CONNECT registry.invalid:80 ")), "{asked:?}");
    assert!(asked.iter().any(|line| line.starts_with("CONNECT registry.invalid:443 ")), "{asked:?}");
    assert_refused(place.resolve_with("direct.invalid/app:v1", &through), &["failed to reach https://direct.invalid"]);
    assert_refused(place.resolve_with("other.invalid/app:v1", &through), &["failed to reach https://other.invalid"]);
}

/// Starts a proxy that carries requests for `port` to `target`, and nothing else; gives its URL.
pub(crate) fn start_proxy(target: &str, port: &'static str) -> String {
    run_proxy(target, port).0
}

/// The first lines of the requests that a proxy got.
type Asked = Arc<std::sync::Mutex<Vec<String>>>;

fn run_proxy(target: &str, port: &'static str) -> (String, Asked) {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, asked) = (format!("http://{}", proxy.local_addr().unwrap()), Asked::default());
    let (target, log) = (target.to_owned(), asked.clone());
    // Ends with the test's process: it waits for connections that no longer come.
    std::thread::spawn(move || {
        for connection in proxy.incoming().flatten() {
            let (target, log) = (target.clone(), log.clone());
            std::thread::spawn(move || tunnel(connection, &target, port, &log));
        }
    });
    (url, asked)
}

/// Answers one CONNECT and carries bytes both ways.
fn tunnel(client: std::net::TcpStream, target: &str, port: &str, log: &std::sync::Mutex<Vec<String>>) -> Option<()> {
    use std::io::{BufRead, BufReader, Write};
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    log.lock().unwrap().push(first.clone());
    let mut writer = client;
    if !first.contains(port) {
        return writer.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").ok();
    }
    writer.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let server = std::net::TcpStream::connect(target).ok()?;
    let mut to_server = server.try_clone().ok()?;
    std::thread::spawn(move || std::io::copy(&mut reader, &mut to_server));
    let mut from_server = server;
    std::io::copy(&mut from_server, &mut writer).ok().map(drop)
}
