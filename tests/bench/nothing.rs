//! The smallest program there is: it exits. What a run of it takes is what the kernel takes for any program.

/// An ELF file with one segment. Header and program header as in elf(5).
pub const PROGRAM: &[u8] = &assemble();

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
/// `xor edi, edi; mov eax, 60; syscall`
#[cfg(target_arch = "x86_64")]
const CODE: [u8; 12] = [0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05, 0, 0, 0];

#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;
/// `mov x0, #0; mov x8, #93; svc #0`
#[cfg(target_arch = "aarch64")]
const CODE: [u8; 12] = [0x00, 0x00, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];

const HEADERS: usize = 64 + 56;
const SIZE: usize = HEADERS + CODE.len();
const BASE: u64 = 0x40_0000;

const fn assemble() -> [u8; SIZE] {
    let mut file = [0; SIZE];
    let mut at = 0;
    let fields: [(u64, usize); 23] = [
        // 64 bit, little endian, version 1.
        (0x0001_0102_464c_457f, 8),
        (0, 8),
        // An executable.
        (2, 2),
        (MACHINE as u64, 2),
        (1, 4),
        (BASE + HEADERS as u64, 8),
        (64, 8),
        (0, 8),
        (0, 4),
        (64, 2),
        (56, 2),
        (1, 2),
        (0, 2),
        (0, 2),
        (0, 2),
        // PT_LOAD, readable and executable.
        (1, 4),
        (5, 4),
        (0, 8),
        (BASE, 8),
        (BASE, 8),
        (SIZE as u64, 8),
        (SIZE as u64, 8),
        (0x1000, 8),
    ];
    let mut field = 0;
    while field < fields.len() {
        let (value, size) = fields[field];
        let bytes = value.to_le_bytes();
        let mut byte = 0;
        while byte < size {
            file[at] = bytes[byte];
            at += 1;
            byte += 1;
        }
        field += 1;
    }
    let mut byte = 0;
    while byte < CODE.len() {
        file[at] = CODE[byte];
        at += 1;
        byte += 1;
    }
    file
}
