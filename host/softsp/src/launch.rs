//! A launch: parts are checked and hashed, policy and ID block held against the platform, and the context frozen.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use caveau_measure::{
    Firmware, GuestFeatures, IdAuth, IdBlock, KernelHashes, LaunchDigest, LaunchSpec, MAX_FIRMWARE_BYTES, Sha256Digest,
    VcpuType, Vmm, launch_digest, sha256,
};
use caveau_snp::bits::GuestPolicy;

use crate::CryptoError;
use crate::context::{GuestContext, Identity};
use crate::endorsement::Endorsement;
use crate::message::{self, LaunchSettings, MAX_OPTION_ROMS, Refusal, RefusalStatus, Request, SignedIdentity, VERSION};
use crate::persona::{Persona, Platform};
use crate::sealed::{PartError, SealedPart};
use crate::seed::Seed;
use crate::state::{StateError, StateFolder};

/// Most bytes of a kernel or an initial RAM disk.
const MAX_IMAGE: u64 = 512 << 20;
/// Most bytes of an option ROM: the space below the BIOS.
const MAX_OPTION_ROM: u64 = 192 << 10;
/// Most bytes of a command line (x86 boot protocol).
const MAX_CMDLINE: usize = 2047;

/// What a request and its descriptors come to.
pub(crate) struct Launch {
    settings: LaunchSettings,
    firmware: FirmwareParts,
    kernel: SealedPart,
    initrd: Option<SealedPart>,
    link: OwnedFd,
}

enum FirmwareParts {
    Direct { bios: SealedPart, option_roms: Vec<(String, SealedPart)> },
    Ovmf(SealedPart),
}

impl Launch {
    /// Sorts out a request: every part is there, sealed and within its bounds, and nothing else came.
    pub(crate) fn parse(packet: &[u8], descriptors: Vec<OwnedFd>) -> Result<Self, Refusal> {
        let request: Request =
            serde_json::from_slice(packet).map_err(|error| invalid(format!("the request: {error}")))?;
        if request.version != VERSION {
            return Err(invalid(format!("the request has version {}, expected {VERSION}", request.version)));
        }
        if request.settings.cmdline.len() > MAX_CMDLINE || request.settings.cmdline.contains('\0') {
            return Err(invalid(format!("the command line has a NUL or more than {MAX_CMDLINE} bytes")));
        }
        let mut descriptors = descriptors.into_iter();
        let firmware = FirmwareParts::take(request.firmware, &mut descriptors)?;
        let kernel = part(&mut descriptors, "kernel", MAX_IMAGE)?;
        let initrd = request.has_initrd.then(|| part(&mut descriptors, "initrd", MAX_IMAGE)).transpose()?;
        let link = descriptors.next().ok_or_else(|| invalid("the guest link is missing".to_owned()))?;
        match descriptors.count() {
            0 => Ok(Self { settings: request.settings, firmware, kernel, initrd, link }),
            more => Err(invalid(format!("{more} more descriptors came than the request has parts"))),
        }
    }

    /// The same launch on another processor than the launcher asks for.
    pub(crate) fn playing(mut self, persona: Option<Persona>) -> Self {
        self.settings.persona = persona.unwrap_or(self.settings.persona);
        self
    }

    /// Measures and launches on the installation in `state_folder`; gives the frozen context and the guest link.
    pub(crate) fn finish(self, state_folder: &Path) -> Result<(GuestContext, OwnedFd), Refusal> {
        let measurement = self.measure()?;
        // The folder is locked for this only: other groups' launches wait meanwhile.
        let (seed, platform, endorsement) = self.platform(state_folder).map_err(|error| platform_failed(&error))?;
        let guest_policy = GuestPolicy(self.settings.guest_policy);
        check_policy(guest_policy, &platform)?;
        let identity = match &self.settings.identity {
            Some(signed) => check_identity(signed, measurement, guest_policy)?,
            None => Identity::default(),
        };
        let mut report_id = [0; 32];
        let drawn = SystemRandom::new().fill(&mut report_id).map_err(CryptoError::at("draw a REPORT_ID"));
        drawn.map_err(|error| platform_failed(&error))?;
        let host_data = self.settings.host_data.0;
        let context =
            GuestContext { measurement, guest_policy, host_data, identity, report_id, platform, endorsement, seed };
        Ok((context, self.link))
    }

    fn platform(&self, folder: &Path) -> Result<(Seed, Platform, Endorsement), StateError> {
        let state = StateFolder::open(folder)?;
        let seed = state.seed()?;
        let platform = Platform::new(self.settings.persona, &seed, has_sibling_threads())?;
        let endorsement = Endorsement::new(&state, &seed, &platform)?;
        Ok((seed, platform, endorsement))
    }

    /// The launch digest over the parts' own bytes.
    fn measure(&self) -> Result<LaunchDigest, Refusal> {
        let kernel =
            self.kernel_hashes().map_err(|error| invalid(format!("failed to read the kernel or initrd: {error}")))?;
        let vcpu_type: VcpuType = self.settings.vcpu_type.parse().map_err(|error| invalid(format!("{error}")))?;
        let digest = |firmware: Firmware<'_>| {
            let spec = LaunchSpec {
                firmware,
                kernel: Some(kernel),
                vcpus: self.settings.vcpus,
                vcpu_type,
                guest_features: GuestFeatures(self.settings.guest_features),
                vmm: Vmm::Qemu,
            };
            launch_digest(&spec).map_err(|error| invalid(error.to_string()))
        };
        let unreadable = |error: io::Error| invalid(format!("failed to read the firmware: {error}"));
        match &self.firmware {
            FirmwareParts::Ovmf(image) => digest(Firmware::Ovmf(&image.bytes().map_err(unreadable)?)),
            FirmwareParts::Direct { bios, option_roms } => {
                let bios = bios.bytes().map_err(unreadable)?;
                let read = |(name, rom): &(String, SealedPart)| Ok((name.clone(), rom.bytes().map_err(unreadable)?));
                let roms = option_roms.iter().map(read).collect::<Result<Vec<_>, Refusal>>()?;
                let option_roms: Vec<(&str, &[u8])> =
                    roms.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
                digest(Firmware::Direct { bios: &bios, option_roms: &option_roms })
            }
        }
    }

    /// Kernel and initrd are tens of megabytes: both are hashed at once.
    fn kernel_hashes(&self) -> io::Result<KernelHashes> {
        let (kernel, initrd) = thread::scope(|scope| {
            let initrd = self.initrd.as_ref().map(|part| scope.spawn(|| sha256(part.reader())));
            let kernel = sha256(self.kernel.reader());
            let joined = initrd.map(|thread| thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())));
            (kernel, joined.transpose())
        });
        let initrd: Option<Sha256Digest> = initrd?;
        Ok(KernelHashes::new(kernel?, initrd, &self.settings.cmdline))
    }
}

impl FirmwareParts {
    fn take(firmware: message::Firmware, descriptors: &mut impl Iterator<Item = OwnedFd>) -> Result<Self, Refusal> {
        let option_roms = match firmware {
            message::Firmware::Ovmf => {
                return Ok(Self::Ovmf(part(descriptors, "firmware", MAX_FIRMWARE_BYTES as u64)?));
            }
            message::Firmware::Direct { option_roms } => option_roms,
        };
        if option_roms.len() > MAX_OPTION_ROMS {
            return Err(invalid(format!("{} option ROMs, allowed are {MAX_OPTION_ROMS}", option_roms.len())));
        }
        let bios = part(descriptors, "BIOS", MAX_FIRMWARE_BYTES as u64)?;
        let mut rom = |name: String| {
            let file = part(descriptors, &format!("option ROM {name:?}"), MAX_OPTION_ROM)?;
            Ok((name, file))
        };
        Ok(Self::Direct { bios, option_roms: option_roms.into_iter().map(&mut rom).collect::<Result<_, Refusal>>()? })
    }
}

/// The next descriptor, as this part.
fn part(descriptors: &mut impl Iterator<Item = OwnedFd>, what: &str, limit: u64) -> Result<SealedPart, Refusal> {
    let descriptor = descriptors.next().ok_or_else(|| invalid(format!("the {what} is missing")))?;
    SealedPart::new(descriptor, what, limit).map_err(|error: PartError| invalid(error.to_string()))
}

/// What SNP_LAUNCH_START and SNP_LAUNCH_FINISH ask of the platform for this policy.
fn check_policy(policy: GuestPolicy, platform: &Platform) -> Result<(), Refusal> {
    if !policy.is_well_formed() {
        let reason = format!("guest policy {:#x}: bit 17 must be one and bits 26 to 63 zero", policy.0);
        return Err(invalid(reason));
    }
    let firmware = platform.current_firmware;
    let unmet = [
        (policy.abi() > (firmware.major, firmware.minor), "a newer firmware ABI than this processor's"),
        (
            !policy.smt_allowed() && platform.platform_info.smt_on(),
            "that sibling threads be off, and this host has them on",
        ),
        (policy.aes_256_xts_required(), "memory encryption with AES-256-XTS, which this processor does not have"),
        (policy.rapl_must_be_off(), "that power metering (RAPL) be off, which this processor does not control"),
        (policy.ciphertext_hiding_required(), "ciphertext hiding, which this processor does not have"),
    ];
    match unmet.into_iter().find(|(unmet, _)| *unmet) {
        Some((_, what)) => {
            let reason = format!("guest policy {:#x} asks for {what}", policy.0);
            Err(Refusal::new(RefusalStatus::PolicyFailure, reason))
        }
        None => Ok(()),
    }
}

/// What SNP_LAUNCH_FINISH asks of an ID block.
fn check_identity(
    signed: &SignedIdentity,
    measurement: LaunchDigest,
    policy: GuestPolicy,
) -> Result<Identity, Refusal> {
    let block = IdBlock::parse(&signed.block.0).map_err(|error| invalid(error.to_string()))?;
    let auth = IdAuth::parse(&signed.auth.0).map_err(|error| invalid(error.to_string()))?;
    let keys = auth.verify(&block).map_err(|error| Refusal::new(RefusalStatus::BadSignature, error.to_string()))?;
    if block.launch_digest != measurement {
        let reason = format!("the ID block expects launch digest {}, measured was {measurement}", block.launch_digest);
        return Err(Refusal::new(RefusalStatus::BadMeasurement, reason));
    }
    if block.policy != policy.0 {
        let reason = format!("the ID block expects guest policy {:#x}, the launch has {:#x}", block.policy, policy.0);
        return Err(Refusal::new(RefusalStatus::PolicyFailure, reason));
    }
    Ok(Identity {
        family_id: block.family_id,
        image_id: block.image_id,
        guest_svn: block.guest_svn,
        id_key_digest: keys.id_key_digest,
        author_key_digest: keys.author_key_digest,
    })
}

/// Whether sibling threads are on, as the kernel says; a processor that cannot know says that they are.
fn has_sibling_threads() -> bool {
    std::fs::read_to_string("/sys/devices/system/cpu/smt/active").map_or(true, |text| text.trim() != "0")
}

fn invalid(reason: impl Into<String>) -> Refusal {
    Refusal::new(RefusalStatus::InvalidParameter, reason)
}

fn platform_failed(error: &dyn std::error::Error) -> Refusal {
    Refusal::of(RefusalStatus::Platform, error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::*;
    use crate::persona::Persona;

    fn status(policy: u64, smt: bool) -> Option<RefusalStatus> {
        let platform = Platform::new(Persona::Software, &Seed::new(Zeroizing::new([1; 48])), smt).unwrap();
        check_policy(GuestPolicy(policy), &platform).err().map(|refusal| refusal.status)
    }

    #[test]
    fn a_policy_that_the_platform_does_not_meet_is_refused() {
        assert_eq!(status(0x3_0000, true), None);
        assert_eq!(status(0x3_013a, true), None, "the played ABI is 1.58");
        assert_eq!(status(0x3_013b, true), Some(RefusalStatus::PolicyFailure));
        assert_eq!(status(0x2_0000, true), Some(RefusalStatus::PolicyFailure));
        assert_eq!(status(0x2_0000, false), None);
        for bit in [22, 23, 24] {
            assert_eq!(status(0x3_0000 | 1 << bit, false), Some(RefusalStatus::PolicyFailure), "bit {bit}");
        }
        for bit in [18, 19, 20, 21, 25] {
            assert_eq!(status(0x3_0000 | 1 << bit, false), None, "bit {bit} is for the verifier to judge");
        }
        assert_eq!(status(0x1_0000, true), Some(RefusalStatus::InvalidParameter));
        assert_eq!(status(0x3_0000 | 1 << 26, true), Some(RefusalStatus::InvalidParameter));
    }

    fn request(firmware: message::Firmware, has_initrd: bool) -> Request {
        Request { version: VERSION, settings: LaunchSettings::new("", 1, "EPYC", [0; 32]), firmware, has_initrd }
    }

    fn reason(request: &Request, descriptors: usize) -> String {
        let packet = serde_json::to_vec(request).unwrap();
        let descriptors = (0..descriptors).map(|_| tempfile::tempfile().unwrap().into()).collect();
        Launch::parse(&packet, descriptors).err().unwrap().reason
    }

    #[test]
    fn every_part_must_come() {
        let direct = |count| message::Firmware::Direct { option_roms: vec!["a.bin".to_owned(); count] };
        assert_eq!(reason(&request(message::Firmware::Ovmf, true), 0), "the firmware is missing");
        assert!(reason(&request(direct(0), true), 1).starts_with("the BIOS is no sealed memory file"));
        assert_eq!(reason(&request(direct(17), true), 0), "17 option ROMs, allowed are 16");
        let old = Request { version: 0, ..request(direct(0), true) };
        assert_eq!(reason(&old, 0), "the request has version 0, expected 1");
        let mut long = request(direct(0), true);
        long.settings.cmdline = "x".repeat(2048);
        assert!(reason(&long, 0).contains("more than 2047 bytes"));
    }

    proptest! {
        #[test]
        fn hostile_packets_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..500), cut in 0usize..600) {
            prop_assert!(Launch::parse(&bytes, Vec::new()).is_err());
            let mut packet = serde_json::to_vec(&request(message::Firmware::Ovmf, false)).unwrap();
            packet.truncate(cut);
            prop_assert!(Launch::parse(&packet, Vec::new()).is_err());
        }
    }
}
