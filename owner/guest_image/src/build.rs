//! From inputs to a guest folder.

use std::path::{Path, PathBuf};

use caveau_measure::{Firmware, VcpuType};

use crate::elf::Elf;
use crate::error::IoContext as _;
use crate::folder::{part, write};
use crate::kernel::Kernel;
use crate::module::module_error;
use crate::modules::{Module, select};
use crate::predict::{Start, machines};
use crate::{
    Agent, FORMAT, GuestFolder, GuestImageError, KERNEL_ELF, KERNEL_IMAGE, KernelInfo, Manifest, ModuleInfo, OVMF,
    Result, Sha256, Tee, TeeInfo, initrd,
};

/// Launch digests are listed for 1 up to this many vCPUs at most.
pub const MAX_EXPECTED_VCPUS: u32 = 64;

const INITRD: &str = "initrd.img";
const BIOS: &str = "bios-256k.bin";
const PVH_ROM: &str = "pvh.bin";

/// What a guest is made of.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Folder with an extracted kernel package: `boot/vmlinuz-*`, `lib/modules/*` and, where [`crate::PACKAGE_FILE`] is there,
    /// the package's name.
    pub kernel: PathBuf,
    /// The agent: a static x86-64 program.
    pub agent: PathBuf,
    /// The agent's version, for guest.json.
    pub agent_version: String,
    /// The guest's security version.
    pub svn: u32,
    /// SeaBIOS (`bios-256k.bin`).
    pub bios: PathBuf,
    /// QEMU's option ROM for PVH boot (`pvh.bin`).
    pub pvh_rom: PathBuf,
    /// The AmdSev build of OVMF; without it there are no launch digests for `snp`.
    pub ovmf: Option<PathBuf>,
    /// Launch digests are listed for these vCPU types …
    pub vcpu_types: Vec<VcpuType>,
    /// … and 1 to this many vCPUs, at most [`MAX_EXPECTED_VCPUS`].
    pub vcpus: u32,
}

/// Builds a guest from `inputs` into the folder `output`, which is replaced where it holds a guest already.
///
/// # Errors
/// [`GuestImageError`]; nothing is left behind then, and an older guest in `output` stays as it was.
pub fn build(inputs: &Inputs, output: &Path) -> Result<GuestFolder> {
    let kernel = Kernel::open(&inputs.kernel)?;
    let modules = select(&kernel.modules, &kernel.release)?;
    let agent = read_agent(&inputs.agent)?;
    let initrd = initrd::archive(&agent, &modules).map_err(|error| module_error(INITRD, error.to_string()))?;
    let read = |path: &PathBuf| std::fs::read(path).context("read", path);
    let (bios, pvh_rom) = (read(&inputs.bios)?, read(&inputs.pvh_rom)?);
    let ovmf = inputs.ovmf.as_ref().map(read).transpose()?;

    let mut files: Vec<(&str, &[u8])> = vec![
        (KERNEL_IMAGE, &kernel.bz_image),
        (KERNEL_ELF, &kernel.elf),
        (INITRD, &initrd),
        (BIOS, &bios),
        (PVH_ROM, &pvh_rom),
    ];
    files.extend(Tee::ALL.map(|tee| (tee.cmdline_file(), tee.cmdline().as_bytes())));
    files.extend(ovmf.as_deref().map(|ovmf| (OVMF, ovmf)));

    let rom = [(PVH_ROM, pvh_rom.as_slice())];
    let direct = Firmware::Direct { bios: &bios, option_roms: &rom };
    let of_hardware = ovmf.as_deref().map(|ovmf| (Firmware::Ovmf(ovmf), &[OVMF][..]));
    let tees = [
        (Tee::EmulatedSnp, &kernel.elf, Some((direct, &[BIOS, PVH_ROM][..]))),
        (Tee::Snp, &kernel.bz_image, of_hardware),
    ];
    let tees = tees.map(|(tee, kernel, firmware)| Ok((tee, describe(inputs, tee, (kernel, &initrd), firmware)?)));

    let manifest = Manifest {
        format: FORMAT,
        svn: inputs.svn,
        agent: Agent {
            version: inputs.agent_version.clone(),
            sha256: Sha256::of(&agent),
            toolchain: toolchain(&agent),
        },
        kernel: KernelInfo { release: kernel.release, banner: kernel.banner, package: kernel.package },
        modules: modules.iter().map(module_info).collect(),
        parts: files.iter().map(|(name, contents)| ((*name).to_owned(), part(contents))).collect(),
        tees: tees.into_iter().collect::<Result<_>>()?,
        group: None,
    };
    write(output, &files, manifest)
}

/// The agent's bytes, if they are a program that the kernel can start in an initrd without libraries.
fn read_agent(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).context("read", path)?;
    let reason = match Elf::parse(&bytes) {
        None => Some("it is not an x86-64 ELF file"),
        Some(elf) if elf.has_interpreter() => Some("it needs a dynamic loader, which the guest has not"),
        Some(_) => None,
    };
    match reason {
        Some(reason) => Err(GuestImageError::Agent { path: path.to_path_buf(), reason }),
        None => Ok(bytes),
    }
}

/// What the program says of the compilers and the linker that made it: the texts of its section `.comment`, where it has
/// one, each ended by a zero byte (System V ABI, chapter 4, "Special Sections").
fn toolchain(program: &[u8]) -> Vec<String> {
    let comment = Elf::parse(program).and_then(|elf| elf.section(".comment")).unwrap_or_default();
    let texts = comment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let printable = texts.filter(|text| (1..=200).contains(&text.len()) && !text.contains(char::is_control));
    printable.map(std::borrow::Cow::into_owned).take(16).collect()
}

fn module_info(module: &Module) -> ModuleInfo {
    ModuleInfo { name: module.name.clone(), sha256: Sha256::of(&module.bytes), tee: module.tee }
}

/// How one TEE starts the guest: from kernel and initrd, under a firmware, of which the files' names are given with it.
fn describe(
    inputs: &Inputs,
    tee: Tee,
    (kernel, initrd): (&[u8], &[u8]),
    firmware: Option<(Firmware<'_>, &[&str])>,
) -> Result<TeeInfo> {
    let machines = machines(&inputs.vcpu_types, inputs.vcpus.min(MAX_EXPECTED_VCPUS));
    let (launch_digests, names) = match firmware {
        Some((firmware, names)) => {
            (Start { tee, kernel, initrd, cmdline: tee.cmdline(), firmware }.launch_digests(&machines)?, names)
        }
        None => (Vec::new(), &[][..]),
    };
    Ok(TeeInfo {
        kernel: tee.kernel_file().to_owned(),
        initrd: INITRD.to_owned(),
        cmdline: tee.cmdline_file().to_owned(),
        firmware: names.iter().map(|name| (*name).to_owned()).collect(),
        launch_digests,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use caveau_measure::{GuestFeatures, KernelHashes, LaunchSpec, Vmm, launch_digest};

    use super::*;
    use crate::{ExpectedDigest, GroupValues, MANIFEST_FILE, Prediction, read_manifest};

    /// An ELF file with one program header: a note with a PVH entry, or a dynamic loader.
    fn elf(program_type: u32) -> Vec<u8> {
        let mut bytes = vec![0_u8; 64 + 56];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[18] = 62;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64..68].copy_from_slice(&program_type.to_le_bytes());
        bytes[72] = 120;
        bytes[96] = 20;
        bytes.extend([4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0]);
        bytes.extend(b"Xen\0\0\0\0\x01");
        bytes
    }

    /// A kernel package with one module beside built-in ones, an agent, firmware.
    fn inputs(folder: &Path) -> Inputs {
        let payload = elf(4);
        let mut image = vec![0_u8; 1024];
        image[0x1f1] = 1;
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x30b].copy_from_slice(b"1.2 test #1");
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend(payload);
        let modules = folder.join("kernel/lib/modules/1.2");
        fs::create_dir_all(folder.join("kernel/boot")).unwrap();
        fs::create_dir_all(modules.join("kernel")).unwrap();
        fs::write(folder.join("kernel/boot/vmlinuz-1.2"), image).unwrap();
        let builtin = [
            "virtio_pci",
            "virtio_console",
            "sd_mod",
            "virtio_scsi",
            "virtio_net",
            "virtio-rng",
            "ext4",
            "overlay",
            "xts",
            "authenc",
            "dm-crypt",
            "dm-integrity",
            "sev-guest",
        ];
        fs::write(modules.join("modules.builtin"), builtin.map(|name| format!("kernel/{name}.ko\n")).concat()).unwrap();
        let verity = crate::module::tests::module_file(&["name=dm_verity", "depends=", "vermagic=1.2 SMP"]);
        fs::write(modules.join("kernel/dm-verity.ko"), verity).unwrap();
        fs::write(folder.join("agent"), elf(1)).unwrap();
        fs::write(folder.join("bios"), [0xf4; 8192]).unwrap();
        fs::write(folder.join("rom"), [0x55; 512]).unwrap();
        Inputs {
            kernel: folder.join("kernel"),
            agent: folder.join("agent"),
            agent_version: "0.1.0".to_owned(),
            svn: 3,
            bios: folder.join("bios"),
            pvh_rom: folder.join("rom"),
            ovmf: None,
            vcpu_types: vec!["EPYC-v4".parse().unwrap()],
            vcpus: 2,
        }
    }

    fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = inputs(folder.path());
        let (one, two) = (folder.path().join("out/one"), folder.path().join("two"));
        build(&inputs, &one).unwrap().check().unwrap();
        build(&inputs, &two).unwrap();
        assert_eq!(contents(&one), contents(&two));
        let names: Vec<String> = contents(&one).into_keys().collect();
        let expected = [
            "bios-256k.bin",
            "cmdline.emulated-snp",
            "cmdline.snp",
            "guest.json",
            "initrd.img",
            "pvh.bin",
            "vmlinux",
            "vmlinuz",
        ];
        assert_eq!(names, expected);
        assert_eq!(fs::read_dir(folder.path().join("out")).unwrap().count(), 1, "nothing temporary is left");
    }

    #[test]
    fn describes_what_it_built() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("guest");
        build(&inputs(folder.path()), &out).unwrap();
        let guest = GuestFolder::open(&out).unwrap();
        let manifest = guest.manifest();
        assert_eq!((manifest.svn, manifest.kernel.release.as_str()), (3, "1.2"));
        assert_eq!(manifest.modules.len(), 1);
        let digests: Vec<_> = manifest.launch_digests(Tee::EmulatedSnp, 2).collect();
        let [expected] = digests.as_slice() else { panic!("one vCPU type: {digests:?}") };
        // Predicted from the folder alone, as a verifier or launcher would.
        let files = guest.tee(Tee::EmulatedSnp).unwrap();
        let read = |path: &PathBuf| fs::read(path).unwrap();
        let cmdline = fs::read_to_string(&files.cmdline).unwrap();
        let [bios, rom] = files.firmware.as_slice() else { panic!("{files:?}") };
        let digest = launch_digest(&LaunchSpec {
            firmware: Firmware::Direct { bios: &read(bios), option_roms: &[("rom", &read(rom))] },
            kernel: Some(KernelHashes::from_bytes(&read(&files.kernel), Some(&read(&files.initrd)), &cmdline)),
            vcpus: 2,
            vcpu_type: "EPYC-v4".parse().unwrap(),
            guest_features: GuestFeatures::SNP,
            vmm: Vmm::Qemu,
        });
        assert_eq!(digest.unwrap(), expected.digest);
        assert_eq!(manifest.launch_digests(Tee::EmulatedSnp, 3).count(), 0);
        assert_eq!(manifest.launch_digests(Tee::Snp, 1).count(), 0, "no OVMF was given");
    }

    /// Firmware of the recorded launches, where they are there.
    fn recorded_firmware(name: &str) -> Option<PathBuf> {
        let root = std::env::var_os("CAVEAU_FIXTURES")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"), PathBuf::from);
        let path = root.join("attestation/measurement/synthetic").join(name);
        if !path.is_file() {
            println!("skipped: no fixture {}", path.display());
            return None;
        }
        Some(path)
    }

    #[test]
    fn with_ovmf_the_digests_of_snp_are_told() {
        let Some(ovmf) = recorded_firmware("fw-a.bin") else { return };
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("guest");
        build(&Inputs { ovmf: Some(ovmf.clone()), ..inputs(folder.path()) }, &out).unwrap();
        let guest = GuestFolder::open(&out).unwrap();
        let files = guest.tee(Tee::Snp).unwrap();
        let read = |path: &PathBuf| fs::read(path).unwrap();
        let firmware = files.firmware.iter().map(read).collect::<Vec<_>>();
        assert_eq!(firmware, [read(&ovmf)], "it is part of the guest");
        // The hardware measures the image as shipped, and a command line of its own.
        assert_eq!(files.kernel.file_name().unwrap(), "vmlinuz");
        let cmdline = fs::read_to_string(&files.cmdline).unwrap();
        assert!(cmdline.contains("caveau.tee=snp"), "{cmdline}");
        for vcpus in 1..=2 {
            let expected = launch_digest(&LaunchSpec {
                firmware: Firmware::Ovmf(&firmware[0]),
                kernel: Some(KernelHashes::from_bytes(&read(&files.kernel), Some(&read(&files.initrd)), &cmdline)),
                vcpus,
                vcpu_type: "EPYC-v4".parse().unwrap(),
                guest_features: GuestFeatures::SNP,
                vmm: Vmm::Qemu,
            });
            let told: Vec<_> = guest.manifest().launch_digests(Tee::Snp, vcpus).collect();
            let [told] = told.as_slice() else { panic!("one vCPU type: {told:?}") };
            assert_eq!(told.digest, expected.unwrap());
        }
        assert_eq!(guest.manifest().launch_digests(Tee::Snp, 3).count(), 0);
    }

    #[test]
    fn reference_values_of_a_group_are_predicted_from_the_parts() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("guest");
        build(&inputs(folder.path()), &out).unwrap();
        let guest = GuestFolder::open(&out).unwrap();
        let group = Some(GroupValues { policy_sha256: Sha256::of(b"package policy") });
        let same = guest.predict(&Prediction { group, ..Prediction::default() }).unwrap();
        assert_eq!(same, Manifest { group, ..guest.manifest().clone() });
        // Other machines than guest.json lists, and types in the order asked for.
        let vcpu_types = ["EPYC-Milan", "EPYC-v4"].map(|name| name.parse().unwrap()).to_vec();
        let more = guest.predict(&Prediction { vcpu_types, vcpus: Some(3), ..Prediction::default() }).unwrap();
        let machine = |expected: &ExpectedDigest| (expected.vcpu_type.clone(), expected.vcpus);
        let listed = &more.tees[&Tee::EmulatedSnp].launch_digests;
        let names = ["EPYC-Milan", "EPYC-v4"].into_iter();
        let wanted: Vec<_> = names.flat_map(|name| (1..=3).map(move |count| (name.to_owned(), count))).collect();
        assert_eq!(listed.iter().map(machine).collect::<Vec<_>>(), wanted);
        for vcpus in 1..=2 {
            let known = guest.manifest().launch_digests(Tee::EmulatedSnp, vcpus).next().unwrap();
            assert!(more.launch_digests(Tee::EmulatedSnp, vcpus).any(|expected| expected == known));
        }
        // It is read as a guest.json is, and no guest can be started from it.
        let file = folder.path().join("group.json");
        fs::write(&file, same.to_json()).unwrap();
        assert_eq!(read_manifest(&file).unwrap(), same);
        fs::write(out.join(MANIFEST_FILE), same.to_json()).unwrap();
        assert!(matches!(GuestFolder::open(&out).unwrap_err(), GuestImageError::OfGroup(_)));
    }

    #[test]
    fn firmware_that_the_guest_lacks_gives_the_digests_of_snp() {
        let Some(ovmf) = recorded_firmware("fw-a.bin") else { return };
        let folder = tempfile::tempdir().unwrap();
        let (with, without) = (folder.path().join("with"), folder.path().join("without"));
        build(&Inputs { ovmf: Some(ovmf.clone()), ..inputs(folder.path()) }, &with).unwrap();
        build(&inputs(folder.path()), &without).unwrap();
        let [with, without] = [with, without].map(|path| GuestFolder::open(&path).unwrap());
        let nothing = without.predict(&Prediction::default()).unwrap();
        assert_eq!(nothing.launch_digests(Tee::Snp, 1).count(), 0);
        let given = without.predict(&Prediction { ovmf: Some(ovmf), ..Prediction::default() }).unwrap();
        assert_eq!(&given, with.manifest());
        assert_eq!(given.launch_digests(Tee::Snp, 1).count(), 1);
    }

    #[test]
    fn a_changed_part_or_digest_predicts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("guest");
        build(&inputs(folder.path()), &out).unwrap();
        let predict = || GuestFolder::open(&out).unwrap().predict(&Prediction::default());
        let mut lying = predict().unwrap();
        let other = &mut lying.tees.get_mut(&Tee::EmulatedSnp).unwrap().launch_digests;
        other[0].digest = other[1].digest;
        fs::write(out.join(MANIFEST_FILE), lying.to_json()).unwrap();
        let error = predict().unwrap_err();
        assert!(
            matches!(&error, GuestImageError::Digest { tee: Tee::EmulatedSnp, machine, .. } if machine == "1 EPYC-v4"),
            "{error}"
        );
        build(&inputs(folder.path()), &out).unwrap();
        fs::write(out.join(BIOS), [0; 8192]).unwrap();
        assert!(matches!(predict().unwrap_err(), GuestImageError::Part { .. }));
    }

    #[test]
    fn ovmf_that_checks_no_kernel_is_refused() {
        let Some(ovmf) = recorded_firmware("fw-b-nohashes.bin") else { return };
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("guest");
        let error = build(&Inputs { ovmf: Some(ovmf), ..inputs(folder.path()) }, &out).unwrap_err();
        assert!(matches!(error, GuestImageError::Measure { tee: Tee::Snp, .. }), "{error}");
        assert!(!out.exists());
    }

    #[test]
    fn a_program_says_what_made_it() {
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        let made_by = toolchain(&this);
        assert!(made_by.iter().any(|text| text.starts_with("rustc version ")), "{made_by:?}");
        assert_eq!(toolchain(&elf(1)), Vec::<String>::new());
        assert_eq!(toolchain(b"no program"), Vec::<String>::new());
    }

    #[test]
    fn replaces_a_guest_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut inputs = inputs(folder.path());
        let out = folder.path().join("guest");
        build(&inputs, &out).unwrap();
        inputs.svn = 4;
        build(&inputs, &out).unwrap();
        assert_eq!(GuestFolder::open(&out).unwrap().manifest().svn, 4);
        let other = folder.path().join("kernel");
        let error = build(&inputs, &other).unwrap_err();
        assert!(matches!(error, GuestImageError::Destination(_)), "{error}");
        assert!(other.join("boot").is_dir());
    }

    #[test]
    fn a_failed_build_leaves_the_old_guest() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = inputs(folder.path());
        let out = folder.path().join("guest");
        build(&inputs, &out).unwrap();
        let before = contents(&out);
        fs::write(&inputs.agent, elf(3)).unwrap();
        let error = build(&inputs, &out).unwrap_err();
        assert!(error.to_string().contains("it needs a dynamic loader"), "{error}");
        assert_eq!(contents(&out), before);
    }

    #[test]
    fn a_damaged_part_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("guest");
        let guest = build(&inputs(folder.path()), &out).unwrap();
        fs::write(out.join("initrd.img"), b"another").unwrap();
        let error = guest.check().unwrap_err();
        assert!(matches!(&error, GuestImageError::Part { path, .. } if path.ends_with("initrd.img")), "{error}");
    }

    #[test]
    fn hostile_descriptions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("guest");
        let guest = build(&inputs(folder.path()), &out).unwrap();
        let path = out.join(MANIFEST_FILE);
        let refused = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = guest.manifest().clone();
            change(&mut manifest);
            fs::write(&path, manifest.to_json()).unwrap();
            read_manifest(&path).unwrap_err()
        };
        let newer = refused(&|manifest| manifest.format = 2);
        assert!(matches!(newer, GuestImageError::ManifestFormat { found: 2, .. }), "{newer}");
        let outside = refused(&|manifest| {
            manifest.parts.insert("../etc".to_owned(), part(b""));
        });
        assert!(format!("{outside:?}").contains("is not a plain file name"), "{outside:?}");
        let unlisted = refused(&|manifest| {
            manifest.parts.remove("vmlinux");
        });
        assert!(format!("{unlisted:?}").contains("`vmlinux` is not among the parts"), "{unlisted:?}");
    }
}
