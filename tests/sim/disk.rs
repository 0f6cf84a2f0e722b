//! A disk that loses power: it records writes and flushes, and lists every state that a cut could leave.

use bootward::storage::Medium;

/// A sector is written wholly or not at all in the fault model F3.
pub const SECTOR: usize = 512;

/// One thing that the code under test did to the disk.
#[derive(Clone, Debug)]
pub enum Step {
    /// Bytes written at an offset.
    Write(u64, Vec<u8>),
    /// Everything before is durable.
    Flush,
}

/// A medium in memory that remembers how it came to its present state.
#[derive(Clone)]
pub struct Disk {
    start: Vec<u8>,
    now: Vec<u8>,
    /// What was done since the start, in order.
    pub steps: Vec<Step>,
    /// When set, flushes succeed but are not recorded: the mutant that proves the harness has teeth.
    pub lying_flush: bool,
    /// Fails the operation (read, write or flush) with this index.
    pub fail_at: Option<usize>,
    operations: usize,
}

/// The failure that [`Disk::fail_at`] injects, or an access outside the disk.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// Asked for by the test.
    Injected,
    /// Outside the medium.
    Range,
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Fault::Injected => "injected failure",
            Fault::Range => "outside the medium",
        })
    }
}

impl Disk {
    /// A disk that holds `content`, all of it durable.
    pub fn new(content: Vec<u8>) -> Self {
        Disk {
            now: content.clone(),
            start: content,
            steps: Vec::new(),
            lying_flush: false,
            fail_at: None,
            operations: 0,
        }
    }

    /// What a reader without a power cut sees.
    pub fn content(&self) -> &[u8] {
        &self.now
    }

    /// Makes the present state the durable start and forgets the steps.
    pub fn settle(&mut self) {
        self.start = self.now.clone();
        self.steps.clear();
    }

    fn operation(&mut self) -> Result<(), Fault> {
        let index = self.operations;
        self.operations += 1;
        if self.fail_at == Some(index) { Err(Fault::Injected) } else { Ok(()) }
    }

    /// How many operations were asked for so far.
    pub fn operations(&self) -> usize {
        self.operations
    }

    /// Every state that a power cut could leave (fault models F2 and F3 and, harsher, a cut inside a sector):
    ///
    /// * each write cut after each of its bytes, the bytes before in place;
    /// * for the writes since the last flush, every subset of them, up to 10 pending;
    /// * for each pending write, every subset of its sectors, up to 10 sectors;
    /// * each sector of a pending write zeroed or filled with 0xFF, as flash does.
    ///
    /// `visit` gets a name that replays the state, and the image.
    pub fn cuts(&self, mut visit: impl FnMut(&str, &[u8])) -> usize {
        let mut durable = self.start.clone();
        let mut pending: Vec<(u64, &[u8])> = Vec::new();
        let mut states = 0;
        let mut show = |name: String, image: &[u8]| {
            states += 1;
            visit(&name, image);
        };
        for (index, step) in self.steps.iter().enumerate() {
            match step {
                Step::Flush => {
                    for (offset, data) in pending.drain(..) {
                        put(&mut durable, offset, data);
                    }
                    show(format!("after-flush-{index}"), &durable);
                }
                Step::Write(offset, data) => {
                    let mut base = durable.clone();
                    for (o, d) in &pending {
                        put(&mut base, *o, d);
                    }
                    for cut in 0..=data.len() {
                        let mut image = base.clone();
                        put(&mut image, *offset, &data[..cut]);
                        show(format!("write-{index}-byte-{cut}"), &image);
                    }
                    let sectors = data.len().div_ceil(SECTOR);
                    let subsets: Vec<u64> =
                        if sectors <= 10 { (0..1u64 << sectors).collect() } else { Vec::new() };
                    for subset in subsets {
                        let mut image = base.clone();
                        for s in (0..sectors).filter(|s| subset >> s & 1 == 1) {
                            let end = data.len().min((s + 1) * SECTOR);
                            put(&mut image, offset + (s * SECTOR) as u64, &data[s * SECTOR..end]);
                        }
                        show(format!("write-{index}-sectors-{subset:b}"), &image);
                    }
                    for s in 0..sectors {
                        for fill in [0u8, 0xFF] {
                            let mut image = base.clone();
                            put(&mut image, *offset, data);
                            let end = data.len().min((s + 1) * SECTOR);
                            image[*offset as usize + s * SECTOR..*offset as usize + end].fill(fill);
                            show(format!("write-{index}-sector-{s}-fill-{fill:02x}"), &image);
                        }
                    }
                    pending.push((*offset, data));
                    if pending.len() <= 10 {
                        for subset in 0..1u32 << pending.len() {
                            let mut image = durable.clone();
                            for (_, (o, d)) in
                                pending.iter().enumerate().filter(|(i, _)| subset >> i & 1 == 1)
                            {
                                put(&mut image, *o, d);
                            }
                            show(format!("write-{index}-subset-{subset:b}"), &image);
                        }
                    }
                }
            }
        }
        states
    }
}

fn put(image: &mut [u8], offset: u64, data: &[u8]) {
    image[offset as usize..offset as usize + data.len()].copy_from_slice(data);
}

impl Medium for Disk {
    type Error = Fault;

    fn len(&self) -> u64 {
        self.now.len() as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Fault> {
        self.operation()?;
        let end = offset as usize + buffer.len();
        buffer.copy_from_slice(self.now.get(offset as usize..end).ok_or(Fault::Range)?);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Fault> {
        self.operation()?;
        let end = offset as usize + data.len();
        self.now.get_mut(offset as usize..end).ok_or(Fault::Range)?.copy_from_slice(data);
        self.steps.push(Step::Write(offset, data.to_vec()));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.operation()?;
        if !self.lying_flush {
            self.steps.push(Step::Flush);
        }
        Ok(())
    }
}
