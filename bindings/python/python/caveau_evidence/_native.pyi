from typing import List, Optional

__version__: str

class VerifyError(ValueError): ...

def verify_json(
    evidence: bytes,
    policy: Optional[bytes],
    nonce: Optional[bytes],
    report_data: Optional[bytes],
    attachments: List[bytes],
    at: Optional[int],
    is_session: bool,
) -> str: ...
