//! One VM: QEMU's command line, its process, its control connection, and what it says.
//!
//! Nothing is looked up by path a second time: kernel, initial RAM disk and firmware are sealed memory files, disks and
//! ports are descriptors, and QEMU gets their numbers.

mod argv;
mod boot;
mod probe;
mod process;
mod qemu;
mod qmp;
mod roms;
mod tail;

use argv::descriptor;
pub use argv::{Board, Disk, Hardware, compose};
pub(crate) use boot::{LOG_BYTES, describe};
pub use boot::{Machine, MachineError, MachineParts, TeeParts};
pub use probe::{KvmVerdict, probe_kvm};
pub use process::Process;
pub(crate) use process::{close_all, keep_open, prepare};
pub use qemu::{Qemu, QemuError, SNP_VERSION};
pub use qmp::{Qmp, QmpError};
pub(crate) use tail::{BoundedFile, Tail};
