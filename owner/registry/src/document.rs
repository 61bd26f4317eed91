//! Single documents from other services than registries, such as certificates: by HTTPS, or plain HTTP from loopback.

use std::io::Read;
use std::time::Duration;

use ureq::http::header::RETRY_AFTER;
use ureq::http::{Response, StatusCode, Uri};
use ureq::{Agent, Body};

use crate::remote::http::{Failure, failed, header, host_of, make_agent, shown, with_retries};
use crate::remote::proxy::is_loopback;
use crate::{Options, Progress, RegistryError};

/// The document at `url`, of at most `limit` bytes; `None` where the server says that there is none.
///
/// Proxies, certificates to trust and retries are those of `options`. Redirects are not followed: whoever is asked answers.
///
/// # Errors
/// When the URL is none or is plain HTTP to another machine, when nobody answers, with another answer than the document, or
/// with one that is too long.
pub fn fetch_document(
    url: &str,
    limit: u64,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Option<Vec<u8>>, RegistryError> {
    let agent = agent(url, options)?;
    with_retries(options.retry, progress, || {
        let response = agent.get(url).call().map_err(|error| failed(url, &error))?;
        match response.status() {
            StatusCode::OK => read(url, response, limit).map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(refused(url, status, &response)),
        }
    })
}

fn agent(url: &str, options: &Options) -> Result<Agent, RegistryError> {
    let protocol = |reason: &str| RegistryError::Protocol { url: shown(url), reason: reason.to_owned() };
    let uri: Uri = url.parse().map_err(|_| protocol("it is not a valid URL"))?;
    let authority = uri.authority().ok_or_else(|| protocol("it names no host"))?.as_str();
    let https = match uri.scheme_str() {
        Some("https") => true,
        Some("http") if is_loopback(host_of(authority)) => false,
        _ => return Err(protocol("only https is allowed there, and http on this machine")),
    };
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let proxy = options.proxies.choose(https, host_of(authority), port);
    make_agent(options, authority, true, proxy)
}

fn read(url: &str, response: Response<Body>, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    if let Err(error) = response.into_body().into_reader().take(limit + 1).read_to_end(&mut content) {
        return Err(Failure::Passing(RegistryError::Unreachable { url: shown(url), reason: error.to_string() }, None));
    }
    if content.len() as u64 > limit {
        return Err(RegistryError::TooLarge { what: shown(url), limit }.into());
    }
    Ok(content)
}

/// A service that is asked too often says so, and may say for how long.
fn refused(url: &str, status: StatusCode, response: &Response<Body>) -> Failure {
    let error = RegistryError::Status { url: shown(url), status: status.as_u16(), detail: String::new() };
    let after = header(response, RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok());
    if status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) {
        return Failure::Passing(error, after.map(Duration::from_secs));
    }
    Failure::Final(error)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::Retry;

    /// A server that gives these answers, one a connection; its URL, and the requests' first lines when all are given.
    fn server(answers: Vec<&'static str>) -> (String, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}/document?x=1", listener.local_addr().unwrap());
        let serve = move |answer: &str| {
            let (mut stream, _) = listener.accept().unwrap();
            let lines: Vec<String> =
                BufReader::new(&stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            stream.write_all(answer.as_bytes()).unwrap();
            lines[0].clone()
        };
        (url, thread::spawn(move || answers.into_iter().map(serve).collect()))
    }

    fn fetch(url: &str, limit: u64) -> Result<Option<Vec<u8>>, RegistryError> {
        let retry = Retry { attempts: 2, first_pause: Duration::ZERO, longest_pause: Duration::ZERO };
        fetch_document(url, limit, &Options { retry, ..Options::default() }, &())
    }

    const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    const BUSY: &str = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

    #[test]
    fn a_document_comes_whole_and_a_busy_server_is_asked_again() {
        let (url, requests) = server(vec![BUSY, HELLO]);
        assert_eq!(fetch(&url, 5).unwrap().unwrap(), b"hello");
        assert_eq!(requests.join().unwrap(), ["GET /document?x=1 HTTP/1.1"; 2]);
    }

    #[test]
    fn other_answers_are_told_apart() {
        let answers = [
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "none"),
            ("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "400"),
            ("HTTP/1.1 302 Found\r\nLocation: /else\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "302"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello!", "limit of 5 bytes"),
        ];
        for (answer, said) in answers {
            let (url, requests) = server(vec![answer]);
            let told = match fetch(&url, 5) {
                Ok(None) => "none".to_owned(),
                Ok(Some(_)) => "a document".to_owned(),
                Err(error) => error.to_string(),
            };
            assert!(told.contains(said), "{told}");
            requests.join().unwrap();
        }
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        for url in ["http://192.0.2.1/crl", "ftp://127.0.0.1/crl", "crl", "http:///crl"] {
            assert!(matches!(fetch(url, 5), Err(RegistryError::Protocol { .. })), "{url}");
        }
    }
}
