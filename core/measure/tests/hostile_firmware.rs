//! Firmware images made to hurt: any of them gets a digest or an error.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::allow_attributes,
    reason = "tests stop at the first surprise"
)]

use caveau_measure::{
    Firmware, GuestFeatures, IdAuth, IdBlock, KernelHashes, LaunchSpec, Ovmf, OvmfError, Vmm, launch_digest,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn guid(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let mut bytes = hex::decode(digits).unwrap();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

fn entry(data: &[u8], name: &str) -> Vec<u8> {
    [data, &u16::try_from(data.len() + 18).unwrap().to_le_bytes(), &guid(name)].concat()
}

/// An image of two pages with the tables of a real one, and these metadata sections.
fn image(sections: &[(u32, u32, u32)]) -> Vec<u8> {
    image_with_count(sections, u32::try_from(sections.len()).unwrap())
}

fn image_with_count(sections: &[(u32, u32, u32)], count: u32) -> Vec<u8> {
    let mut metadata = b"ASEV".to_vec();
    for word in [16 + 12 * u32::try_from(sections.len()).unwrap(), 1, count] {
        metadata.extend(word.to_le_bytes());
    }
    for (gpa, size, kind) in sections {
        for word in [gpa, size, kind] {
            metadata.extend(word.to_le_bytes());
        }
    }
    let entries = [
        entry(&0x10c00u32.to_le_bytes(), "7255371f-3a3b-4b04-927b-1da6efa8d454"),
        entry(&0x80b004u32.to_le_bytes(), "00f771de-1a7e-4fcb-890e-68c77e2fb44e"),
        entry(&4096u32.to_le_bytes(), "dc886566-984a-4798-a75e-5585a7bf67cc"),
    ]
    .concat();
    let footer = entry(&entries, "96b582de-1fb2-45f7-baea-a366c55a082d");
    let mut image = vec![0x90; 8192];
    image[4096..4096 + metadata.len()].copy_from_slice(&metadata);
    let end = image.len() - 32;
    image[end - footer.len()..end].copy_from_slice(&footer);
    image
}

const SECTIONS: [(u32, u32, u32); 4] =
    [(0x80_0000, 0x9000, 1), (0x80_d000, 0x1000, 2), (0x80_e000, 0x1000, 3), (0x1_0000, 0x1000, 0x10)];

fn measure(image: &[u8]) -> Result<String, String> {
    let spec = LaunchSpec {
        firmware: Firmware::Ovmf(image),
        kernel: Some(KernelHashes::from_bytes(b"kernel", None, "")),
        vcpus: 2,
        vcpu_type: "EPYC-v4".parse().unwrap(),
        guest_features: GuestFeatures::SNP,
        vmm: Vmm::Qemu,
    };
    launch_digest(&spec).map(|digest| digest.to_string()).map_err(|error| error.to_string())
}

#[test]
fn the_well_formed_image_is_measured() {
    measure(&image(&SECTIONS)).unwrap();
}

#[test]
fn malformed_metadata_is_named() {
    for (sections, expected) in [
        (vec![(0x80_0001, 0x1000, 1)], "not made of pages"),
        (vec![(0x80_0000, 0x1001, 1)], "not made of pages"),
        (vec![(0x80_0000, 0x2000, 2)], "not made of pages"),
        (vec![(0xffff_f000, 0x2000, 1)], "above 4 GiB"),
        (vec![(0, 0x1000_0000, 1), (0, 0x1000, 1)], "cover"),
        (vec![(0x80_0000, 0x1000, 9)], "unknown type 0x9"),
    ] {
        let error = measure(&image(&sections)).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert!(measure(&image_with_count(&SECTIONS, 5)).unwrap_err().contains("5 sections"));
    assert!(measure(&image_with_count(&SECTIONS, u32::MAX)).unwrap_err().contains("do not fit"));
    let elsewhere: Vec<_> = SECTIONS[..3].iter().copied().chain([(0x2_0000, 0x1000, 0x10)]).collect();
    assert!(measure(&image(&elsewhere)).unwrap_err().contains("does not fit the page"));
}

#[test]
fn a_footer_entry_too_short_or_too_long_is_refused() {
    let good = image(&SECTIONS);
    let length_of_last_entry = good.len() - 32 - 18 - 18;
    for length in [0u16, 17, 19, 200, u16::MAX] {
        let mut changed = good.clone();
        changed[length_of_last_entry..length_of_last_entry + 2].copy_from_slice(&length.to_le_bytes());
        assert!(matches!(Ovmf::parse(&changed), Err(OvmfError::Malformed { .. })), "length {length}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_an_image_or_an_error(bytes in vec(any::<u8>(), 0..6000)) {
        let _ = Ovmf::parse(&bytes);
        let _ = IdAuth::parse(&bytes);
        let _ = IdBlock::parse(&bytes[..bytes.len().min(96)]);
    }

    #[test]
    fn a_changed_image_has_another_digest_or_an_error(at in 0usize..8192, flip in 1u8..) {
        let good = image(&SECTIONS);
        let mut changed = good.clone();
        changed[at] ^= flip;
        prop_assert_ne!(measure(&changed), measure(&good));
    }

    #[test]
    fn changed_tables_never_panic(changes in vec((0usize..140, any::<u8>()), 1..12)) {
        let mut changed = image(&SECTIONS);
        for (at, value) in changes {
            changed[8192 - 172 + at] = value;
            changed[4096 + at] = value;
        }
        let _ = measure(&changed);
    }
}
