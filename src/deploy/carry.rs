//! Everything that a deployment takes, in its order: the same on a device and in the tests.

use crate::arrange::carry::{Done, carry_out};
use crate::arrange::layout::Layout;
use crate::arrange::plan;
use crate::storage::{At, Trees};

use super::Fault;
use super::lay::{Laid, make, making, place};
use super::prepare::Prepared;

/// Holds what was made at a place against its commit.
pub type Judge<'a, E> = &'a mut dyn FnMut(&At) -> Result<(), Fault<E>>;

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deployed {
    /// What was made.
    pub laid: Laid,
    /// The bootloader sees the new entries, as [`Done`] has it.
    pub frozen: bool,
}

/// Makes the deployment, has it checked, and makes it the first one to boot. `check` is given the place where it was made.
///
/// # Errors
/// At the first thing that fails. [`Fault::swapped`] tells whether the new configuration counts.
pub fn carry<F: Trees>(
    files: &mut F,
    layout: &Layout,
    prepared: &Prepared,
    lock: bool,
    progress: &mut dyn FnMut(u64),
    check: Judge<'_, F::Error>,
) -> Result<Deployed, Fault<F::Error>> {
    let old = prepared.merge.and_then(|index| layout.entries.get(index)).map(|entry| entry.path());
    let laid = make(files, prepared, old.as_deref(), progress)?;
    check(&making())?;
    place(files, prepared, lock)?;
    let plan = plan::with_new(layout, &prepared.entry, &prepared.kept)?;
    let Done { frozen } = carry_out(files, &plan)?;
    Ok(Deployed { laid, frozen })
}
