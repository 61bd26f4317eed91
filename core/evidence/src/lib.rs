//! Attestation reports and certificate chains: parse, verify, appraise.
