//! An image of several layers: whiteouts, hard links, file capabilities, and writing over what lies below. And a network
//! with several ports.

use std::{net::UdpSocket, time::Duration};

use caveau_tests::{Caveau, eventually, free_port, http_get, image};

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
    caveau
        .run(&[
            "run",
            "-d",
            "--name",
            "ports",
            "-p",
            &forward(one, "8001"),
            "-p",
            &forward(two, "8002/tcp"),
            "-p",
            &forward(three, "8003/udp"),
            &image("python3"),
            "--",
            "-c",
            program,
        ])
        .success();
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

    // Names are resolved by the host's own server: what this machine can resolve, the container can.
    let name = "deb.debian.org";
    let here = std::process::Command::new("getent").args(["ahostsv4", name]).output().expect("getent runs");
    let there = http_get(one, &format!("/{name}")).expect("an answer");
    assert_eq!(!there.starts_with("no: "), here.status.success(), "{there}");
    caveau.run(&["rm", "--force", "ports"]).success();
}
