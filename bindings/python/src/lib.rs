//! caveau's verifier of attestation evidence for Python: the part in Rust, which takes bytes and gives JSON. The package around it,
//! `python/caveau_evidence`, makes types of that.

use std::time::{SystemTime, UNIX_EPOCH};

use caveau_evidence::{Request, Timestamp, with_causes};
use pyo3::prelude::*;

pyo3::create_exception!(
    caveau_evidence,
    VerifyError,
    pyo3::exceptions::PyValueError,
    "There is nothing to judge, or the call makes no sense."
);

/// The module `caveau_evidence._native`.
#[pymodule]
mod _native {
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "a name of Python's")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    use super::VerifyError;
    #[pymodule_export]
    use super::verify_json;
}

/// A judgement as JSON. Other threads of the interpreter run meanwhile.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the package's function has them by name")]
#[expect(clippy::needless_pass_by_value, reason = "what Python hands over is taken")]
fn verify_json(
    python: Python<'_>,
    evidence: &[u8],
    policy: Option<&[u8]>,
    nonce: Option<Vec<u8>>,
    report_data: Option<&[u8]>,
    attachments: Vec<Vec<u8>>,
    at: Option<u64>,
    is_session: bool,
) -> PyResult<String> {
    let judged = python.detach(|| {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let at = Timestamp::from_unix(at.unwrap_or_else(now));
        let mut request = Request::from_bytes(policy, report_data, at).map_err(|error| with_causes(&error))?;
        request.nonce = nonce;
        request.is_session = is_session;
        let attachments: Vec<&[u8]> = attachments.iter().map(Vec::as_slice).collect();
        let judgement = request.judge_file(evidence, &attachments).map_err(|error| with_causes(&error))?;
        serde_json::to_string(&judgement).map_err(|error| error.to_string())
    });
    judged.map_err(VerifyError::new_err)
}
