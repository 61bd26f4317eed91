//! The software secure processor of emulated-snp.
