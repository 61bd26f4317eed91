//! What the look-alike of the key distribution service gives completes evidence that came without certificates.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::thread;

use caveau_evidence::{Certificates, Outcome, Report, kds::Document};
use caveau_snp::product::{Product, ProductLine};
use caveau_snp::report::SigningKey;
use caveau_snp::tcb::Tcb;
use caveau_softsp::{Persona, kds};

use crate::machine::*;

/// The service of the shared installation; it ends with the process.
static SERVICE: LazyLock<SocketAddr> = LazyLock::new(|| {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || kds::serve(&STATE, &listener));
    address
});

/// Status line and body.
fn ask(request: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(*SERVICE).unwrap();
    write!(stream, "{request}\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head.lines().next().unwrap().to_owned(), answer[end + 4..].to_vec())
}

fn get(document: &Document) -> Vec<u8> {
    let (status, body) = ask(&format!("GET {} HTTP/1.1", document.path()));
    assert_eq!(status, "HTTP/1.1 200 OK", "{document:?}");
    body
}

/// All that the service has for a report of `product`.
fn fetched(report: &[u8], product: Product) -> Certificates {
    let report = Report::parse(report).unwrap();
    let documents = [
        Document::vek_of(report.fields()).unwrap(),
        Document::Chain(product, SigningKey::Vcek),
        Document::Crl(product, SigningKey::Vcek),
    ];
    let parts = documents.iter().map(|document| Certificates::from_file(&get(document)).unwrap());
    parts.fold(Certificates::default(), |all, part| all.with(part).unwrap())
}

#[test]
fn fetched_certificates_complete_a_report_that_came_alone() {
    let machine = Machine::persona(Persona::NoCertificates);
    let running = machine.launch();
    let mut tee = running.tee();
    let mut evidence = evidence(&mut tee, [1; 64]);
    assert_eq!(evidence.certificates, Certificates::default());
    let expected = expected(&machine, [1; 64]);
    assert_eq!(judged(&evidence, &expected).first_failure(), Some("certificate-missing"));
    evidence.certificates = fetched(&evidence.report, Product::Software);
    let appraisal = judged(&evidence, &expected);
    assert_eq!(appraisal.outcome, Outcome::Passed, "{:?}", appraisal.checks);
    drop(tee);
    running.end().unwrap();
}

#[test]
fn every_line_that_is_played_has_its_certificates() {
    for (persona, line) in [
        (Persona::Milan, ProductLine::Milan),
        (Persona::Genoa, ProductLine::Genoa),
        (Persona::Turin, ProductLine::Turin),
    ] {
        let machine = Machine::persona(persona);
        let running = machine.launch();
        let mut tee = running.tee();
        let mut evidence = evidence(&mut tee, [1; 64]);
        evidence.certificates = fetched(&evidence.report, Product::Line(line));
        let appraisal = judged(&evidence, &expected(&machine, [1; 64]));
        assert!(appraisal.claims.is_some(), "{persona:?}: {:?}", appraisal.checks);
        drop(tee);
        running.end().unwrap();
    }
}

#[test]
fn a_key_for_other_levels_or_of_another_kind_does_not_fit() {
    let machine = Machine::new();
    let running = machine.launch();
    let mut tee = running.tee();
    let mut evidence = evidence(&mut tee, [1; 64]);
    let Document::Vcek { product, hwid, tcb } =
        Document::vek_of(Report::parse(&evidence.report).unwrap().fields()).unwrap()
    else {
        panic!()
    };
    let expected = expected(&machine, [1; 64]);
    let own = evidence.certificates.clone();
    let lower = Document::Vcek { product, hwid, tcb: Tcb { snp: tcb.snp - 1, ..tcb } };
    evidence.certificates.vek = Some(get(&lower));
    assert_eq!(judged(&evidence, &expected).first_failure(), Some("report-signature"));
    let of_providers = Certificates::from_file(&get(&Document::Chain(product, SigningKey::Vlek))).unwrap();
    evidence.certificates = Certificates { intermediate: of_providers.intermediate, ..own };
    assert_eq!(judged(&evidence, &expected).first_failure(), Some("intermediate-kind"));
    drop(tee);
    running.end().unwrap();
}

#[test]
fn what_it_does_not_have_it_does_not_give() {
    let strange = Document::Vcek { product: Product::Software, hwid: vec![7; 64], tcb: Tcb::default() };
    for (request, status) in [
        (format!("GET {} HTTP/1.1", strange.path()), "404 Not Found"),
        ("GET /vcek/v1/Venice/crl HTTP/1.1".to_owned(), "404 Not Found"),
        ("GET /../seed HTTP/1.1".to_owned(), "404 Not Found"),
        ("POST /vcek/v1/Software/crl HTTP/1.1".to_owned(), "405 Method Not Allowed"),
        ("hello".to_owned(), "400 Bad Request"),
    ] {
        let (found, body) = ask(&request);
        assert_eq!(found, format!("HTTP/1.1 {status}"), "{request}");
        assert!(body.is_empty());
    }
}

#[test]
fn it_serves_this_machine_alone() {
    let everywhere = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    assert!(kds::serve(&STATE, &everywhere).unwrap_err().to_string().contains("no loopback address"));
}
