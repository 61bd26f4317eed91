//! The host offers other layers than the policy's, or changes them.

use std::os::unix::fs::FileExt as _;

use caveau_launch::LaunchPlan;
use caveau_protocol::EventKind;
use caveau_tests::hostile::{Hostile, ended, group};

/// Block of the layer file at which busybox begins.
fn busybox_block(file: &std::path::Path) -> usize {
    let output = std::process::Command::new("debugfs")
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(["-R", "bmap /bin/busybox 0"])
        .arg(file)
        .output()
        .expect("debugfs runs");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("busybox has a first block")
}

#[test]
fn a_flipped_bit_in_the_data() {
    let Some(host) = Hostile::new() else { return };
    let file = &host.plan.layers[0].path;
    let flipped = host.flipped(file, busybox_block(file) * 4096 + 64);
    // The program's first block is read when it is to be executed: it cannot be.
    let outcome = host.start(|plan| plan.layers[0].path = flipped);
    let text = match outcome {
        Err(error) => error.to_string(),
        Ok(group) => format!("{} {:?}", ended(&group), group.status().expect("a status").1.events),
    };
    assert!(
        text.contains("nput/output error") || text.contains("I/O error") || text.contains("LayerCorrupted"),
        "{text}"
    );
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
fn data_bytes(file: &std::path::Path) -> usize {
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

/// The plan of an image with several layers.
fn python(host: &Hostile) -> LaunchPlan {
    let name = "python";
    let python = caveau_tests::image("python3");
    host.caveau.run(&["run", "-d", "--name", name, &python, "--", "-c", "import time; time.sleep(100)"]).success();
    let several = group(&host.caveau, name).plan().expect("a plan");
    host.caveau.run(&["rm", "--force", name]).success();
    assert!(several.layers.len() > 1, "the image has several layers");
    several
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
    let copy = host.forged("changing.img", &std::fs::read(&host.plan.layers[0].path).expect("the layer"));
    let path = copy.clone();
    let group = host.start(|plan| plan.layers[0].path = path).expect("the layer is still the policy's");
    // Everything but the superblocks and descriptors becomes noise under the running guest.
    let file = std::fs::File::options().write(true).open(&copy).expect("the layer");
    let noise: Vec<u8> = (0..4096u32).map(|i| (i * 31 % 251) as u8).collect();
    for block in 9..data_bytes(&copy) / 4096 {
        file.write_all_at(&noise, block as u64 * 4096).expect("the host writes");
    }
    // What the guest has not read yet cannot be read any more, and the guest says so.
    let name = group.folder().name().to_string();
    let read = host.caveau.run(&["exec", &name, "cat", "/bin/busybox"]);
    assert_ne!(read.code, 0, "{}", read.stderr);
    caveau_tests::eventually(|| {
        let (status, record) = group.status()?;
        let noticed = record.events.iter().any(|event| matches!(event.event, EventKind::LayerCorrupted { .. }));
        anyhow::ensure!(noticed, "{status} {:?}", record.events);
        Ok(())
    })
    .expect("the guest reports the change");
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
