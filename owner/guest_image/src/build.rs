//! From inputs to a guest folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use caveau_measure::VcpuType;

use crate::elf::Elf;
use crate::folder::{part, write};
use crate::parts::{INITRD, Made, Sources, launch_digests};
use crate::{Agent, FORMAT, GuestFolder, GuestImageError, Manifest, OVMF, PackageFile, Result, Sha256, Tee, TeeInfo};

/// Launch digests are listed for 1 up to this many vCPUs at most.
pub const MAX_EXPECTED_VCPUS: u32 = 64;

const BIOS: &str = "bios-256k.bin";
const PVH_ROM: &str = "pvh.bin";

/// A file that runs before the kernel.
#[derive(Clone, Debug)]
pub struct FirmwareFile {
    /// Where it is.
    pub path: PathBuf,
    /// The package that it is from, for guest.json.
    pub package: Option<PackageFile>,
}

impl FirmwareFile {
    /// The file, with the package where it is an installed one's.
    #[must_use]
    pub fn find(path: PathBuf) -> Self {
        let package = PackageFile::of(&path);
        Self { path, package }
    }
}

/// What a guest is made of.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Folder with an extracted kernel package: `boot/vmlinuz-*`, `lib/modules/*` and, where [`crate::PACKAGE_FILE`] is there,
    /// the package's name.
    pub kernel: PathBuf,
    /// The agent: a static x86-64 program.
    pub agent: PathBuf,
    /// What its build recorded of it ([`crate::AgentRecord`]).
    pub agent_record: Option<PathBuf>,
    /// The agent's version, for guest.json.
    pub agent_version: String,
    /// The guest's security version.
    pub svn: u32,
    /// SeaBIOS (`bios-256k.bin`).
    pub bios: FirmwareFile,
    /// QEMU's option ROM for PVH boot (`pvh.bin`).
    pub pvh_rom: FirmwareFile,
    /// The AmdSev build of OVMF; without it there are no launch digests for `snp`.
    pub ovmf: Option<FirmwareFile>,
    /// Launch digests are listed for these vCPU types …
    pub vcpu_types: Vec<VcpuType>,
    /// … and 1 to this many vCPUs, at most [`MAX_EXPECTED_VCPUS`].
    pub vcpus: u32,
}

impl Inputs {
    /// The firmware, by the part's name.
    fn firmware(&self) -> BTreeMap<&'static str, &FirmwareFile> {
        let ovmf = self.ovmf.as_ref().map(|file| (OVMF, file));
        [(BIOS, &self.bios), (PVH_ROM, &self.pvh_rom)].into_iter().chain(ovmf).collect()
    }

    /// The machines whose launch digests are listed.
    fn machines(&self) -> impl Iterator<Item = (VcpuType, u32)> {
        let counts = 1..=self.vcpus.min(MAX_EXPECTED_VCPUS);
        self.vcpu_types.iter().flat_map(move |&vcpu_type| counts.clone().map(move |count| (vcpu_type, count)))
    }
}

/// Builds a guest from `inputs` into the folder `output`, which is replaced where it holds a guest already.
///
/// # Errors
/// [`GuestImageError`]; nothing is left behind then, and an older guest in `output` stays as it was.
pub fn build(inputs: &Inputs, output: &Path) -> Result<GuestFolder> {
    let firmware = inputs.firmware();
    let made = Made::of(&Sources {
        kernel: Some(&inputs.kernel),
        agent: Some(&inputs.agent),
        agent_record: inputs.agent_record.as_deref(),
        firmware: firmware.iter().map(|(name, file)| (*name, file.path.as_path())).collect(),
    })?;
    let Made { files, kernel: Some((kernel, modules)), agent: Some((agent, record)) } = made else {
        // Both were asked for: what cannot be made of them is an error before.
        return Err(GuestImageError::Agent { path: inputs.agent.clone(), reason: "no guest was made of it" });
    };
    let snp: &[&str] = if inputs.ovmf.is_some() { &[OVMF] } else { &[] };
    let tees = [(Tee::EmulatedSnp, &[BIOS, PVH_ROM][..]), (Tee::Snp, snp)].map(|(tee, firmware)| {
        let mut info = TeeInfo {
            kernel: tee.kernel_file().to_owned(),
            initrd: INITRD.to_owned(),
            cmdline: tee.cmdline_file().to_owned(),
            firmware: firmware.iter().map(|name| (*name).to_owned()).collect(),
            launch_digests: Vec::new(),
        };
        info.launch_digests = launch_digests(tee, &info, &files, inputs.machines())?;
        Ok((tee, info))
    });
    let packages = firmware.into_iter().filter_map(|(name, file)| Some((name.to_owned(), file.package.clone()?)));

    let manifest = Manifest {
        format: FORMAT,
        svn: inputs.svn,
        agent: Agent {
            version: inputs.agent_version.clone(),
            sha256: Sha256::of(&agent),
            toolchain: toolchain(&agent),
            build: record.map(|record| record.build),
        },
        kernel,
        modules,
        parts: files.iter().map(|(name, contents)| (name.clone(), part(contents))).collect(),
        packages: packages.collect(),
        tees: tees.into_iter().collect::<Result<_>>()?,
        group: None,
    };
    write(output, &files, manifest)
}

/// What the program says of the compilers and the linker that made it: the texts of its section `.comment`, where it has
/// one, each ended by a zero byte (System V ABI, chapter 4, "Special Sections").
fn toolchain(program: &[u8]) -> Vec<String> {
    let comment = Elf::parse(program).and_then(|elf| elf.section(".comment")).unwrap_or_default();
    let texts = comment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let printable = texts.filter(|text| (1..=200).contains(&text.len()) && !text.contains(char::is_control));
    printable.map(std::borrow::Cow::into_owned).take(16).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use caveau_measure::{Firmware, GuestFeatures, KernelHashes, LaunchSpec, Vmm, launch_digest};

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
    pub(crate) fn inputs(folder: &Path) -> Inputs {
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
            agent_record: None,
            agent_version: "0.1.0".to_owned(),
            svn: 3,
            bios: FirmwareFile { path: folder.join("bios"), package: None },
            pvh_rom: FirmwareFile { path: folder.join("rom"), package: None },
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
        build(&Inputs { ovmf: Some(FirmwareFile::find(ovmf.clone())), ..inputs(folder.path()) }, &out).unwrap();
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
        build(&Inputs { ovmf: Some(FirmwareFile::find(ovmf.clone())), ..inputs(folder.path()) }, &with).unwrap();
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
        let error = build(&Inputs { ovmf: Some(FirmwareFile::find(ovmf)), ..inputs(folder.path()) }, &out).unwrap_err();
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
        let package = |path: &str| PackageFile { name: "seabios".into(), version: "1".into(), path: path.into() };
        let nothing = refused(&|manifest| drop(manifest.packages.insert("other".to_owned(), package("/usr/bios"))));
        assert!(format!("{nothing:?}").contains("`other` is not among the parts"), "{nothing:?}");
        let climbs = refused(&|manifest| drop(manifest.packages.insert("pvh.bin".to_owned(), package("/usr/../etc"))));
        assert!(format!("{climbs:?}").contains("no file of a package"), "{climbs:?}");
        let unlisted = refused(&|manifest| {
            manifest.parts.remove("vmlinux");
        });
        assert!(format!("{unlisted:?}").contains("`vmlinux` is not among the parts"), "{unlisted:?}");
    }
}
