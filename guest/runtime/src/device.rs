//! Which devices a container can open: a program of our own on its cgroup (BPF_PROG_TYPE_CGROUP_DEVICE, bpf(2)).
//!
//! A device node gives what its numbers say wherever it lies and whoever made it, so the check belongs where it is
//! opened. The list is the OCI runtime specification's default devices, terminals, and nothing else: no disk, no port to
//! the host, no kernel memory. Making a node of another device is refused too, which is stricter than Docker.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

/// A character device: major and, unless every one is meant, minor number.
struct Allowed(i32, Option<i32>);

/// null, zero, full, random, urandom; tty, console, ptmx; every pseudo terminal.
const ALLOWED: [Allowed; 9] = [
    Allowed(1, Some(3)),
    Allowed(1, Some(5)),
    Allowed(1, Some(7)),
    Allowed(1, Some(8)),
    Allowed(1, Some(9)),
    Allowed(5, Some(0)),
    Allowed(5, Some(1)),
    Allowed(5, Some(2)),
    Allowed(136, None),
];

/// BPF_DEVCG_DEV_CHAR (uapi/linux/bpf.h).
const CHARACTER: i32 = 2;

/// bpf(2) commands and kinds (uapi/linux/bpf.h).
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;

/// One instruction: `opcode, dst | src << 4, offset, immediate` (uapi/linux/bpf.h, struct bpf_insn).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// BPF_LDX | BPF_MEM | BPF_W: 32 bits from memory at `src + offset` into `dst`.
const LOAD: u8 = 0x61;
/// BPF_ALU | BPF_AND | BPF_K.
const AND: u8 = 0x54;
/// BPF_JMP | BPF_JNE | BPF_K.
const JUMP_IF_NOT: u8 = 0x55;
/// BPF_ALU64 | BPF_MOV | BPF_K.
const SET: u8 = 0xb7;
/// BPF_JMP | BPF_EXIT.
const EXIT: u8 = 0x95;

/// The context is `struct bpf_cgroup_dev_ctx { u32 access_type, major, minor }`; access_type is kind | access << 16.
/// Register 1 points to it; register 0 is the answer: 1 to allow.
fn program() -> Vec<Instruction> {
    let instruction = |code, registers, offset, immediate| Instruction { code, registers, offset, immediate };
    let mut program = vec![
        instruction(LOAD, 0x12, 0, 0),
        instruction(AND, 0x02, 0, 0xffff),
        instruction(LOAD, 0x13, 4, 0),
        instruction(LOAD, 0x14, 8, 0),
        instruction(JUMP_IF_NOT, 0x02, jump_to_end(), CHARACTER),
    ];
    for Allowed(major, minor) in &ALLOWED {
        match minor {
            Some(minor) => {
                program.extend([instruction(JUMP_IF_NOT, 0x03, 3, *major), instruction(JUMP_IF_NOT, 0x04, 2, *minor)]);
            }
            None => program.push(instruction(JUMP_IF_NOT, 0x03, 2, *major)),
        }
        program.extend([instruction(SET, 0x00, 0, 1), instruction(EXIT, 0, 0, 0)]);
    }
    program.extend([instruction(SET, 0x00, 0, 0), instruction(EXIT, 0, 0, 0)]);
    program
}

/// Number of instructions of the list: where the refusal begins.
fn jump_to_end() -> i16 {
    ALLOWED.iter().map(|Allowed(_, minor)| if minor.is_some() { 4i16 } else { 3 }).fold(0, i16::saturating_add)
}

/// Confines every process of this cgroup and of those below it.
///
/// # Errors
/// As bpf(2).
pub(crate) fn confine(cgroup: BorrowedFd<'_>) -> io::Result<()> {
    let program = load(&program())?;
    attach(cgroup, &program)
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD reads; the kernel takes the rest as zero.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that BPF_PROG_ATTACH reads.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let licence = c"Apache-2.0";
    let attributes = LoadAttributes {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: address(program.as_ptr()),
        licence: address(licence.as_ptr()),
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    let fd = bpf(BPF_PROG_LOAD, &attributes)?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    #[expect(unsafe_code, reason = "the call has no wrapper")]
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attach(cgroup: BorrowedFd<'_>, program: &OwnedFd) -> io::Result<()> {
    let descriptor = |fd: i32| u32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF));
    let attributes = AttachAttributes {
        target: descriptor(cgroup.as_raw_fd())?,
        program: descriptor(program.as_raw_fd())?,
        kind: BPF_CGROUP_DEVICE,
        flags: 0,
    };
    bpf(BPF_PROG_ATTACH, &attributes).map(|_| ())
}

/// An address as bpf(2) takes it.
fn address<T>(pointer: *const T) -> u64 {
    u64::try_from(pointer.addr()).unwrap_or(0)
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    #[expect(unsafe_code, reason = "the call has no wrapper")]
    // SAFETY: `attributes` is a live, initialised `repr(C)` value of the size given; every address in it points to data
    // that its caller keeps alive over the call, and the kernel only reads.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn allows(kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [kind | access << 16, major, minor];
        let program = program();
        let mut registers = [0i32; 5];
        let mut next = 0usize;
        loop {
            let Instruction { code, registers: operands, offset, immediate } = program[next];
            next += 1;
            let target = usize::from(operands & 15);
            match code {
                LOAD => {
                    assert_eq!(operands >> 4, 1);
                    registers[target] = context[usize::try_from(offset).unwrap() / 4];
                }
                AND => registers[target] &= immediate,
                JUMP_IF_NOT if registers[target] != immediate => next += usize::try_from(offset).unwrap(),
                JUMP_IF_NOT => {}
                SET => registers[target] = immediate,
                EXIT => return registers[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn only_the_harmless_devices_open() {
        for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, 0), (136, 77)] {
            for access in [1, 2, 4, 6] {
                assert!(allows(CHARACTER, access, major, minor), "{major}:{minor}");
            }
        }
        for (kind, major, minor) in [
            (1, 8, 0),
            (1, 253, 0),
            (1, 1, 3),
            (1, 136, 0),
            (CHARACTER, 1, 1),
            (CHARACTER, 1, 4),
            (CHARACTER, 10, 130),
            (CHARACTER, 10, 236),
            (CHARACTER, 5, 3),
            (CHARACTER, 4, 64),
            (CHARACTER, 242, 1),
            (CHARACTER, 137, 0),
        ] {
            for access in [1, 2, 4] {
                assert!(!allows(kind, access, major, minor), "{kind} {major}:{minor}");
            }
        }
    }

    #[test]
    fn instructions_have_the_kernels_size() {
        assert_eq!(size_of::<Instruction>(), 8);
        assert_eq!(size_of::<LoadAttributes>(), 48);
        assert_eq!(size_of::<AttachAttributes>(), 16);
    }
}
