//! Report data in, evidence out: the TEE as the guest sees it.
