//! Which programs a machine can run, by their ELF header.

use core::fmt;

use crate::block::field::{bytes, le16, le32, le64};

/// The machine that a kernel runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Machine {
    /// 64-bit x86; runs 32-bit programs too.
    X86_64,
    /// 64-bit Arm; may run 32-bit programs too.
    Aarch64,
    /// 32-bit Arm.
    Arm,
    /// 64-bit RISC-V.
    Riscv64,
}

/// Names as `uname -m` prints them, and the ELF machines that run.
const MACHINES: [(Machine, &str, &[u16]); 4] = [
    (Machine::X86_64, "x86_64", &[62, 3]),
    (Machine::Aarch64, "aarch64", &[183, 40]),
    (Machine::Arm, "arm", &[40]),
    (Machine::Riscv64, "riscv64", &[243]),
];

impl Machine {
    /// The one that this program was built for.
    pub const fn native() -> Self {
        if cfg!(target_arch = "aarch64") {
            Machine::Aarch64
        } else if cfg!(target_arch = "arm") {
            Machine::Arm
        } else if cfg!(target_arch = "riscv64") {
            Machine::Riscv64
        } else {
            Machine::X86_64
        }
    }

    /// From its name.
    pub fn parse(name: &str) -> Option<Self> {
        MACHINES.iter().find(|m| m.1 == name).map(|m| m.0)
    }

    /// Whether it runs programs of this ELF machine (`e_machine`).
    pub fn runs(self, elf_machine: u16) -> bool {
        MACHINES.iter().any(|m| m.0 == self && m.2.contains(&elf_machine))
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MACHINES.iter().find(|m| m.0 == *self).map_or("", |m| m.1))
    }
}

/// What the start of a file says of how it is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program<'a> {
    /// An ELF program, and where its program headers are: offset, size of each, how many.
    Elf {
        /// `e_machine`.
        machine: u16,
        /// 64-bit layout.
        wide: bool,
        /// Offset of the program headers in the file.
        headers: u64,
        /// Size of one, in bytes.
        size: u16,
        /// How many.
        count: u16,
        /// Address of the first instruction.
        entry: u64,
    },
    /// A script and the interpreter that its first line names.
    Script(&'a str),
    /// Neither.
    Unknown,
}

impl<'a> Program<'a> {
    /// Looks at the first bytes of a file; 256 of them are enough.
    pub fn of(start: &'a [u8]) -> Self {
        if let Some(line) = start.strip_prefix(b"#!") {
            let line = line.split(|&b| b == b'\n' || b == 0).next().unwrap_or(line);
            let text = core::str::from_utf8(line).unwrap_or("");
            return text.split_ascii_whitespace().next().map_or(Program::Unknown, Program::Script);
        }
        // Little-endian only: all the machines here are.
        if !start.starts_with(b"\x7FELF") || bytes::<1>(start, 5) != [1] {
            return Program::Unknown;
        }
        let machine = le16(start, 18);
        match bytes(start, 4) {
            [1] => Program::Elf {
                machine,
                wide: false,
                headers: u64::from(le32(start, 28)),
                size: le16(start, 42),
                count: le16(start, 44),
                entry: u64::from(le32(start, 24)),
            },
            [2] => Program::Elf {
                machine,
                wide: true,
                headers: le64(start, 32),
                size: le16(start, 54),
                count: le16(start, 56),
                entry: le64(start, 24),
            },
            _ => Program::Unknown,
        }
    }
}

/// What matters here of a program header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// It is mapped into memory (`PT_LOAD`).
    pub loaded: bool,
    /// It holds the interpreter's name (`PT_INTERP`).
    pub interpreter: bool,
    /// Where its bytes are in the file.
    pub offset: u64,
    /// How many bytes it has in the file.
    pub length: u64,
    /// Where it is mapped.
    pub address: u64,
    /// How many bytes it has in memory.
    pub memory: u64,
}

impl Segment {
    /// Reads a program header.
    pub fn of(header: &[u8; 56], wide: bool) -> Self {
        let kind = le32(header, 0);
        // Offset, address, length in the file, length in memory.
        let word = |narrow, long| if wide { le64(header, long) } else { u64::from(le32(header, narrow)) };
        Segment {
            loaded: kind == 1,
            interpreter: kind == 3,
            offset: word(4, 8),
            address: word(8, 16),
            length: word(16, 32),
            memory: word(20, 40),
        }
    }

    /// Whether an address is in it.
    pub fn holds(&self, address: u64) -> bool {
        self.loaded && address.checked_sub(self.address).is_some_and(|at| at < self.memory)
    }
}
