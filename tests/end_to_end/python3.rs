//! An image of several layers: whiteouts, hard links, file capabilities, and writing over what lies below. And a network
//! with several ports.

use std::{net::UdpSocket, process::Command, time::Duration};

use caveau_tests::{Caveau, Outcome, eventually, free_port, http_get, image};

#[test]
fn python_sees_one_file_system_made_of_its_layers() {
    let Some(caveau) = Caveau::new() else { return };
    let program = "
import hashlib, json, os, socket, ssl, subprocess, sys, tempfile
with tempfile.NamedTemporaryFile(dir='/var/tmp') as f:
    data = os.urandom(1 << 20) * 8
    f.write(data); f.flush(); os.fsync(f.fileno()); f.seek(0)
    same = hashlib.sha256(f.read()).digest() == hashlib.sha256(data).digest()
with open('/usr/lib/os-release', 'a') as f: f.write('CHANGED=1\\n')
print(json.dumps({'same': same, 'sum': sum(range(10)), 'pid': os.getpid(), 'changed': 'CHANGED=1' in open('/usr/lib/os-release').read(),
  'root': [m.split()[2:4] for m in open('/proc/mounts') if m.split()[1] == '/'] or open('/proc/mounts').readline().split()[:3]}))
sys.exit(42)
";
    let outcome = caveau.run(&["run", "--rm", "--user", "0", &image("python3"), "--", "-c", program]);
    let outcome = outcome.expect_code(42);
    let printed = outcome.json();
    assert_eq!(printed["same"], true, "{printed}");
    assert_eq!(printed["sum"], 45, "{printed}");
    assert_eq!(printed["changed"], true, "layers are read-only, the container's own layer is not: {printed}");
}

#[test]
fn whiteouts_links_and_attributes_are_as_the_image_has_them() {
    let Some(caveau) = Caveau::new() else { return };
    let program = "
import json, os, subprocess, time
def same(one, other): return os.path.samefile(one, other) and os.stat(one).st_nlink == 2
def attribute(path, name): return os.getxattr(path, name).hex()
def ping():
    process = subprocess.Popen(['/bin/ping', '-c', '2', '127.0.0.1'], stdout=subprocess.DEVNULL)
    while open(f'/proc/{process.pid}/comm').read() != 'ping\\n': time.sleep(0.01)
    owner = os.stat(f'/proc/{process.pid}/environ').st_uid
    return [owner, process.wait()]
print(json.dumps({
  'old': os.path.exists('/app/old.py'), 'note': os.path.exists('/etc/debian_chroot_note'), 'cache': sorted(os.listdir('/app/cache')),
  'links': [same('/app/data.bin', '/app/data-again.bin'), same('/app/serve.py', '/app/server.py')],
  'symlink': os.readlink('/usr/local/bin/hello'), 'mode': oct(os.stat('/app/data.bin').st_mode), 'owner': os.stat('/app/data.bin').st_uid,
  'capability': attribute('/bin/ping', 'security.capability'), 'release': attribute('/app/hello.py', 'user.release'),
  'user': [os.getuid(), os.getgid(), os.getcwd()],
  'ping': ping(),
}))
";
    let outcome = caveau.run(&["run", "--rm", &image("python3"), "--", "-c", program]).success();
    let expected = serde_json::json!({
        "old": false, "note": false, "cache": ["c"], "links": [true, true], "symlink": "/app/hello.py",
        "mode": "0o100640", "owner": 1000, "capability": "0100000200200000000000000000000000000000",
        "release": "312e30", "user": [1000, 1000, "/app"],
        // A process that gained a capability from its file is not its user's to look into: the kernel gives it to root.
        "ping": [0, 0],
    });
    assert_eq!(outcome.json(), expected);
}

#[test]
fn several_ports_of_both_transports_and_names() {
    let Some(caveau) = Caveau::new() else { return };
    let program = "
import http.server, os, socket, threading
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path[1:]
        try: text = socket.gethostbyname(name) if name else str(self.server.server_port)
        except OSError as error: text = 'no: ' + str(error)
        self.send_response(200); self.end_headers(); self.wfile.write(text.encode())
for port in (8001, 8002):
    threading.Thread(target=http.server.ThreadingHTTPServer(('', port), Page).serve_forever).start()
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); echo.bind(('', 8003))
while True:
    data, sender = echo.recvfrom(2048); echo.sendto(b'heard ' + data, sender)
";
    let (one, two, three) = (free_port(), free_port(), free_port());
    let forward = |host: u16, guest: &str| format!("{host}:{guest}");
    let (one_forward, two_forward, three_forward) =
        (forward(one, "8001"), forward(two, "8002/tcp"), forward(three, "8003/udp"));
    let names = NameServer::start();
    let ports = ["run", "-d", "--name", "ports", "-p", &one_forward, "-p", &two_forward, "-p", &three_forward];
    let mut run = caveau.command(&[&ports[..], &[&image("python3"), "--", "-c", program]].concat());
    let started = match &names {
        Some(names) => names.for_command(&run).output(),
        None => run.output(),
    };
    Outcome::from(started.expect("caveau runs")).success();
    assert_eq!(http_get(one, "/").expect("the first port answers"), "8001");
    assert_eq!(http_get(two, "/").expect("the second port answers"), "8002");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a time limit");
    let answer = eventually(|| {
        let mut buffer = [0; 64];
        socket.send_to(b"hello", ("127.0.0.1", three))?;
        let count = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
    });
    assert_eq!(answer.expect("the third port answers"), "heard hello");
    let listed = caveau.run(&["ps"]).success().stdout;
    assert!(listed.contains(&format!("127.0.0.1:{three}:8003/udp")), "{listed}");

    // Names are resolved by the host's own server, and by no other.
    if names.is_some() {
        assert_eq!(http_get(one, "/known.test").expect("an answer"), "192.0.2.77");
        let unknown = http_get(one, "/unknown.test").expect("an answer");
        assert!(unknown.starts_with("no: "), "{unknown}");
    }
    caveau.run(&["rm", "--force", "ports"]).success();
}

/// A name server of the test's own, which knows one name, and a file that names it as a host's `/etc/resolv.conf` does.
struct NameServer {
    configuration: tempfile::NamedTempFile,
}

impl NameServer {
    /// Where it listens; the port of names is fixed, and below 1024.
    const ADDRESS: &str = "127.53.53.53";

    /// Starts it, on a thread; says why not where this is not root.
    fn start() -> Option<Self> {
        let socket = match UdpSocket::bind((Self::ADDRESS, 53)) {
            Ok(socket) => socket,
            Err(error) => {
                println!("skipped: only root can play the host's name server: {error}");
                return None;
            }
        };
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((count, asker)) = socket.recv_from(&mut buffer) {
                // An asker that is gone needs no answer.
                let _ = socket.send_to(&answer(&buffer[..count]), asker);
            }
        });
        let configuration = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(configuration.path(), format!("nameserver {}\n", Self::ADDRESS)).expect("written");
        Some(Self { configuration })
    }

    /// The command on a host whose name server this is: in a mount namespace of its own.
    fn for_command(&self, command: &Command) -> Command {
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        let mut wrapped = Command::new("unshare");
        wrapped.args(["--mount", "sh", "-c", script]).arg(self.configuration.path());
        wrapped.arg(command.get_program()).args(command.get_args());
        for (variable, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(variable, value),
                None => wrapped.env_remove(variable),
            };
        }
        wrapped
    }
}

/// The answer to a question for a name (RFC 1035, section 4): one address for `known.test`, and that there is no such name
/// for any other.
fn answer(question: &[u8]) -> Vec<u8> {
    let known = question.windows(12).any(|bytes| bytes == b"\x05known\x04test\0");
    let mut answer = question.to_vec();
    // A response, recursion available; code 3: no such name. As many answers as there are.
    answer[2..4].copy_from_slice(if known { &[0x81, 0x80] } else { &[0x81, 0x83] });
    answer[6..8].copy_from_slice(&[0, u8::from(known)]);
    if known {
        // The name as in the question (at 12), type A, class IN, a minute, four bytes.
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
    }
    answer
}
