//! caveau's verifier of attestation evidence for C: `include/caveau_verify.h`, a shared and a static library.
//!
//! One call, [`caveau_verify`], takes bytes and gives a judgement, or an error where there is nothing that could be judged. It reads no
//! file, asks no network, and of the machine only the clock, where the caller gives no time. Each pointer that a function gives belongs to what
//! it was asked of, until that is freed. NULL is accepted wherever a pointer is taken, and does nothing.
//!
//! Evidence of the emulated TEE is refused: nothing here takes another root than the makers' own.

#![expect(unsafe_code, reason = "C hands over pointers and lengths; each use says what the caller promised")]

use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::time::{SystemTime, UNIX_EPOCH};

use caveau_evidence::{
    AppraisalPolicy, Judgement as Judged, Outcome as Came, Request as Asked, Timestamp, Verdict as Found, with_causes,
};

/// Bytes of the caller's, which stay theirs. A length of 0 is "none", whatever the pointer.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Bytes {
    /// The first byte.
    pub data: *const u8,
    /// How many.
    pub length: usize,
}

/// What evidence is held against. All zeros is a request that expects nothing, under the strict profile, as of now.
#[repr(C)]
pub struct Request {
    /// An appraisal policy: JSON or TOML of format `caveau-appraisal-policy/1`. None expects nothing beyond the strict profile.
    pub policy: Bytes,
    /// The nonce that the evidence must answer.
    pub nonce: Bytes,
    /// The 64 bytes that its report data must be, where they are used in a way of the caller's own.
    pub report_data: Bytes,
    /// Files that go with the evidence, in any order: certificates and revocation lists of SEV-SNP, collateral of Intel's, signed
    /// reference values, keys of tokens' signers.
    pub attachments: *const Bytes,
    /// How many.
    pub attachment_count: usize,
    /// The time of the judgement in seconds since 1970; 0 is now by the machine's clock.
    pub at: u64,
    /// Whether the nonce was asked for over a channel to the guest.
    pub is_session: bool,
}

/// What a judgement comes to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No check failed, and what matters was expected and holds.
    Passed = 0,
    /// No check failed, and something of what matters was not expected. It is not a pass.
    AuthenticNotAppraised = 1,
    /// A check failed.
    Refused = 2,
}

/// What one check came to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Ok = 0,
    /// It does not.
    Failed = 1,
    /// Such evidence has nothing of the kind.
    NotApplicable = 2,
    /// Neither profile nor policy asks for it.
    Skipped = 3,
}

/// One check of a judgement. The texts belong to the judgement.
#[repr(C)]
pub struct Check {
    /// Its name, for programs.
    pub name: *const c_char,
    /// What it came to.
    pub verdict: Verdict,
    /// For programs, why it failed; NULL where it did not.
    pub code: *const c_char,
    /// For people, what was found.
    pub sentence: *const c_char,
}

/// A judgement of evidence.
pub struct Judgement {
    outcome: Outcome,
    summary: CString,
    json: CString,
    checks: Vec<OwnedCheck>,
}

struct OwnedCheck {
    name: CString,
    verdict: Verdict,
    code: Option<CString>,
    sentence: CString,
}

/// Why there is no judgement.
pub struct Error {
    message: CString,
}

/// Judges evidence of any kind: a report of SEV-SNP, alone or in one of the forms of caveau, ACI and others, evidence of Azure's
/// confidential VMs, quotes of TDX and SGX, tokens.
///
/// Gives the judgement, to be freed by `caveau_judgement_free`; evidence that is refused has one. Where there is nothing to judge, or the
/// request makes no sense, it gives NULL, and in `*error` why, to be freed by `caveau_error_free`. Any number of threads may call it.
///
/// # Safety
/// Pointers in `evidence` and `request` must each be good for so many bytes or entries as are said beside them; `request` and `error`
/// must be NULL or good for what they are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn caveau_verify(
    evidence: Bytes,
    request: *const Request,
    error: *mut *mut Error,
) -> *mut Judgement {
    // SAFETY: the caller's promise, of this function and of `judge`.
    let judged = catch_unwind(AssertUnwindSafe(|| unsafe { judge(evidence, request.as_ref()) }));
    let judged = judged.unwrap_or_else(|_| Err("the verifier has an error of its own: please report it".to_owned()));
    match judged {
        Ok(judgement) => Box::into_raw(Box::new(judgement)),
        Err(message) => {
            // SAFETY: the caller's promise: NULL, or good for a pointer.
            if let Some(place) = unsafe { error.as_mut() } {
                *place = Box::into_raw(Box::new(Error { message: text(message) }));
            }
            ptr::null_mut()
        }
    }
}

/// What a judgement comes to; refused, where it is NULL.
///
/// # Safety
/// `judgement` must be NULL or a judgement that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn caveau_judgement_outcome(judgement: *const Judgement) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe { judgement.as_ref() }.map_or(Outcome::Refused, |judgement| judgement.outcome)
}

/// The outcome in words.
///
/// # Safety
/// As of [`caveau_judgement_outcome`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn caveau_judgement_summary(judgement: *const Judgement) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { judgement.as_ref() }.map_or(ptr::null(), |judgement| judgement.summary.as_ptr())
}

/// The whole judgement as JSON of format `caveau-appraisal/1`, claims included.
///
/// # Safety
/// As of [`caveau_judgement_outcome`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn caveau_judgement_json(judgement: *const Judgement) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { judgement.as_ref() }.map_or(ptr::null(), |judgement| judgement.json.as_ptr())
}

/// How many checks were made.
///
/// # Safety
/// As of [`caveau_judgement_outcome`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn caveau_judgement_check_count(judgement: *const Judgement) -> usize {
    // SAFETY: the caller's promise.
    unsafe { judgement.as_ref() }.map_or(0, |judgement| judgement.checks.len())
}

/// Writes the check of this number, from 0, into `*check`; false where there is none.
///
/// # Safety
/// As of [`caveau_judgement_outcome`]; `check` must be NULL or good for a check.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn caveau_judgement_check(judgement: *const Judgement, number: usize, check: *mut Check) -> bool {
    // SAFETY: the caller's promise.
    let found = unsafe { judgement.as_ref() }.and_then(|judgement| judgement.checks.get(number));
    let Some(found) = found.filter(|_| !check.is_null()) else { return false };
    let written = Check {
        name: found.name.as_ptr(),
        verdict: found.verdict,
        code: found.code.as_ref().map_or(ptr::null(), |code| code.as_ptr()),
        sentence: found.sentence.as_ptr(),
    };
    // SAFETY: the caller's promise: not NULL, so good for a check. What was there need not have been one.
    unsafe { check.write(written) };
    true
}

/// Frees a judgement, with all that it gave.
///
/// # Safety
/// As of [`caveau_judgement_outcome`]; it must not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn caveau_judgement_free(judgement: *mut Judgement) {
    if !judgement.is_null() {
        // SAFETY: the caller's promise: it is from `caveau_verify` and was not freed.
        drop(unsafe { Box::from_raw(judgement) });
    }
}

/// What went wrong, and what to do, in words.
///
/// # Safety
/// `error` must be NULL or an error that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn caveau_error_message(error: *const Error) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { error.as_ref() }.map_or(ptr::null(), |error| error.message.as_ptr())
}

/// Frees an error, with its message.
///
/// # Safety
/// As of [`caveau_error_message`]; it must not be used afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn caveau_error_free(error: *mut Error) {
    if !error.is_null() {
        // SAFETY: the caller's promise: it is from `caveau_verify` and was not freed.
        drop(unsafe { Box::from_raw(error) });
    }
}

/// The library's version, as `0.1.0`. It is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn caveau_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The judgement, or why there is none.
///
/// # Safety
/// As of [`caveau_verify`].
unsafe fn judge(evidence: Bytes, request: Option<&Request>) -> Result<Judgement, String> {
    // SAFETY: the caller's promise.
    let evidence = unsafe { evidence.get() };
    let mut asked = Asked::new(AppraisalPolicy::default(), now());
    let mut attachments = Vec::new();
    if let Some(request) = request {
        // SAFETY: the caller's promise.
        let [policy, nonce, report_data] =
            unsafe { [request.policy.get(), request.nonce.get(), request.report_data.get()] }
                .map(|bytes| Some(bytes).filter(|bytes| !bytes.is_empty()));
        let at = if request.at == 0 { now() } else { Timestamp::from_unix(request.at) };
        asked = Asked::from_bytes(policy, report_data, at).map_err(|error| with_causes(&error))?;
        asked.nonce = nonce.map(<[u8]>::to_vec);
        asked.is_session = request.is_session;
        if request.attachment_count > 0 && !request.attachments.is_null() {
            // SAFETY: the caller's promise: so many entries, each good for its bytes.
            let given = unsafe { std::slice::from_raw_parts(request.attachments, request.attachment_count) };
            // SAFETY: as above.
            attachments.extend(given.iter().map(|bytes| unsafe { bytes.get() }));
        }
    }
    let judged = asked.judge_file(evidence, &attachments).map_err(|error| with_causes(&error))?;
    Judgement::of(&judged)
}

impl Bytes {
    /// # Safety
    /// `data` must be good for `length` bytes, unless there are none.
    const unsafe fn get<'a>(self) -> &'a [u8] {
        if self.length == 0 || self.data.is_null() {
            return &[];
        }
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.data, self.length) }
    }
}

impl Judgement {
    fn of(judged: &Judged) -> Result<Self, String> {
        let checks = judged.checks.iter().map(|check| OwnedCheck {
            name: text(check.name),
            verdict: match check.verdict {
                Found::Ok => Verdict::Ok,
                Found::Failed => Verdict::Failed,
                Found::NotApplicable => Verdict::NotApplicable,
                Found::Skipped => Verdict::Skipped,
            },
            code: check.code.as_deref().map(text),
            sentence: text(check.sentence.as_str()),
        });
        Ok(Self {
            outcome: match judged.outcome {
                Came::Passed => Outcome::Passed,
                Came::AuthenticNotAppraised => Outcome::AuthenticNotAppraised,
                Came::Refused => Outcome::Refused,
            },
            summary: text(judged.summary.as_str()),
            json: text(serde_json::to_string(judged).map_err(|error| error.to_string())?),
            checks: checks.collect(),
        })
    }
}

/// A text for C. What evidence says may have a NUL in it, where C would end.
fn text(text: impl Into<String>) -> CString {
    CString::new(text.into().replace('\0', "\u{fffd}")).unwrap_or_default()
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix(since.as_secs())
}
