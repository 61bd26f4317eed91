"""Verifier of attestation evidence: SEV-SNP, TDX, SGX, Azure's confidential VMs, tokens.

One call, :func:`verify`, takes bytes and gives a :class:`Judgement`. It reads no file and asks no network; evidence of an
emulated processor is refused.
"""

from __future__ import annotations

import enum
import json as _json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Mapping, Optional, Sequence, Tuple, Union

from ._native import VerifyError, __version__
from ._native import verify_json as _verify_json

__all__ = ["Check", "Judgement", "Outcome", "Verdict", "VerifyError", "__version__", "verify"]


class Outcome(str, enum.Enum):
    """What a judgement comes to."""

    PASSED = "passed"
    """No check failed, and nonce, policy and measurement were expected and hold."""
    AUTHENTIC_NOT_APPRAISED = "authentic-not-appraised"
    """No check failed, and something of those was not expected. It is not a pass."""
    REFUSED = "refused"
    """A check failed."""


class Verdict(str, enum.Enum):
    """What one check came to."""

    OK = "ok"
    FAILED = "failed"
    NOT_APPLICABLE = "not-applicable"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """One check of a judgement."""

    name: str
    """For programs."""
    verdict: Verdict
    code: Optional[str]
    """For programs, why it failed; ``None`` where it did not."""
    sentence: str
    """For people, what was found."""


@dataclass(frozen=True)
class Judgement:
    """A judgement. It is true where it passed, and only there."""

    kind: str
    """What was judged: ``snp-report``, ``tdx-quote``, ``sgx-quote``, ``azure-snp-vm``, ``azure-tdx-vm`` or ``token``."""
    outcome: Outcome
    summary: str
    """The outcome in words."""
    tee_class: Optional[str]
    """``hardware`` where a maker's root vouches for it."""
    profile: str
    at: datetime
    """The time for which it holds."""
    report_sha256: str
    """SHA-256 of the report, quote or token, hexadecimal."""
    checks: Tuple[Check, ...]
    """Every check, in the order made."""
    claims: Optional[Mapping[str, Any]]
    """What the evidence says, where it is authentic."""
    json: str
    """All of it, as JSON of format ``caveau-appraisal/1``."""

    def __bool__(self) -> bool:
        return self.outcome is Outcome.PASSED

    def failures(self) -> Tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.verdict is Verdict.FAILED)


def verify(
    evidence: bytes,
    policy: Union[Mapping[str, Any], str, bytes, None] = None,
    *,
    nonce: Optional[bytes] = None,
    report_data: Optional[bytes] = None,
    attachments: Sequence[bytes] = (),
    at: Union[datetime, int, None] = None,
    is_session: bool = False,
) -> Judgement:
    """Judges evidence of any kind that is recognised.

    :param policy: an appraisal policy, format ``caveau-appraisal-policy/1``, as a mapping, JSON or TOML. Without one the strict
        profile holds, and nothing is expected.
    :param nonce: what the evidence must answer.
    :param report_data: the 64 bytes that its report data must be, where they are used in a way of your own.
    :param attachments: files that go with the evidence, in any order: certificates and revocation lists of SEV-SNP, collateral of Intel's,
        signed reference values, keys of tokens' signers.
    :param at: the time of the judgement, as a ``datetime`` with a time zone or seconds since 1970; now by the machine's clock where
        it is left out.
    :param is_session: whether the nonce was asked for over a channel to the guest.
    :raises VerifyError: where there is nothing to judge, or the call makes no sense. Evidence that is refused has a judgement.
    """
    if isinstance(policy, Mapping):
        policy = _json.dumps(policy)
    if isinstance(policy, str):
        policy = policy.encode()
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise VerifyError("`at` has no time zone: which moment it is would be a guess")
        at = int(at.timestamp())
    text = _verify_json(evidence, policy, nonce, report_data, list(attachments), at, is_session)
    said = _json.loads(text)
    checks = (Check(c["name"], Verdict(c["verdict"]), c.get("code"), c["sentence"]) for c in said["checks"])
    return Judgement(
        kind=said["kind"],
        outcome=Outcome(said["outcome"]),
        summary=said["summary"],
        tee_class=said["tee_class"],
        profile=said["profile"],
        at=datetime.strptime(said["at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc),
        report_sha256=said["report_sha256"],
        checks=tuple(checks),
        claims=said["claims"],
        json=text,
    )
