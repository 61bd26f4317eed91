//! Two network namespaces of the test's own, joined by a pair of interfaces: one for the guest, one for everybody else.
//!
//! The test's program starts itself once more, in new user and network namespaces, where it is root; the thread of the peer
//! leaves for a network namespace of its own. Nothing of this touches the machine's network.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
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
    if env::var_os(INSIDE).is_some() {
        return body(&Peer::new());
    }
    if let Err(reason) = probe() {
        println!("skipped: no namespaces with nftables and pairs of interfaces: {reason}");
        return;
    }
    let program = env::current_exe().unwrap();
    let mut inside = unshared(program.to_str().unwrap());
    let result = inside.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(INSIDE, "1").output().unwrap();
    let said = [result.stdout, result.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(result.status.success(), "{said}");
    assert!(said.contains("1 passed"), "nothing ran: {said}");
}

fn unshared(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--", program]);
    command
}

/// What the tests need, tried where it can do no harm.
fn probe() -> Result<(), String> {
    let result = unshared("ip").args(["link", "add", "a", "type", "veth", "peer", "name", "b"]).output();
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
        GUEST.map(|own| address(own, "guest"));
        ip("link set guest up");
        peer.run(move || {
            ip("link set lo up");
            LISTED.into_iter().chain(OTHER).for_each(|own| address(own, "peer"));
            ip("link set peer up");
        });
        peer
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

    /// Whether somebody connected since the last time.
    pub(crate) fn had_a_client(&self) -> bool {
        self.clients.try_iter().count() > 0
    }
}
