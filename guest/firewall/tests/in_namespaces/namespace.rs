//! Two network namespaces of the test's own, joined by a pair of interfaces: one for the guest, one for everybody else.
//!
//! The test's program starts itself once more, in a new network namespace where it is root (and in a new user
//! namespace for that, where it is not root already); the thread of the peer
//! leaves for a network namespace of its own. Nothing of this touches the machine's network.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{UnshareFlags, gettid};

const INSIDE: &str = "CAVEAU_FIREWALL_TEST_INSIDE";

/// How long something that must come may take, and how long something that must not come is waited for.
pub(crate) const LONG: Duration = Duration::from_secs(10);
pub(crate) const SHORT: Duration = Duration::from_millis(300);

/// The guest's addresses, and the peer's. The peer has two of each, of which the rules can list one.
pub(crate) const GUEST: [&str; 2] = ["10.9.0.1", "fd09::1"];
pub(crate) const LISTED: [&str; 2] = ["10.9.0.2", "fd09::2"];
pub(crate) const OTHER: [&str; 2] = ["10.9.0.3", "fd09::3"];

/// Runs the test of that name in namespaces of its own; says so where the machine has none.
pub(crate) fn isolated(test: &str, body: fn(&Peer)) {
    if let Some(outside) = env::var_os(INSIDE) {
        assert_ne!(outside, network_namespace(), "this is the machine's own network");
        return body(&Peer::new());
    }
    if let Err(reason) = probe() {
        println!("skipped: no namespaces with nftables and pairs of interfaces: {reason}");
        return;
    }
    let program = env::current_exe().unwrap();
    let mut inside = unshared(program.to_str().unwrap());
    let result = inside
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, network_namespace())
        .output()
        .unwrap();
    let said = [result.stdout, result.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(result.status.success(), "{said}");
    assert!(said.contains("1 passed"), "nothing ran: {said}");
    for (_, reason) in said.lines().filter_map(|line| line.split_once("skipped: ")) {
        println!("skipped: {reason}");
    }
}

/// The calling thread's, as the kernel names it.
fn network_namespace() -> PathBuf {
    fs::read_link("/proc/thread-self/ns/net").unwrap()
}

fn unshared(program: &str) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--", program]);
    command
}

/// What the tests need, tried where it can do no harm.
fn probe() -> Result<(), String> {
    let result = unshared("ip").args(["link", "add", "guest", "type", "veth", "peer", "name", "peer"]).output();
    let result = result.map_err(|error| format!("unshare: {error}"))?;
    if !result.status.success() {
        return Err(String::from_utf8_lossy(&result.stderr).trim().to_owned());
    }
    let netfilter = Some(rustix::net::netlink::NETFILTER);
    rustix::net::socket(rustix::net::AddressFamily::NETLINK, rustix::net::SocketType::RAW, netfilter)
        .map(drop)
        .map_err(|error| format!("netfilter: {error}"))
}

/// A program of iproute2, in the calling thread's namespace.
fn ip(arguments: &str) {
    let result = Command::new("ip").args(arguments.split(' ')).stdin(Stdio::null()).output().unwrap();
    assert!(result.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&result.stderr));
}

/// The peer's hardware address.
pub(crate) const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// What is done at the other end of the pair.
pub(crate) struct Peer {
    work: Sender<Box<dyn FnOnce() + Send>>,
}

impl Peer {
    fn new() -> Self {
        let (work, todo) = channel::<Box<dyn FnOnce() + Send>>();
        let (ready, started) = channel();
        thread::spawn(move || {
            // SAFETY: the network namespace is the thread's, and no memory or descriptor depends on it.
            #[expect(unsafe_code, reason = "leaving for another namespace has no safe name")]
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            ready.send(gettid().as_raw_nonzero()).unwrap();
            todo.iter().for_each(|job| job());
        });
        let thread = started.recv().unwrap();
        ip("link set lo up");
        ip(&format!("link add guest type veth peer name peer netns {thread}"));
        let peer = Self { work };
        let address = |address: &str, interface: &str| match address.parse().unwrap() {
            IpAddr::V4(address) => ip(&format!("addr add {address}/24 dev {interface}")),
            IpAddr::V6(address) => ip(&format!("addr add {address}/64 dev {interface} nodad")),
        };
        GUEST.into_iter().for_each(|own| address(own, "guest"));
        ip("link set guest up");
        peer.run(move || {
            ip("link set lo up");
            LISTED.into_iter().chain(OTHER).for_each(|own| address(own, "peer"));
            ip("link set peer address 02:00:00:00:00:02");
            ip("link set peer up");
        });
        peer.await_link();
        peer
    }

    /// Waits until both ends know that they are connected: until somebody refuses, where nobody answered.
    fn await_link(&self) {
        let end = Instant::now() + LONG;
        let refused =
            |result: io::Result<TcpStream>| result.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
        let there = || LISTED.into_iter().chain(OTHER).all(|address| refused(connect(at(address, 1))));
        let here = || GUEST.into_iter().all(|address| self.run(move || refused(connect(at(address, 1)))));
        while !(there() && here()) {
            assert!(Instant::now() < end, "the pair of interfaces does not come up");
        }
    }

    /// Does something in the peer's namespace and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let (result, done) = channel();
        self.work.send(Box::new(move || _ = result.send(act()))).unwrap();
        done.recv().unwrap()
    }

    /// Serves TCP at the peer's address.
    pub(crate) fn serves(&self, at: SocketAddr) -> Echo {
        self.run(move || Echo::new(at))
    }

    /// A UDP socket at the peer's address, with the patience of a test.
    pub(crate) fn datagrams(&self, at: SocketAddr) -> UdpSocket {
        self.run(move || datagrams(at))
    }
}

/// A UDP socket in the calling thread's namespace, which waits as long as for what must not come.
pub(crate) fn datagrams(at: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_read_timeout(Some(SHORT)).unwrap();
    socket
}

/// A TCP server in the calling thread's namespace that gives each line back, and tells who connected.
pub(crate) struct Echo {
    clients: Receiver<SocketAddr>,
}

impl Echo {
    pub(crate) fn new(at: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        let (connected, clients) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map(Result::unwrap) {
                _ = connected.send(stream.peer_addr().unwrap());
                thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    while let Some(Ok(line)) = lines.next() {
                        if writeln!(&stream, "{line}").is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { clients }
    }

    /// Whether somebody connected since the last time, or does within moments.
    pub(crate) fn had_a_client(&self) -> bool {
        self.clients.recv_timeout(SHORT).is_ok()
    }
}

/// Connects from the calling thread's namespace, or gives up.
pub(crate) fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, SHORT)?;
    stream.set_read_timeout(Some(LONG))?;
    Ok(stream)
}

/// Says something to an echo and hears it.
pub(crate) fn talk(stream: &TcpStream) -> io::Result<()> {
    let mut stream = stream;
    stream.write_all(b"hello\n")?;
    let mut heard = [0; 6];
    stream.read_exact(&mut heard)?;
    assert_eq!(&heard, b"hello\n");
    Ok(())
}

/// An address of the tests and a port.
pub(crate) fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}
