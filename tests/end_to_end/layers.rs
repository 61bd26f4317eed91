//! Images at the edges: many layers, and a large one.

use std::io::Read as _;

use caveau_tests::{Caveau, layout::Layout};

#[test]
fn twenty_layers_are_one_file_system() {
    let Some(caveau) = Caveau::new() else { return };
    let mut layout = Layout::on_busybox();
    for number in 1..20u32 {
        let text = format!("layer {number}\n");
        layout.add(&format!("layers/{number}"), text.len() as u64, text.as_bytes());
    }
    layout.add("layers/7", 6, &b"above\n"[..]);
    let image = layout.finish();
    let outcome =
        caveau.run(&["run", "--rm", &image, "--", "sh", "-c", "cat /layers/19 /layers/7; ls /layers | wc -l"]);
    assert_eq!(outcome.success().stdout, "layer 19\nabove\n19\n");
}

#[test]
fn a_layer_of_one_gibibyte_is_read_at_its_end() {
    let Some(caveau) = Caveau::with_an_empty_cache() else { return };
    let mut layout = Layout::on_busybox();
    let end = b"the very end\n";
    let bytes = 1u64 << 30;
    let contents = std::io::repeat(0xa5).take(bytes - end.len() as u64).chain(&end[..]);
    layout.add("large", bytes, contents);
    let image = layout.finish();
    let script =
        "stat -c %s /large; tail -c 13 /large; dd if=/large bs=1M skip=500 count=1 2>/dev/null | od -An -tx1 | head -1";
    let ran = caveau.run(&["run", "--rm", &image, "--", "sh", "-c", script]).success();
    assert!(ran.stdout.starts_with("1073741824\nthe very end\n a5 a5"), "{}", ran.stdout);
}
