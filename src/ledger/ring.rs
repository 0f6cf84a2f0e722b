//! The ring: record number `n` stands in slot `n mod slots`, so the oldest is overwritten first.
//!
//! Every record is in one sector of its own and the ring has no header, so a power cut costs at most what
//! was being written and the records that it was to replace.

use crate::storage::Medium;

use super::history::History;
use super::record::{DeploymentId, RECORD_SIZE, Record};

/// More slots than this are not used (512 KiB).
pub const MAX_SLOTS: u64 = 1024;

/// Records read in one go while scanning.
const CHUNK: usize = 8;

/// An opened ring.
#[derive(Debug)]
pub struct Ring<M> {
    medium: M,
    slots: u64,
    newest: u64,
}

impl<M: Medium> Ring<M> {
    /// Opens the ring on a medium, whatever is on it: what is not a record counts as an empty slot.
    ///
    /// # Errors
    /// When the medium cannot be read.
    pub fn open(mut medium: M) -> Result<Self, M::Error> {
        let slots = (medium.len() / RECORD_SIZE as u64).min(MAX_SLOTS);
        let mut newest = 0;
        scan(&mut medium, slots, |record| newest = newest.max(record.sequence))?;
        Ok(Ring { medium, slots, newest })
    }

    /// Appends records and returns once they are durable. The sequence numbers are given here.
    ///
    /// # Errors
    /// When the medium refuses a write or the flush; what was to be recorded must be taken as lost.
    pub fn append(&mut self, records: &mut [Record]) -> Result<(), M::Error> {
        if self.slots == 0 {
            return Ok(());
        }
        for record in &mut *records {
            let sequence = self.newest.saturating_add(1);
            record.sequence = sequence;
            self.medium.write_at(sequence % self.slots * RECORD_SIZE as u64, &record.emit())?;
            self.newest = sequence;
        }
        self.medium.flush()
    }

    /// Shows every record, oldest first.
    ///
    /// # Errors
    /// When the medium cannot be read.
    pub fn each(&mut self, mut visit: impl FnMut(&Record)) -> Result<(), M::Error> {
        if self.slots == 0 {
            return Ok(());
        }
        let newest = self.newest;
        let oldest = newest.saturating_sub(self.slots - 1).max(1);
        // The slots in the order of their numbers: from the oldest one's to the end, then from the start.
        let first = oldest % self.slots;
        for (from, to) in [(first, self.slots), (0, first)] {
            span(&mut self.medium, self.slots, from, to, &mut |record| {
                if record.sequence >= oldest && record.sequence <= newest {
                    visit(record);
                }
            })?;
        }
        Ok(())
    }

    /// What the ledger knows of a deployment.
    ///
    /// # Errors
    /// When the medium cannot be read.
    pub fn history(&mut self, id: &DeploymentId) -> Result<History, M::Error> {
        let mut history = History::default();
        self.each(|record| {
            if record.deployment == *id {
                history.add(record.kind);
            }
        })?;
        Ok(history)
    }

    /// The medium, given back.
    pub fn into_medium(self) -> M {
        self.medium
    }
}

fn scan<M: Medium>(medium: &mut M, slots: u64, mut visit: impl FnMut(&Record)) -> Result<(), M::Error> {
    span(medium, slots, 0, slots, &mut visit)
}

/// Shows the valid records of the slots from `from` up to `to`.
fn span<M: Medium>(
    medium: &mut M,
    slots: u64,
    from: u64,
    to: u64,
    visit: &mut dyn FnMut(&Record),
) -> Result<(), M::Error> {
    let mut buffer = [0; CHUNK * RECORD_SIZE];
    let mut slot = from;
    while slot < to {
        let count = (to - slot).min(CHUNK as u64);
        let bytes = buffer.get_mut(..count as usize * RECORD_SIZE).unwrap_or(&mut []);
        medium.read_at(slot * RECORD_SIZE as u64, bytes)?;
        for (place, sector) in (slot..).zip(bytes.as_chunks::<RECORD_SIZE>().0) {
            // A record in another's slot is a stray copy, not history.
            if let Some(record) = Record::parse(sector).filter(|r| r.sequence % slots == place) {
                visit(&record);
            }
        }
        slot += count;
    }
    Ok(())
}
