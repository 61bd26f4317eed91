//! An image of several layers: whiteouts, hard links, file capabilities, and writing over what lies below.

use caveau_tests::{Caveau, image};

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
