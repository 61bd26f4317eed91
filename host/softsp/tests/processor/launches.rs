//! What is launched, what is refused, and what a verifier says.

use std::fs::File;
use std::io::Write;
use std::thread;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use caveau_emulated::SoftwareRoot;
use caveau_evidence::{Evidence, Expectations, Hex, Outcome, Profile, Report, Tee as TeeName};
use caveau_measure::{IdAuth, IdBlock, LaunchDigest, P384Key, P384Signature};
use caveau_softsp::client::{LaunchError, control_pair};
use caveau_softsp::{Persona, RefusalStatus, ServeError, SignedIdentity, root_certificate};
use caveau_tee::{KeyFields, KeyRequest, RootKey, Tee};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::machine::*;

#[test]
fn what_was_launched_passes_the_strict_appraisal() {
    let machine = Machine::new();
    let running = machine.launch();
    assert_eq!(running.launched.launch_digest, machine.prediction());
    let mut tee = running.tee();
    for report_data in [[1; 64], [2; 64]] {
        let evidence = evidence(&mut tee, report_data);
        let appraisal = judged(&evidence, &expected(&machine, report_data));
        assert_eq!(appraisal.outcome, Outcome::Passed, "{:?}", appraisal.checks);
        assert_eq!(Report::parse(&evidence.report).unwrap().fields().report_id, running.launched.report_id.0);
    }
    drop(tee);
    running.end().unwrap();
}

#[test]
fn every_part_of_the_launch_is_measured() {
    let base = Machine::new().prediction();
    let changes: [fn(&mut Machine); 8] = [
        |machine| machine.bios = sealed(&[0; 8192]),
        |machine| machine.rom = sealed(&[0; 1536]),
        |machine| machine.kernel = sealed(b"other"),
        |machine| machine.initrd = sealed(b"other"),
        |machine| machine.settings.cmdline.push('x'),
        |machine| machine.settings.vcpus = 1,
        |machine| machine.settings.vcpu_type = "EPYC-Milan".to_owned(),
        |machine| machine.settings.guest_features = 0x21,
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut machine = Machine::new();
        change(&mut machine);
        let running = machine.launch();
        assert_ne!(running.launched.launch_digest, base, "{index}");
        running.end().unwrap();
    }
}

#[test]
fn each_persona_is_authentic_and_judged_for_what_it_is() {
    let verdicts = [
        (Persona::Software, None),
        (Persona::SoftwareV2, Some("minimum-version")),
        (Persona::SoftwareV3, None),
        (Persona::MilanV2, Some("minimum-version")),
        (Persona::Milan, Some("chip-list-needed")),
        (Persona::Genoa, None),
        (Persona::Turin, None),
        (Persona::Vlek, Some("provider")),
        (Persona::MaskedChip, Some("chip-masked")),
        (Persona::Debug, Some("debug")),
        (Persona::Provisional, Some("provisional-firmware")),
    ];
    // The two that are left give nothing to appraise: one is no answer to a guest, the other has no certificates.
    assert_eq!(verdicts.len() + 2, Persona::ALL.len());
    for (persona, code) in verdicts {
        let machine = Machine::persona(persona);
        let running = machine.launch();
        let mut tee = running.tee();
        let appraisal = judged(&evidence(&mut tee, [1; 64]), &expected(&machine, [1; 64]));
        assert_eq!(appraisal.first_failure(), code, "{persona:?} {:?}", appraisal.checks);
        assert!(appraisal.claims.is_some(), "{persona:?} is authentic");
        drop(tee);
        running.end().unwrap();
    }
}

#[test]
fn a_report_for_the_host_is_refused_by_guest_and_verifier() {
    let mut running = Machine::persona(Persona::HostRequested).launch();
    assert!(running.tee().report(&[1; 64]).is_err(), "REPORT_DATA is not what the guest asked for");
    running.end().unwrap();
    running = Machine::persona(Persona::HostRequested).launch();
    let (report, certificates) = ask_by_hand(&mut running);
    let evidence = as_evidence(report, &certificates);
    assert_eq!(judged(&evidence, &Expectations::default()).first_failure(), Some("host-requested"));
}

#[test]
fn another_installation_is_not_believed() {
    let other = tempfile::tempdir().unwrap();
    let running = Machine::new().try_launch(&other.path().join("softsp")).unwrap();
    let mut tee = running.tee();
    let appraisal = judged(&evidence(&mut tee, [1; 64]), &Expectations::default());
    assert_eq!(appraisal.first_failure(), Some("root-untrusted"));
    drop(tee);
    running.end().unwrap();
}

#[test]
fn hardwares_verifier_refuses_every_persona_by_name() {
    for persona in [Persona::Software, Persona::Milan, Persona::Turin, Persona::Vlek] {
        let machine = Machine::persona(persona);
        let running = machine.launch();
        let mut tee = running.tee();
        let emulated = evidence(&mut tee, [1; 64]);
        // Neither what it is, nor a lie about it, helps: no root of ours is one of AMD's.
        let posing = Evidence { tee: TeeName::Snp, ..emulated.clone() };
        for evidence in [emulated, posing] {
            let judged = caveau_evidence::judge(&evidence, &expected(&machine, [1; 64]), Profile::Baseline, now());
            assert_eq!(judged.outcome, Outcome::Refused, "{persona:?}");
            assert!(judged.claims.is_none(), "{persona:?}");
        }
        drop(tee);
        running.end().unwrap();
    }
}

#[test]
fn a_damaged_root_is_named_and_not_replaced() {
    let parent = tempfile::tempdir().unwrap();
    let state = parent.path().join("softsp");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::create_dir(state.join("ark")).unwrap();
    std::fs::write(state.join("ark/key"), "no key").unwrap();
    let Err(LaunchError::Refused(refusal)) = Machine::new().try_launch(&state) else { panic!("it was launched") };
    assert_eq!(refusal.status, RefusalStatus::Platform);
    assert!(refusal.reason.contains("softsp/ark/key is damaged: it holds no RSA key"), "{}", refusal.reason);
    assert_eq!(std::fs::read(state.join("ark/key")).unwrap(), b"no key");
}

#[test]
fn memory_that_can_change_is_not_launched() {
    let open = memfd_create("open", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    File::from(open.try_clone().unwrap()).write_all(b"kernel").unwrap();
    let (status, reason) = Machine { kernel: open, ..Machine::new() }.refusal();
    assert_eq!(status, RefusalStatus::InvalidParameter);
    assert_eq!(reason, "the kernel is no sealed memory file, so it could be changed after being measured");
}

#[test]
fn what_cannot_be_launched_is_refused_with_its_reason() {
    let mut machine = Machine::new();
    machine.settings.guest_policy = 0x43_0000;
    let (status, reason) = machine.refusal();
    assert_eq!(status, RefusalStatus::PolicyFailure);
    assert!(reason.contains("AES-256-XTS"), "{reason}");
    let mut machine = Machine::new();
    machine.settings.vcpu_type = "Pentium".to_owned();
    assert!(machine.refusal().1.contains("unknown vCPU type `Pentium`"));
    let machine = Machine { bios: sealed(&[1; 100]), ..Machine::new() };
    assert!(machine.refusal().1.contains("the firmware has 100 bytes"));
}

struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    fn key(&self) -> P384Key {
        let point = self.0.public_key().as_ref();
        P384Key { x: point[1..49].try_into().unwrap(), y: point[49..].try_into().unwrap() }
    }

    fn sign(&self, message: &[u8]) -> P384Signature {
        let signature = self.0.sign(&SystemRandom::new(), message).unwrap();
        let (r, s) = signature.as_ref().split_at(48);
        P384Signature { r: r.try_into().unwrap(), s: s.try_into().unwrap() }
    }
}

#[test]
fn an_id_block_is_checked_and_shown() {
    let (id, author) = (Signer::new(), Signer::new());
    let mut machine = Machine::new();
    let block = IdBlock {
        launch_digest: machine.prediction(),
        family_id: [2; 16],
        image_id: [3; 16],
        guest_svn: 4,
        policy: 0x3_0000,
    };
    let signed = |block: IdBlock| {
        let auth = IdAuth {
            id_key: id.key(),
            block_signature: id.sign(&block.to_bytes()),
            author: Some((author.key(), author.sign(&id.key().to_bytes()))),
        };
        Some(SignedIdentity { block: Hex(block.to_bytes()), auth: Box::new(Hex(auth.to_bytes())) })
    };
    machine.settings.identity = signed(block);
    let running = machine.launch();
    let report = running.tee().report(&[1; 64]).unwrap().report;
    let fields = *Report::parse(&report).unwrap().fields();
    assert_eq!((fields.family_id, fields.image_id, fields.guest_svn), ([2; 16], [3; 16], 4));
    assert_eq!((fields.id_key_digest, fields.author_key_digest), (id.key().digest(), author.key().digest()));
    assert!(fields.author_key_enabled);
    running.end().unwrap();
    for (other, status) in [
        (IdBlock { launch_digest: LaunchDigest::from_bytes([0; 48]), ..block }, RefusalStatus::BadMeasurement),
        (IdBlock { policy: 0xb_0000, ..block }, RefusalStatus::PolicyFailure),
    ] {
        machine.settings.identity = signed(other);
        assert_eq!(machine.refusal().0, status);
    }
    let mut forged = signed(block).unwrap();
    forged.block = Hex(IdBlock { guest_svn: 9, ..block }.to_bytes());
    machine.settings.identity = Some(forged);
    assert_eq!(machine.refusal().0, RefusalStatus::BadSignature);
}

#[test]
fn a_sealing_key_is_the_same_guests_alone() {
    let key = |machine: &Machine| {
        let running = machine.launch();
        let request = KeyRequest {
            root: RootKey::Vcek,
            fields: KeyFields::SEALING,
            vmpl: 0,
            guest_svn: 0,
            tcb_version: 0xdb18_0000_0000_0004,
            launch_mit_vector: None,
        };
        let key = running.tee().derived_key(&request).unwrap();
        running.end().unwrap();
        *key
    };
    assert_eq!(key(&Machine::new()), key(&Machine::new()));
    assert_ne!(key(&Machine::new()), key(&Machine { initrd: sealed(b"other"), ..Machine::new() }));
}

#[test]
fn first_starts_at_the_same_time_make_one_root() {
    let parent = tempfile::tempdir().unwrap();
    let state = parent.path().join("data/softsp");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let state = state.clone();
            thread::spawn(move || std::fs::read(root_certificate(&state).unwrap()).unwrap())
        })
        .collect();
    let roots: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));
    SoftwareRoot::parse(&roots[0]).unwrap();
}

#[test]
fn a_launcher_that_goes_away_or_talks_nonsense_ends_the_process() {
    let (ours, theirs) = control_pair().unwrap();
    drop(ours);
    caveau_softsp::run(&STATE, theirs).unwrap();
    for nonsense in [&b"{}"[..], b"\xff\xfe", b"[1]"] {
        let (ours, theirs) = control_pair().unwrap();
        rustix::net::send(&ours, nonsense, rustix::net::SendFlags::empty()).unwrap();
        assert!(matches!(caveau_softsp::run(&STATE, theirs), Err(ServeError::Refused(_))));
        let mut answer = [0; 4096];
        let (length, _) = rustix::net::recv(&ours, &mut answer[..], rustix::net::RecvFlags::empty()).unwrap();
        let text = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(text.contains("invalid-parameter") && text.contains("the request"), "{text}");
    }
}
