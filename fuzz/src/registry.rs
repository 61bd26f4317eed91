//! A registry that answers whatever it likes: status lines, headers, redirects, challenges, tokens, broken bodies.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use caveau_registry::{ImageSource, Proxies};

use crate::Target;
use crate::archives::{Parts, Place, check, image_parts, options};
use crate::sections::{join, sections};

/// Layer, configuration and manifest as in an archive; then the raw answers, one for each request.
pub(crate) const REGISTRY_ANSWERS: Target =
    Target { name: "registry_answers", run: |data| _ = pulled(data), seeds: conversations, fixtures: &[], rounds: 60 };

/// First byte of a TLS greeting (RFC 8446 section 5.1, handshake record).
const TLS_HANDSHAKE: u8 = 0x16;

/// Whether the registry that answers so gives the image.
fn pulled(data: &[u8]) -> bool {
    let (image, answers) = Parts::new(data);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let bodies =
        [("@body-of-layer", &image.layer), ("@body-of-config", &image.config), ("@body-of-manifest", &image.manifest)];
    let answers = answers.iter().map(|answer| {
        // Bodies last: they need not be text.
        let text = image.filled(&answer_with(answer, "@host", address.to_string().as_bytes()));
        bodies.iter().fold(text, |text, (mark, body)| answer_with(&text, mark, body))
    });
    let answers: Vec<_> = answers.collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| serve(&listener, &answers, &done));
        let source = ImageSource::parse(&format!("docker://{address}/x/y:tag")).expect("a source");
        // Whatever is not on this machine is asked for through this same server, and so never leaves it.
        let proxies = Proxies::from_variables(|name| (name == "ALL_PROXY").then(|| format!("http://{address}")));
        let found = Place::new().resolve(&source, &options(proxies));
        done.store(true, Ordering::SeqCst);
        // Wakes the server.
        drop(TcpStream::connect(address));
        found.inspect(|found| check(&image, found)).is_ok()
    })
}

/// Bytes with each mark replaced.
fn answer_with(text: &[u8], mark: &str, value: &[u8]) -> Vec<u8> {
    let (mut out, mut rest, mark) = (Vec::new(), text, mark.as_bytes());
    while let Some(at) = rest.windows(mark.len()).position(|window| window == mark) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(value);
        rest = &rest[at + mark.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// Gives each request the next answer and hangs up; TLS is not spoken.
fn serve(listener: &TcpListener, answers: &[Vec<u8>], done: &AtomicBool) {
    let mut answers = answers.iter();
    for connection in listener.incoming() {
        if done.load(Ordering::SeqCst) {
            return;
        }
        let Ok(mut connection) = connection else { continue };
        if read_request(&mut connection).is_some()
            && let Some(answer) = answers.next()
        {
            // A client may have heard enough.
            drop(connection.write_all(answer));
        }
        drop(connection.shutdown(std::net::Shutdown::Write));
        // Closed with bytes unread it would be reset, and the answer lost.
        drop(connection.set_read_timeout(Some(Duration::from_millis(20))));
        drop((&connection).take(1 << 16).read_to_end(&mut Vec::new()));
    }
}

/// Reads up to the empty line; none where it is TLS or breaks off.
fn read_request(connection: &mut TcpStream) -> Option<()> {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = connection.read(&mut buffer).ok().filter(|count| *count > 0)?;
        request.extend_from_slice(&buffer[..count]);
        if request.first() == Some(&TLS_HANDSHAKE) {
            return None;
        }
    }
    Some(())
}

/// An answer after which the server hangs up.
fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n{body}").into_bytes()
}

fn conversations() -> Vec<Vec<u8>> {
    let parts: Vec<Vec<u8>> = sections(&image_parts()[0]).into_iter().take(3).map(<[u8]>::to_vec).collect();
    let conversation = |answers: &[Vec<u8>]| join(&[&parts, answers].concat());
    let hello = answer("200 OK", "Content-Length: 2\r\n", "{}");
    let media = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
    let manifest = answer("200 OK", media, "@body-of-manifest");
    let config = answer("200 OK", "", "@body-of-config");
    let layer = answer("200 OK", "Content-Length: @layer-size\r\n", "@body-of-layer");
    let challenge =
        "WWW-Authenticate: Bearer realm=\"http://@host/token?x=1\",service=\"s\",scope=\"repository:x/y:pull\"\r\n";
    let denied = r#"{"errors":[{"code":"DENIED","message":"no"}]}"#;
    vec![
        conversation(&[hello.clone(), manifest.clone(), config.clone(), layer.clone()]),
        conversation(&[
            hello.clone(),
            answer("401 Unauthorized", challenge, denied),
            answer("200 OK", "", r#"{"token":"abc","expires_in":60}"#),
            manifest.clone(),
            answer("307 Temporary Redirect", "Location: http://@host/elsewhere\r\n", ""),
            config.clone(),
            answer("302 Found", "Location: /v2/x\r\n", ""),
            layer,
        ]),
        conversation(&[
            hello.clone(),
            manifest,
            config,
            answer("200 OK", "Content-Length: @layer-size\r\n", "half"),
            answer("206 Partial Content", "Content-Range: bytes 4-9/10\r\nContent-Length: 6\r\n", "a range"),
        ]),
        conversation(&[
            hello.clone(),
            answer(
                "200 OK",
                "Transfer-Encoding: chunked\r\nDocker-Content-Digest: @manifest\r\n",
                "5\r\nabcde\r\n0\r\n\r\n",
            ),
        ]),
        conversation(&[
            hello,
            answer("429 Too Many Requests", "Retry-After: 0\r\n", denied),
            answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", ""),
        ]),
    ]
}

#[cfg(test)]
mod tests {
    use super::{conversations, pulled};

    #[test]
    fn the_first_two_seeds_give_the_image() {
        let seeds = conversations();
        assert!(pulled(&seeds[0]), "plain answers");
        assert!(pulled(&seeds[1]), "a token and redirects");
        assert!(!pulled(&seeds[2]), "a range that is not the one asked for");
    }
}
