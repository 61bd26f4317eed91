//! One file per kind of lie that a host may tell, each test ending in the exact denial or failure.
//!
//! The host starts groups from plans that differ from the honest one in one point, sends frames of its own making to the
//! agent's port, changes files behind a running guest's back, or shows false evidence.

mod acpi;
mod bypasses;
mod channel;
mod devices;
mod evidence;
mod extension;
mod frames;
mod kernel;
mod launch;
mod layers;
mod process;
mod processors;
mod silence;
mod tee;
