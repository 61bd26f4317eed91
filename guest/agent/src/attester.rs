//! What the TEE is asked for: that the policy is the one of the launch, and proof of it for others.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use caveau_channel::Exporter;
use caveau_policy::{Enforcer, HostData};
use caveau_protocol::{AgentError, AgentReply, Nonce, Report};
use caveau_snp::{
    binding::{Use, report_data},
    event_log::EventLogWriter,
};
use caveau_tee::{Tee, TeeEvidence};

use crate::{
    answer::{Answer, chain, failed, invalid},
    endorsements::host_certificates,
};

/// Where HOST_DATA lies in a report (SEV-SNP ABI specification, "ATTESTATION_REPORT").
const HOST_DATA: std::ops::Range<usize> = 0xc0..0xe0;

/// Distinguishes the guest's own question from a challenger's.
const OWN: &[u8] = b"agent start";

/// The link to the secure processor, with the two questions that it is asked.
pub(crate) struct Attester {
    tee: Box<dyn Tee>,
}

impl Attester {
    pub(crate) fn new(tee: Box<dyn Tee>) -> Self {
        Self { tee }
    }

    /// Puts a policy in force only if its SHA-256 is the HOST_DATA of a report that nobody can have kept from before. Gives
    /// the certificates that came with that report too, where there were any.
    ///
    /// # Errors
    /// Where it is another policy, or one that cannot be enforced, or the TEE does not answer.
    pub(crate) fn enforcer(&mut self, text: &str) -> Result<(Enforcer, Option<String>), AgentError> {
        let evidence = self.fresh_report()?;
        let host_data = evidence.report.get(HOST_DATA).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let host_data = HostData::new(host_data.ok_or_else(|| invalid("the TEE's report is too short"))?);
        let enforcer = Enforcer::new(text, &host_data);
        let enforcer = enforcer.map_err(|error| invalid(format!("the policy is refused: {}", chain(&error))))?;
        Ok((enforcer, host_certificates(&evidence)))
    }

    /// A report over a challenger's nonce.
    pub(crate) fn attest(&mut self, nonce: &Nonce) -> Answer {
        told(self.report(Use::Challenge, nonce.as_bytes(), &[])?)
    }

    /// A report for one session of a channel: whoever relays it has another exporter.
    pub(crate) fn attest_channel(&mut self, nonce: &Nonce, exporter: &Exporter) -> Answer {
        told(self.report(Use::OwnerChannel, nonce.as_bytes(), exporter)?)
    }

    /// A report over a challenger's nonce and what happened.
    pub(crate) fn attest_log(&mut self, nonce: &Nonce, log: &EventLogWriter) -> Answer {
        let (reply, _) = told(self.report(Use::EventLog, nonce.as_bytes(), &log.head().data())?)?;
        Ok((reply, log.text()))
    }

    fn fresh_report(&mut self) -> Result<TeeEvidence, AgentError> {
        let mut nonce = [0u8; 32];
        rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| failed("get random bytes", &error))?;
        self.report(Use::Challenge, &nonce, OWN)
    }

    fn report(&mut self, purpose: Use, nonce: &[u8], about: &[u8]) -> Result<TeeEvidence, AgentError> {
        let data = report_data(purpose, nonce, about);
        self.tee.report(&data).map_err(|error| failed("get a report from the TEE", &error))
    }
}

/// What of evidence goes out.
fn told(TeeEvidence { report, certificates }: TeeEvidence) -> Answer {
    let report = Report { report: BASE64_STANDARD.encode(report), certificates: BASE64_STANDARD.encode(certificates) };
    Ok((AgentReply::Report(report), Vec::new()))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use caveau_policy::PolicyDigest;
    use caveau_protocol::ErrorKind;
    use caveau_tee::{DerivedKey, KeyRequest, TeeError, TeeKind};

    use super::*;

    const POLICY: &str = "package policy\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\ncontainers := []\n\
                          mount_device := data.framework.mount_device\n";

    /// A processor whose launch had this HOST_DATA; it remembers what it was asked.
    struct Processor {
        host_data: Vec<u8>,
        asked: Arc<Mutex<Vec<[u8; 64]>>>,
    }

    impl Tee for Processor {
        fn kind(&self) -> TeeKind {
            TeeKind::EmulatedSnp
        }

        fn report(&mut self, report_data: &[u8; 64]) -> Result<TeeEvidence, TeeError> {
            self.asked.lock().unwrap().push(*report_data);
            let report = [&[0u8; 0x50][..], report_data, &[0; 0x30], &self.host_data].concat();
            Ok(TeeEvidence { report, certificates: b"table".to_vec() })
        }

        fn derived_key(&mut self, _: &KeyRequest) -> Result<DerivedKey, TeeError> {
            Err(TeeError::NotNamed)
        }
    }

    fn attester(host_data: &[u8]) -> (Attester, Arc<Mutex<Vec<[u8; 64]>>>) {
        let asked = Arc::default();
        let processor = Processor { host_data: host_data.to_vec(), asked: Arc::clone(&asked) };
        (Attester::new(Box::new(processor)), asked)
    }

    fn refusal(attester: &mut Attester, text: &str) -> String {
        let Err(error) = attester.enforcer(text) else { panic!("not refused") };
        assert_eq!(error.kind, ErrorKind::Invalid);
        error.message
    }

    #[test]
    fn only_the_policy_of_the_launch_is_enforced() {
        let digest = PolicyDigest::of(POLICY);
        let (mut attester, asked) = attester(digest.as_bytes());
        for other in [format!("{POLICY}\n"), POLICY.replace("0.5.0", "0.4.1"), String::new()] {
            let message = refusal(&mut attester, &other);
            assert!(message.contains(&digest.to_string()), "{message}");
        }
        let (enforcer, certificates) = attester.enforcer(POLICY).unwrap();
        assert_eq!((enforcer.policy().digest(), certificates), (digest, None));
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 4);
        assert!(asked.iter().all(|data| asked.iter().filter(|other| *other == data).count() == 1), "each is fresh");
    }

    #[test]
    fn a_short_report_proves_nothing() {
        let (mut attester, _) = attester(&[0; 31]);
        assert!(refusal(&mut attester, POLICY).contains("too short"));
    }

    #[test]
    fn a_session_gets_a_report_that_is_worthless_elsewhere() {
        let (mut attester, asked) = attester(&[0; 32]);
        let nonce = Nonce::try_from(vec![9; 32]).unwrap();
        attester.attest_channel(&nonce, &[1; 64]).unwrap();
        attester.attest_channel(&nonce, &[2; 64]).unwrap();
        attester.attest(&nonce).unwrap();
        let of_session = |exporter: [u8; 64]| *report_data(Use::OwnerChannel, nonce.as_bytes(), &exporter);
        let challenge = *report_data(Use::Challenge, nonce.as_bytes(), &[]);
        assert_eq!(asked.lock().unwrap().as_slice(), [of_session([1; 64]), of_session([2; 64]), challenge]);
        assert_ne!(challenge, *report_data(Use::OwnerChannel, nonce.as_bytes(), &[]));
    }

    #[test]
    fn a_report_over_the_log_binds_its_head() {
        let (mut attester, asked) = attester(&[0; 32]);
        let nonce = Nonce::try_from(vec![9; 32]).unwrap();
        let mut log = EventLogWriter::new([7; 32]);
        log.add("exec", serde_json::Value::Null, caveau_snp::event_log::Outcome::Denied);
        let (_, text) = attester.attest_log(&nonce, &log).unwrap();
        let read = caveau_snp::event_log::EventLog::parse(&text).unwrap();
        let expected = *report_data(Use::EventLog, nonce.as_bytes(), &read.head.data());
        assert_eq!(asked.lock().unwrap().as_slice(), [expected]);
    }

    #[test]
    fn a_challenger_gets_a_report_over_its_own_nonce() {
        let (mut attester, asked) = attester(&[0; 32]);
        let nonce = Nonce::try_from(vec![9; 32]).unwrap();
        let (reply, body) = attester.attest(&nonce).unwrap();
        assert!(body.is_empty());
        let AgentReply::Report(report) = reply else { panic!("{reply:?}") };
        assert_eq!(BASE64_STANDARD.decode(report.certificates).unwrap(), b"table");
        let expected: [u8; 64] = *report_data(Use::Challenge, nonce.as_bytes(), &[]);
        assert_eq!(asked.lock().unwrap().as_slice(), [expected]);
        assert_eq!(BASE64_STANDARD.decode(report.report).unwrap()[0x50..0x90], expected);
    }
}
