//! The program as a shell sees it, without a VM.

#[path = "../../../core/layer/tests/common/accepted.rs"]
mod accepted;
mod expected;
#[path = "../../../core/evidence/tests/fixtures/mod.rs"]
mod fixtures;
mod fragment;
mod guest;
mod layer;
mod measure;
mod measure_group;
mod page;
mod page_in_browser;
mod policy;
mod policy_corpus;
#[path = "../../../core/emulated/tests/processor/mod.rs"]
mod processor;
mod program;
mod verify;
