//! One record: 512 bytes, little-endian, one disk sector, so that a torn sector costs one record.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `BWL1` |
//! | 4 | 1 | kind |
//! | 5 | 3 | zero |
//! | 8 | 8 | sequence number, from 1 |
//! | 16 | 8 | wall clock, seconds since 1970 (as the device believed it) |
//! | 24 | 4 | milliseconds since the kernel started |
//! | 28 | 4 | deploy serial |
//! | 32 | 32 | commit, zero where none is meant |
//! | 64 | 16 | boot id of the kernel |
//! | 80 | 2 | length of the text |
//! | 82 | 426 | text, UTF-8, zero-filled |
//! | 508 | 4 | CRC32 of the bytes before |

use core::fmt;

use heapless::String;

/// Size of a record in bytes.
pub const RECORD_SIZE: usize = 512;
/// The longest text in bytes; longer ones are cut at a character.
pub const TEXT_MAX: usize = 426;

const MAGIC: [u8; 4] = *b"BWL1";
const CRC_AT: usize = RECORD_SIZE - 4;
const TEXT_AT: usize = 82;

/// What a record tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A deployment is about to be booted.
    Attempt,
    /// An attempt failed before the hand-over.
    Failed,
    /// A deployment was passed over as broken.
    Skipped,
    /// The OS found itself healthy.
    Confirmed,
    /// The OS found itself unhealthy.
    Rejected,
    /// The bootloader was asked for its second entry.
    LoaderAsked,
    /// Recovery began.
    Recovery,
    /// Something worth knowing about this boot.
    Note,
    /// The list of deployments was changed from the OS.
    Changed,
    /// The last attempt ended because the power went, as the platform tells it.
    PowerLost,
    /// The health checks of a boot passed.
    CheckPassed,
    /// A required health check of a boot failed.
    CheckFailed,
    /// A fire drill of recovery began.
    #[cfg(feature = "recovery")]
    DrillBegan,
    /// It showed that recovery would work.
    #[cfg(feature = "recovery")]
    DrillPassed,
    /// It showed that recovery would not.
    #[cfg(feature = "recovery")]
    DrillFailed,
    /// Something that a newer version wrote: after a rollback an older one reads the ledger. It keeps its place and
    /// counts for nothing.
    Unknown(u8),
}

const KINDS: &[(Kind, u8, &str)] = &[
    (Kind::Attempt, 1, "attempt"),
    (Kind::Failed, 2, "failed"),
    (Kind::Skipped, 3, "skipped"),
    (Kind::Confirmed, 4, "confirmed"),
    (Kind::Rejected, 5, "rejected"),
    (Kind::LoaderAsked, 6, "loader-asked"),
    (Kind::Recovery, 7, "recovery"),
    (Kind::Note, 8, "note"),
    (Kind::Changed, 16, "changed"),
    (Kind::PowerLost, 17, "power-lost"),
    (Kind::CheckPassed, 32, "check-passed"),
    (Kind::CheckFailed, 33, "check-failed"),
    #[cfg(feature = "recovery")]
    (Kind::DrillBegan, 48, "drill-began"),
    #[cfg(feature = "recovery")]
    (Kind::DrillPassed, 49, "drill-passed"),
    #[cfg(feature = "recovery")]
    (Kind::DrillFailed, 50, "drill-failed"),
];

impl Kind {
    /// One word, as `bootward log --json` prints it.
    pub fn word(self) -> &'static str {
        KINDS.iter().find(|k| k.0 == self).map_or("unknown", |k| k.2)
    }
}

/// Which deployment: its commit and deploy serial, as in the name of its directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeploymentId {
    /// The commit's checksum.
    pub commit: [u8; 32],
    /// The deploy serial.
    pub serial: u32,
}

impl DeploymentId {
    /// From 64 lower-case hexadecimal digits and the deploy serial.
    pub fn parse(commit: &str, serial: u32) -> Option<Self> {
        let mut bytes = [0; 32];
        if commit.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(commit.as_bytes().chunks_exact(2)) {
            let digits = core::str::from_utf8(pair).ok()?;
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(DeploymentId { commit: bytes, serial })
    }

    /// Stands for no deployment.
    pub fn is_none(&self) -> bool {
        self.commit == [0; 32]
    }
}

impl fmt::Display for DeploymentId {
    /// Short enough for a serial line: the first ten digits and the serial.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.commit.iter().take(5) {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ".{}", self.serial)
    }
}

/// One line of the device's history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// What happened.
    pub kind: Kind,
    /// Counts up by one a record; given by the ring when the record is appended.
    pub sequence: u64,
    /// Seconds since 1970, as the device believed it.
    pub time: i64,
    /// Milliseconds since the kernel started.
    pub uptime: u32,
    /// The deployment that it is about; [`DeploymentId::default`] where there is none.
    pub deployment: DeploymentId,
    /// The kernel's boot id: records of one boot share it.
    pub boot: [u8; 16],
    /// Why, in a sentence.
    pub text: String<TEXT_MAX>,
}

/// As much of `text` as fits in `N` bytes, cut at a character.
pub fn clip<const N: usize>(text: &str) -> String<N> {
    let mut out = String::new();
    for c in text.chars() {
        if out.push(c).is_err() {
            break;
        }
    }
    out
}

impl Record {
    /// The record as it stands on disk.
    pub fn emit(&self) -> [u8; RECORD_SIZE] {
        let mut out = [0; RECORD_SIZE];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            for (to, from) in out.iter_mut().skip(at).zip(bytes) {
                *to = *from;
            }
            at += bytes.len();
        };
        let kind = match self.kind {
            Kind::Unknown(code) => code,
            known => KINDS.iter().find(|k| k.0 == known).map_or(0, |k| k.1),
        };
        put(&MAGIC);
        put(&[kind, 0, 0, 0]);
        put(&self.sequence.to_le_bytes());
        put(&self.time.to_le_bytes());
        put(&self.uptime.to_le_bytes());
        put(&self.deployment.serial.to_le_bytes());
        put(&self.deployment.commit);
        put(&self.boot);
        put(&(self.text.len() as u16).to_le_bytes());
        put(self.text.as_bytes());
        let crc = out.first_chunk::<CRC_AT>().map_or(0, |body| crc32fast::hash(body));
        if let Some(tail) = out.last_chunk_mut::<4>() {
            *tail = crc.to_le_bytes();
        }
        out
    }

    /// Reads a record; `None` for anything that is not wholly one: never written, torn, or damaged.
    pub fn parse(bytes: &[u8; RECORD_SIZE]) -> Option<Self> {
        let body = bytes.first_chunk::<CRC_AT>()?;
        let crc = u32::from_le_bytes(*bytes.last_chunk()?);
        if body.first_chunk() != Some(&MAGIC) || crc32fast::hash(body) != crc {
            return None;
        }
        let code = *body.get(4)?;
        let kind = KINDS.iter().find(|k| k.1 == code).map_or(Kind::Unknown(code), |k| k.0);
        let length = usize::from(u16::from_le_bytes(*array(body, 80)?));
        let text = body.get(TEXT_AT..TEXT_AT.checked_add(length)?)?;
        Some(Record {
            kind,
            sequence: u64::from_le_bytes(*array(body, 8)?),
            time: i64::from_le_bytes(*array(body, 16)?),
            uptime: u32::from_le_bytes(*array(body, 24)?),
            deployment: DeploymentId {
                serial: u32::from_le_bytes(*array(body, 28)?),
                commit: *array(body, 32)?,
            },
            boot: *array(body, 64)?,
            text: clip(core::str::from_utf8(text).ok()?),
        })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(text: &str) -> Record {
        Record {
            kind: Kind::Failed,
            sequence: 0x0102_0304_0506_0708,
            time: -3,
            uptime: 77,
            deployment: DeploymentId::parse(&"ab".repeat(32), 4).unwrap(),
            boot: [9; 16],
            text: clip(text),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for text in ["", "no usr directory", "ümläut — ☃", &"x".repeat(TEXT_MAX)] {
            let record = sample(text);
            assert_eq!(Record::parse(&record.emit()).as_ref(), Some(&record));
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let bytes = sample("hi").emit();
        assert_eq!(&bytes[..8], b"BWL1\x02\0\0\0");
        assert_eq!(bytes[8..16], 0x0102_0304_0506_0708u64.to_le_bytes());
        assert_eq!(bytes[28..32], [4, 0, 0, 0]);
        assert_eq!(bytes[32..64], [0xab; 32]);
        assert_eq!(&bytes[80..84], b"\x02\0hi");
        assert!(bytes[84..508].iter().all(|&b| b == 0));
    }

    /// A ledger outlives the versions that write it.
    #[test]
    fn the_numbers_of_the_kinds_never_change() {
        let told: alloc::vec::Vec<_> = KINDS.iter().map(|(_, code, word)| (*code, *word)).collect();
        let golden = [
            (1, "attempt"),
            (2, "failed"),
            (3, "skipped"),
            (4, "confirmed"),
            (5, "rejected"),
            (6, "loader-asked"),
            (7, "recovery"),
            (8, "note"),
            (16, "changed"),
            (17, "power-lost"),
            (32, "check-passed"),
            (33, "check-failed"),
            #[cfg(feature = "recovery")]
            (48, "drill-began"),
            #[cfg(feature = "recovery")]
            (49, "drill-passed"),
            #[cfg(feature = "recovery")]
            (50, "drill-failed"),
        ];
        assert_eq!(told, golden);
    }

    #[test]
    fn a_failed_check_on_disk() {
        let bytes =
            Record { kind: Kind::CheckFailed, ..sample("required 10_app.sh failed: exit code 3") }.emit();
        assert_eq!(&bytes[..8], b"BWL1\x21\0\0\0");
        assert_eq!(&bytes[80..92], b"\x26\0required 1");
        assert_eq!(u32::from_le_bytes(bytes[508..].try_into().unwrap()), 0xd4903db7);
    }

    #[test]
    fn a_kind_from_the_future_is_a_record() {
        let mut bytes = sample("from the future").emit();
        bytes[4] = 0xEE;
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        let record = Record::parse(&bytes).unwrap();
        assert_eq!((record.kind, record.kind.word()), (Kind::Unknown(0xEE), "unknown"));
        assert_eq!(record.emit(), bytes);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let good = sample("some text").emit();
        for at in 0..RECORD_SIZE {
            for flip in [1, 0x80, 0xFF] {
                let mut bad = good;
                bad[at] ^= flip;
                assert_eq!(Record::parse(&bad), None, "byte {at}");
            }
        }
    }

    #[test]
    fn blank_sectors_are_no_records() {
        assert_eq!(Record::parse(&[0; RECORD_SIZE]), None);
        assert_eq!(Record::parse(&[0xFF; RECORD_SIZE]), None);
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let record = sample(&"é".repeat(300));
        assert_eq!(record.text.chars().count(), TEXT_MAX / 2);
    }
}
