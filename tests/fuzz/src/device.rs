//! What comes from disks: superblocks, partition tables, the ledger; and the variant in `/run`.

use bootward::block::ReadAt;
use bootward::block::partition::partition as find_partition;
use bootward::block::superblock::probe;
use bootward::ledger::{DeploymentId, Kind, RECORD_SIZE, Record, Ring};
use bootward::mounts::booted::Booted;
use bootward::storage::Medium;

/// The input stands at the start, the second half of it at 64 KiB as well; zeros elsewhere, up to 1 MiB.
struct Sparse<'a>(&'a [u8]);

const SIZE: u64 = 1 << 20;

impl ReadAt for Sparse<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Option<()> {
        if offset.checked_add(buffer.len() as u64)? > SIZE {
            return None;
        }
        for (at, byte) in (offset..).zip(buffer) {
            let far = at.checked_sub(1 << 16).map(|at| at as usize + self.0.len() / 2);
            *byte = self.0.get(far.unwrap_or(at as usize)).copied().unwrap_or(0);
        }
        Some(())
    }
}

fn is_uuid(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// Found or not, the same twice; of a short device too; the UUID is one.
pub fn superblock(data: &[u8]) {
    for device in [&Sparse(data) as &dyn ReadAt, &data] {
        let found = probe(device);
        assert_eq!(found, probe(device));
        if let Some(found) = found {
            assert!(
                ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "erofs", "squashfs", "vfat"]
                    .contains(&found.kind)
            );
            assert!(is_uuid(&found.uuid), "{found:?}");
        }
    }
}

/// No table, however it is linked, takes long or names what is no UUID. The GPT's checksums are put right.
pub fn partition(data: &[u8]) {
    let [flags, rest @ ..] = data else { return };
    let mut disk = rest.to_vec();
    if flags & 1 != 0 && disk.len() >= 1024 {
        disk[512..520].copy_from_slice(b"EFI PART");
        disk[536..544].copy_from_slice(&1u64.to_le_bytes());
        disk[524..528].copy_from_slice(&92u32.to_le_bytes());
        if flags & 2 != 0 {
            disk[584..592].copy_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0]);
            disk[592..600].copy_from_slice(&[4, 0, 0, 0, 128, 0, 0, 0]);
        }
        let number = |at: usize| u32::from_le_bytes(disk[at..at + 4].try_into().unwrap());
        let (start, length) = (u64::from(number(584)) * 512, u64::from(number(592)) * u64::from(number(596)));
        if length <= 1 << 16 {
            let mut entries = vec![0; length as usize];
            if Sparse(&disk).read_at(start, &mut entries).is_some() {
                disk[600..604].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
            }
        }
        disk[528..532].fill(0);
        let crc = crc32fast::hash(&disk[512..604]);
        disk[528..532].copy_from_slice(&crc.to_le_bytes());
    }
    let disk = Sparse(&disk);
    let sector = [512, 4096, 0, 1 << 31][usize::from(flags >> 6)];
    for number in [0, 1, 2, 3, 4, 5, 6, 100, u32::MAX] {
        for size in [SIZE, 0, u64::MAX] {
            let found = find_partition(&disk, sector, size, number);
            assert!(number != 0 || found.is_none());
            assert!(found.is_none_or(|found| is_uuid(&found.uuid)));
        }
    }
}

/// What is read is written and read again; a ring over any bytes opens, takes records and shows them.
pub fn ledger_record(data: &[u8]) {
    let mut disk = data[..data.len() - data.len() % RECORD_SIZE].to_vec();
    if data.len() > disk.len() || disk.is_empty() {
        disk.extend_from_slice(&data[disk.len()..]);
        disk.resize(disk.len().next_multiple_of(RECORD_SIZE), 0);
    }
    for sector in disk.as_chunks_mut::<RECORD_SIZE>().0 {
        let raw = Record::parse(sector);
        let crc = crc32fast::hash(&sector[..RECORD_SIZE - 4]);
        assert!(raw.is_none() || sector[RECORD_SIZE - 4..] == crc.to_le_bytes());
        if sector[..4] != [0; 4] {
            sector[..4].copy_from_slice(b"BWL1");
        }
        let crc = crc32fast::hash(&sector[..RECORD_SIZE - 4]);
        sector[RECORD_SIZE - 4..].copy_from_slice(&crc.to_le_bytes());
        if let Some(record) = Record::parse(sector) {
            let emitted = record.emit();
            assert_eq!(Record::parse(&emitted), Some(record));
        }
    }
    let slots = disk.len() / RECORD_SIZE;
    let mut ring = Ring::open(Memory(disk)).unwrap();
    let mut newest = 0;
    ring.each(|record| {
        assert!(record.sequence >= newest);
        newest = record.sequence;
    })
    .unwrap();
    // Sequence numbers do not wrap: no device boots so often.
    if slots == 0 || newest > u64::MAX - 2 {
        return;
    }
    let id = DeploymentId { commit: [0xA5; 32], serial: 9 };
    let text = bootward::ledger::record::clip("tried");
    let kind = Kind::Attempt;
    let mut records = [Record { kind, sequence: 0, time: 1, uptime: 2, deployment: id, boot: [3; 16], text }];
    ring.append(&mut records).unwrap();
    assert!(ring.history(&id).unwrap().unconfirmed >= 1);
    let mut ring = Ring::open(ring.into_medium()).unwrap();
    let mut last = None;
    ring.each(|record| last = Some(record.clone())).unwrap();
    assert_eq!(last.as_ref(), records.first());
}

struct Memory(Vec<u8>);

impl Medium for Memory {
    type Error = &'static str;

    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error> {
        let range = offset as usize..offset as usize + buffer.len();
        buffer.copy_from_slice(self.0.get(range).ok_or("read past the end")?);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Self::Error> {
        let range = offset as usize..offset as usize + data.len();
        self.0.get_mut(range).ok_or("write past the end")?.copy_from_slice(data);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// What is read from any variant is written and read again.
pub fn gvariant(data: &[u8]) {
    let read = Booted::from_bytes(data);
    // Written together or not at all.
    let booted = Booted { composefs_verity: read.composefs && read.composefs_verity, ..read };
    assert_eq!(Booted::from_bytes(&booted.to_bytes()), booted);
}
