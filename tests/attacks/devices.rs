//! A container tries to reach the layers and the scratch disk below it, and more of the guest, by device nodes: of its own
//! making, and brought along in its image.

use caveau_tests::{Caveau, layout::Layout};
use tar::{EntryType, Header};

/// Majors that the guest's kernel gives out itself lie here: device mapper's and the ports' to the host.
const DYNAMIC: std::ops::RangeInclusive<u32> = 234..=254;

/// An image that brings nodes of whatever device there may be: `/nodes/b8-0` is block device 8:0.
fn image_with_nodes() -> (Layout, String) {
    let disks = (0..4).map(|disk| (EntryType::Block, 8, disk * 16));
    let mapped = DYNAMIC.flat_map(|major| (0..6).map(move |minor| (EntryType::Block, major, minor)));
    let characters =
        [(1, 1), (1, 4), (1, 11), (10, 236), (10, 237)].map(|(major, minor)| (EntryType::Char, major, minor));
    let ports = DYNAMIC.flat_map(|major| (0..4).map(move |minor| (EntryType::Char, major, minor)));
    let mut layout = Layout::on_busybox();
    layout.add_layer(|tar| {
        for (kind, major, minor) in disks.chain(mapped).chain(characters).chain(ports) {
            let letter = if kind == EntryType::Block { 'b' } else { 'c' };
            let mut header = Header::new_ustar();
            header.set_entry_type(kind);
            header.set_mode(0o666);
            header.set_size(0);
            header.set_device_major(major).expect("a major number");
            header.set_device_minor(minor).expect("a minor number");
            tar.append_data(&mut header, format!("nodes/{letter}{major}-{minor}"), std::io::empty()).expect("written");
        }
    });
    let image = layout.finish();
    (layout, image)
}

#[test]
fn device_nodes_lead_nowhere() {
    let Some(caveau) = Caveau::new() else { return };
    let (_layout, image) = image_with_nodes();
    // One line for each try: what was tried, and why it failed. CAP_MKNOD is among Docker's defaults; CAP_SYS_ADMIN is for
    // the second half, in which the container mounts its own root file system without `nodev`.
    let script = r#"
        try() { what=$1; shift; if said=$("$@" 2>&1); then echo "$what: DONE"; else echo "$what: ${said##*: }"; fi; }
        devices() { awk '$1 ~ /^[0-9]+$/ { print "b", $1, $2, $4 }' /proc/partitions
                    awk '$2 == "virtio-portsdev" { for (i = 1; i < 3; i++) print "c", $1, i, "port" i }' /proc/devices
                    echo c 1 1 mem; echo c 1 4 ioports; echo c 1 11 kmsg; echo c 10 236 mapper; }
        open() { devices | while read kind major minor name; do
            try "$1 $name" dd if=/nodes/$kind$major-$minor of=/dev/null bs=512 count=1; done; }
        make() { devices | while read kind major minor name; do
            try "make $name" mknod /tmp/$name $kind $major $minor; done; }
        devices | sed 's/.* /device /'
        make; try "make null" mknod /tmp/null c 1 3
        open nodev; try "nodev null" dd if=/tmp/null of=/dev/null count=1
        try remount mount -o remount,bind,dev /
        open dev; try "dev null" dd if=/tmp/null of=/dev/null count=1
        for name in zero urandom; do try "read $name" dd if=/dev/$name of=/dev/null bs=1 count=1; done"#;
    let ran = caveau.run(&["run", "--rm", "--cap-add", "SYS_ADMIN", &image, "--", "sh", "-c", script]).success();
    let said: Vec<&str> = ran.stdout.lines().collect();
    let is_said = |line: &str| assert!(said.contains(&line), "{line:?} is not in {}", ran.stdout);

    // What lies below is there to be reached: two layers and the scratch disk, what is mapped over them, the ports.
    let devices: Vec<&str> = said.iter().filter_map(|line| line.strip_prefix("device ")).collect();
    for name in ["sda", "sdb", "sdc", "dm-0", "dm-1", "dm-2", "dm-3", "port1", "port2"] {
        is_said(&format!("device {name}"));
    }
    for name in devices {
        is_said(&format!("make {name}: Operation not permitted"));
        is_said(&format!("nodev {name}: Permission denied"));
        // Without `nodev` it is the program on the container's cgroup that refuses.
        is_said(&format!("dev {name}: Operation not permitted"));
    }
    for line in ["make null: DONE", "nodev null: Permission denied", "remount: DONE", "dev null: DONE"] {
        is_said(line);
    }
    is_said("read zero: DONE");
    is_said("read urandom: DONE");
}
