//! The product as its users meet it: the command line, real images, real VMs.
//!
//! A VM takes seconds to boot under emulation, so that each test asks as much as it can of one boot.

mod busybox;
mod confined;
mod endorsed;
mod extension;
mod firmware;
mod fragments;
mod groups;
mod layers;
mod nginx;
mod offline;
mod owner;
mod policy;
mod python3;
mod redis;
mod registry;
mod talkative;
mod terminal;
mod user;
