//! The host offers other layers than the policy's, or changes them.

use std::{io::Read as _, os::unix::fs::FileExt as _, path::Path};

use anyhow::Context as _;
use caveau_launch::LaunchPlan;
use caveau_protocol::{EventKind, LayerId};
use caveau_tests::{
    hostile::{COMMAND, Hostile, group},
    image,
    layout::Layout,
};

/// Block of the layer file at which `path` begins.
fn first_block(file: &Path, path: &str) -> usize {
    let output = std::process::Command::new("debugfs")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(["-R", &format!("bmap {path} 0")])
        .arg(file)
        .output()
        .expect("debugfs runs");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("the file has a first block")
}

#[test]
fn a_flipped_bit_in_the_data() {
    let Some(host) = Hostile::new() else { return };
    let file = &host.plan.layers[0].path;
    let flipped = host.flipped(file, first_block(file, "/bin/busybox") * 4096 + 64);
    // The program's first block is read when it is to be executed: it cannot be.
    host.fails(&["start container main: program \"sh\" cannot be executed: Input/output error"], |plan| {
        plan.layers[0].path = flipped;
    });
}

#[test]
fn a_flipped_bit_in_the_tree() {
    let Some(host) = Hostile::new() else { return };
    let file = &host.plan.layers[0].path;
    // The tree's top block is the first one of the tree, behind the data and the superblock's block.
    let data = data_bytes(file);
    let flipped = host.flipped(file, data + 4096 + 7);
    host.fails(&["mount the layer of disk 0", "Input/output error"], |plan| plan.layers[0].path = flipped);
}

/// Length of the ext4 image at the beginning of a layer file: its block count, in its superblock (offset 0x404).
fn data_bytes(file: &Path) -> usize {
    let bytes = std::fs::read(file).expect("the layer");
    let blocks = u32::from_le_bytes(bytes[0x404..0x408].try_into().expect("four bytes"));
    blocks as usize * 4096
}

#[test]
fn a_layer_under_another_root() {
    let Some(host) = Hostile::new() else { return };
    let root = "ab".repeat(32);
    host.is_denied("mount_device", "root_hash", &[&root], |plan| plan.layers[0].root = root.clone());
}

#[test]
fn another_layer_under_the_policys_root() {
    let Some(host) = Hostile::new() else { return };
    let other = host.forged("zeros", &vec![0; 1 << 20]);
    host.fails(&["mount the layer of disk 0: disk 0 holds no layer"], |plan| plan.layers[0].path = other);
}

#[test]
fn an_extra_layer() {
    let Some(host) = Hostile::new() else { return };
    host.is_denied("mount_overlay", "layers", &[], |plan| {
        let again = plan.layers[0].clone();
        plan.layers.push(again);
        plan.containers[0].layers.push(1);
    });
}

/// What an honest host would launch of another image with several layers.
fn several(host: &Hostile, options: &[&str]) -> LaunchPlan {
    let name = "several";
    host.caveau.run(&[&["run", "-d", "--name", name][..], options].concat()).success();
    let several = group(&host.caveau, name).plan().expect("a plan");
    host.caveau.run(&["rm", "--force", name]).success();
    assert!(several.layers.len() > 1, "the image has several layers");
    several
}

fn python(host: &Hostile) -> LaunchPlan {
    several(host, &[&image("python3"), "--", "-c", "import time; time.sleep(100)"])
}

#[test]
fn layers_in_another_order_and_without_the_last_one() {
    let Some(host) = Hostile::new() else { return };
    let several = python(&host);
    let lie = |change: &dyn Fn(&mut Vec<u16>)| {
        host.is_denied("mount_overlay", "layers", &[], |plan| {
            let name = plan.name.clone();
            *plan = several.clone();
            plan.name = name;
            change(&mut plan.containers[0].layers);
        });
        host.caveau.run(&["rm", "--force", &format!("lie-{}", std::process::id())]).success();
    };
    lie(&|layers| layers.reverse());
    lie(&|layers| layers.truncate(layers.len() - 1));
}

#[test]
fn a_layer_that_changes_after_it_was_mounted() {
    let Some(host) = Hostile::new() else { return };
    // A layer of its own, so that the programs that read it stay whole.
    let mut layout = Layout::on_busybox();
    layout.add("data", 1 << 16, std::io::repeat(b'd').take(1 << 16));
    let image = layout.finish();
    let several = several(&host, &[&["--allow-exec", "cat /data", &image, "--"][..], &COMMAND].concat());
    let copy = host.forged("changing.img", &std::fs::read(&several.layers[1].path).expect("the layer"));
    let started = host.start(|plan| {
        let name = plan.name.clone();
        *plan = several;
        plan.name = name;
        plan.layers[1].path.clone_from(&copy);
    });
    let group = started.expect("the layer is still the policy's");

    // The file's blocks become noise under the running guest, which has not read them yet.
    let file = std::fs::File::options().write(true).open(&copy).expect("the layer");
    let noise: Vec<u8> = (0..1u32 << 16).map(|i| (i * 31 % 251) as u8).collect();
    file.write_all_at(&noise, first_block(&copy, "/data") as u64 * 4096).expect("the host writes");
    let name = group.folder().name().to_string();
    let read = host.caveau.run(&["exec", &name, "cat", "/data"]).expect_code(1);
    assert_eq!(read.stdout, "", "nothing of it is given out");
    assert_eq!(read.stderr, "cat: read error: Input/output error\n");
    // The guest says so, and which layer it was.
    let changed = caveau_tests::eventually(|| {
        let (status, record) = group.status()?;
        let changed = record.events.iter().find_map(|event| match event.event {
            EventKind::LayerCorrupted { layer } => Some(layer),
            EventKind::ContainerExited { .. } => None,
        });
        changed.with_context(|| format!("{status} {:?}", record.events))
    });
    assert_eq!(changed.expect("the guest reports the change"), LayerId(2));
}

#[test]
fn the_disks_of_two_layers_are_swapped() {
    let Some(host) = Hostile::new() else { return };
    let several = python(&host);
    host.fails(&["mount the layer of disk 0", "Input/output error"], |plan| {
        let name = plan.name.clone();
        *plan = several;
        plan.name = name;
        // Each under the other's root hash: both are the policy's, and neither disk has the bytes of its root.
        let (first, second) = (plan.layers[0].path.clone(), plan.layers[1].path.clone());
        (plan.layers[0].path, plan.layers[1].path) = (second, first);
    });
}
