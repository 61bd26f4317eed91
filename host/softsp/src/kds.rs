//! A look-alike of AMD's Key Distribution Service, for this installation's processor: the same paths ([`caveau_snp::kds`]), over
//! plain HTTP, on loopback only. So the way over which certificates are fetched can be tested without hardware.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use caveau_snp::kds::Document;
use caveau_snp::report::SigningKey;

use crate::authority::{Authority, Kind};
use crate::endorsement::vcek_certificate;
use crate::persona::{Persona, Platform};
use crate::revocation;
use crate::state::{StateError, StateFolder};

/// Most bytes of a request's head.
const MAX_HEAD: u64 = 8 * 1024;
/// How long a client may take to ask or to listen: the next one waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers requests, one after the other, until the listener fails. A client's mistakes end its connection only.
///
/// # Errors
/// When `listener` is not on loopback (nobody else shall take these certificates for anything), or fails.
pub fn serve(state_folder: &Path, listener: &TcpListener) -> io::Result<()> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{address} is no loopback address")));
    }
    loop {
        let (stream, _) = listener.accept()?;
        if let Err(error) = answer(state_folder, stream) {
            eprintln!("a client of the key distribution service went away: {error}");
        }
    }
}

fn answer(state_folder: &Path, mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = BufReader::new(&stream).take(MAX_HEAD);
    let mut request = String::new();
    head.read_line(&mut request)?;
    let mut line = String::from("-");
    while !line.trim_end().is_empty() {
        line.clear();
        head.read_line(&mut line)?;
    }
    let (status, kind, body) = respond(state_folder, &request);
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)
}

/// Status, media type and body for a request's first line.
fn respond(state_folder: &Path, request: &str) -> (&'static str, &'static str, Vec<u8>) {
    let words: Vec<&str> = request.split_ascii_whitespace().collect();
    let [method, path, _version] = words.as_slice() else { return ("400 Bad Request", TEXT, Vec::new()) };
    if *method != "GET" {
        return ("405 Method Not Allowed", TEXT, Vec::new());
    }
    match Document::at(path).map(|document| find(state_folder, &document)) {
        Some(Ok(Some((kind, body)))) => ("200 OK", kind, body),
        Some(Ok(None)) | None => ("404 Not Found", TEXT, Vec::new()),
        Some(Err(error)) => ("500 Internal Server Error", TEXT, crate::message::chain(&error).into_bytes()),
    }
}

const TEXT: &str = "text/plain";
const BINARY: &str = "application/octet-stream";
const PEM: &str = "application/x-pem-file";

/// The document, if this installation's processor has it: every product line that it plays, and its own chip alone.
fn find(state_folder: &Path, document: &Document) -> Result<Option<(&'static str, Vec<u8>)>, StateError> {
    let state = StateFolder::open(state_folder)?;
    let intermediate = |key: &SigningKey| match key {
        SigningKey::Vcek => state.authority(Kind::Ask),
        SigningKey::Vlek => state.authority(Kind::Asvk),
    };
    Ok(Some(match document {
        Document::Vcek { product, hwid, tcb } => {
            let seed = state.seed()?;
            let Some(persona) = Persona::of(*product) else { return Ok(None) };
            let platform = Platform::new(persona, &seed, false)?;
            if platform.hwid != *hwid || platform.reported.fmc.is_some() != tcb.fmc.is_some() {
                return Ok(None);
            }
            (BINARY, vcek_certificate(&state, &seed, &Platform { reported: *tcb, ..platform })?)
        }
        Document::Chain(_, key) => {
            (PEM, [intermediate(key)?.pem(), Authority::root(&state)?.pem()].concat().into_bytes())
        }
        Document::Crl(_, key) => {
            (BINARY, revocation::list(&state, &Authority::root(&state)?, intermediate(key)?.certificate())?)
        }
    }))
}
