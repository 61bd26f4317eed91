//! The page of `caveau verify --html` in a browser: it shows all that it should, and nothing in it runs or asks the network,
//! even where its text is hostile, and even where somebody got elements into it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

use crate::page::hostile;

/// Names of the program, from Debian's packages chromium-headless-shell and chromium.
const PROGRAMS: [&str; 2] = ["chromium-headless-shell", "chromium"];

/// A script and an image of an element each, which a browser would run and fetch.
const INTRUDERS: &str = "<script>document.title = 'it ran'</script><img src=\"http://leak.test/image\">\
                         <link rel=\"stylesheet\" href=\"http://leak.test/style\"><iframe src=\"http://leak.test/frame\"></iframe>";

/// A browser without a window whose every request goes to us.
struct Browser {
    program: &'static str,
    proxy: String,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What became of a page.
struct Shown {
    /// The elements, as the browser has them in the end.
    dom: String,
    /// What it complained of.
    console: String,
    /// The requests that it made.
    asked: Vec<String>,
}

impl Browser {
    /// One, or `None` with a visible word.
    fn find() -> Option<Self> {
        let runs =
            |program: &&str| Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success());
        let Some(program) = PROGRAMS.into_iter().find(runs) else {
            println!("skipped: no Chromium; Debian's package {} has it", PROGRAMS[0]);
            return None;
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let first = lines.next().unwrap_or_default();
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                record.lock().unwrap().push(first);
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        Some(Self { program, proxy, asked })
    }

    /// Runs it on a file; `what` is what to do with the page. Gives both of its outputs.
    fn run(&self, what: &str, file: &Path) -> (Vec<u8>, String) {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new(self.program);
        // No sandbox of its own, which root cannot have. Loopback, too, is asked of the proxy.
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]);
        command.arg(format!("--proxy-server={}", self.proxy)).arg("--proxy-bypass-list=<-loopback>");
        command.arg(format!("--user-data-dir={}", profile.path().display())).env("HOME", profile.path());
        command.arg(what).arg(format!("file://{}", file.canonicalize().unwrap().display()));
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{what}: {errors}");
        (output.stdout, errors)
    }

    fn show(&self, file: &Path) -> Shown {
        self.asked.lock().unwrap().clear();
        let (dom, console) = self.run("--dump-dom", file);
        let asked = self.asked.lock().unwrap().clone();
        Shown { dom: String::from_utf8(dom).unwrap(), console, asked }
    }
}

impl Shown {
    /// The requests to those who have no business here.
    fn leaks(&self) -> Vec<&String> {
        self.asked.iter().filter(|request| request.contains("leak.test")).collect()
    }
}

#[test]
fn a_browser_shows_the_page_and_neither_runs_nor_fetches_anything() {
    let Some(browser) = Browser::find() else { return };
    let (desk, page) = hostile();
    let folder = desk.0.path();

    // What the browser does with a page that does not keep it from it: else nothing below says anything.
    let bare = folder.join("bare.html");
    fs::write(&bare, format!("<!DOCTYPE html><html><head><title>bare</title></head><body>{INTRUDERS}</body></html>"))
        .unwrap();
    let shown = browser.show(&bare);
    assert!(shown.dom.contains("<title>it ran</title>"), "{}{}", shown.dom, shown.console);
    assert_eq!(shown.leaks().len(), 3, "{:?}", shown.asked);

    let file = folder.join("page.html");
    let shown = browser.show(&file);
    assert!(shown.asked.is_empty(), "{:?}", shown.asked);
    // The style sheet is taken: a browser tells of what a policy of contents forbids.
    assert!(!shown.console.contains("Content Security Policy"), "{}", shown.console);
    for absent in ["<script", "<img", "<iframe", "<link", "it ran", "<title>ran"] {
        assert!(!shown.dom.contains(absent), "{absent}: {}", shown.dom);
    }
    for there in ["id=\"outcome\"", "Passed, on an EMULATED TEE", "EMULATED TEE: NO HARDWARE PROTECTS", "id=\"repeat\""]
    {
        assert!(shown.dom.contains(there), "{there}: {}", shown.dom);
    }
    // As a browser understood it: each check is a row, and no row became another by what is in it.
    let rows = |table: &str| table.matches("<th scope=\"row\">").count();
    let part = |from: &str, to: &str| shown.dom[shown.dom.find(from).unwrap()..shown.dom.find(to).unwrap()].to_owned();
    let checks = page.judgement["checks"].as_array().unwrap();
    let table = part("id=\"checks\"", "id=\"hashes\"");
    assert_eq!(rows(&table), checks.len(), "{table}");
    for check in checks {
        assert!(table.contains(&format!("<th scope=\"row\">{}</th>", check["name"].as_str().unwrap())), "{table}");
    }
    assert_eq!(shown.dom.matches("<table>").count(), page.html.matches("<table>").count());
    assert_eq!(rows(&shown.dom), rows(&page.html));

    // The page's own policy of contents holds, were there a hole in the escaping.
    let broken = folder.join("broken.html");
    fs::write(&broken, page.html.replace("</main>", &format!("{INTRUDERS}</main>"))).unwrap();
    let shown = browser.show(&broken);
    assert!(shown.dom.contains("<script>") && !shown.dom.contains("<title>it ran"), "{}", shown.dom);
    assert!(shown.asked.is_empty(), "{:?}", shown.asked);
    assert!(shown.console.contains("Content Security Policy"), "{}", shown.console);
}

#[test]
fn a_browser_prints_the_page() {
    let Some(browser) = Browser::find() else { return };
    let (desk, _page) = hostile();
    let printed = desk.0.path().join("page.pdf");
    browser.run(&format!("--print-to-pdf={}", printed.display()), &desk.0.path().join("page.html"));
    let bytes = fs::read(&printed).unwrap();
    assert!(bytes.starts_with(b"%PDF-") && bytes.len() > 10_000, "{} bytes", bytes.len());
}
