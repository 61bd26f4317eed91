//! The commands, one module each; those on groups share one.

pub(crate) mod attest;
pub(crate) mod doctor;
pub(crate) mod fragment;
pub(crate) mod groups;
pub(crate) mod guest;
pub(crate) mod image;
pub(crate) mod layer;
pub(crate) mod measure;
pub(crate) mod owner;
pub(crate) mod policy;
pub(crate) mod policy_corpus;
pub(crate) mod policy_tools;
pub(crate) mod run;
mod signing;
pub(crate) mod verify;
