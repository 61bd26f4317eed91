//! Firmware images and ID blocks, which a launch is measured by.

use caveau_measure::{
    Firmware, GuestFeatures, IdAuth, IdBlock, KernelHashes, LaunchSpec, Ovmf, VcpuType, Vmm, launch_digest,
};

use crate::Target;

/// Firmware whose tables are accepted has a launch digest, or an error.
pub(crate) const OVMF: Target = Target {
    name: "ovmf",
    run: ovmf,
    seeds: firmware,
    fixtures: &[
        "attestation/measurement/synthetic/fw-c-order.bin",
        "attestation/measurement/synthetic/fw-b-nohashes.bin",
    ],
    rounds: 2000,
};

/// ID block, then its authentication information: what is accepted is written and read back the same.
pub(crate) const ID_BLOCK: Target = Target {
    name: "id_block",
    run: id_block,
    seeds: id_blocks,
    fixtures: &["attestation/measurement/idblock/id-block.bin"],
    rounds: 1000,
};

/// Sections may announce gigabytes, each page of which is hashed: more than this is not measured here.
const MEASURED_BYTES: u64 = 1 << 20;

fn ovmf(data: &[u8]) {
    let Ok(parsed) = Ovmf::parse(data) else { return };
    let announced = parsed.sections().iter().map(|section| u64::from(section.size)).sum::<u64>();
    if announced > MEASURED_BYTES {
        return;
    }
    let kernel = KernelHashes::from_bytes(b"kernel", None, "quiet");
    for (kernel, vmm) in [(None, Vmm::Gce), (Some(kernel), Vmm::Qemu), (Some(kernel), Vmm::Ec2)] {
        let spec = LaunchSpec {
            firmware: Firmware::Ovmf(data),
            kernel,
            vcpus: 2,
            vcpu_type: VcpuType::from_signature(0x80_0f12),
            guest_features: GuestFeatures::SNP,
            vmm,
        };
        drop(launch_digest(&spec));
    }
}

/// An image with the footer table and SEV metadata that a launch needs (reference: OVMF's `ResetVector` sources).
fn firmware() -> Vec<Vec<u8>> {
    const METADATA: usize = 512;
    let mut image = vec![0xf4; 4096];
    let sections: [[u32; 3]; 4] =
        [[0x80_0000, 0x1000, 1], [0x80_d000, 0x1000, 2], [0x80_e000, 0x1000, 3], [0x80_f000, 0x1000, 0x10]];
    let mut metadata = b"ASEV".to_vec();
    metadata.extend(u32::try_from(16 + 12 * sections.len()).expect("short").to_le_bytes());
    metadata.extend(1_u32.to_le_bytes());
    metadata.extend(4_u32.to_le_bytes());
    metadata.extend(sections.iter().flatten().flat_map(|word| word.to_le_bytes()));
    let start = image.len() - METADATA;
    image[start..start + metadata.len()].copy_from_slice(&metadata);

    let entries = [
        entry(0x7255_371f_3a3b_4b04_927b_1da6_efa8_d454, &0x80_fc00_u32.to_le_bytes()),
        entry(0x00f7_71de_1a7e_4fcb_890e_68c7_7e2f_b44e, &0x80_b004_u32.to_le_bytes()),
        entry(0xdc88_6566_984a_4798_a75e_5585_a7bf_67cc, &u32::try_from(METADATA).expect("short").to_le_bytes()),
    ]
    .concat();
    let mut table = entries.clone();
    table.extend(u16::try_from(entries.len() + 18).expect("short").to_le_bytes());
    table.extend(mixed(0x96b5_82de_1fb2_45f7_baea_a366_c55a_082d));
    let end = image.len() - 32;
    image[end - table.len()..end].copy_from_slice(&table);
    assert!(Ovmf::parse(&image).is_ok(), "the seed is firmware");
    vec![image]
}

/// A footer entry: data, its length with this trailer, GUID.
fn entry(guid: u128, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len() + 18).expect("short").to_le_bytes();
    [data, &length, &mixed(guid)].concat()
}

/// A GUID in the mixed byte order of UEFI.
fn mixed(guid: u128) -> [u8; 16] {
    let mut bytes = guid.to_be_bytes();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

fn id_block(data: &[u8]) {
    let (block, auth) = data.split_at_checked(caveau_measure::ID_BLOCK_BYTES).unwrap_or((data, &[]));
    let block = IdBlock::parse(block);
    if let Ok(block) = &block {
        assert_eq!(IdBlock::parse(&block.to_bytes()).as_ref(), Ok(block));
    }
    if let Ok(auth) = IdAuth::parse(auth) {
        assert_eq!(IdAuth::parse(&auth.to_bytes()).as_ref(), Ok(&auth));
        if let Ok(block) = block {
            drop(auth.verify(&block));
        }
    }
}

fn id_blocks() -> Vec<Vec<u8>> {
    let mut plain = vec![0; caveau_measure::ID_BLOCK_BYTES + caveau_measure::ID_AUTH_BYTES];
    plain[80] = 1;
    let auth = &mut plain[caveau_measure::ID_BLOCK_BYTES..];
    auth[0] = 1;
    auth[0x240] = 2;
    let mut genuine = crate::fixtures::read("attestation/measurement/idblock/id-block.bin").unwrap_or_default();
    genuine.extend(crate::fixtures::read("attestation/measurement/idblock/id-auth.bin").unwrap_or_default());
    vec![plain, genuine]
}
