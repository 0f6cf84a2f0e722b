//! The power goes every few seconds of a slow download: it ends all the same, and little is sent twice.

use std::time::{Duration, Instant};

use super::recovery::{DESTROYED, Device, RECOVERS, ethernet, is_clean, looks_around, published};
use super::scenes::BOOT;
use super::vm::patience;
use super::web::{Manner, Web};
use super::{Fault, Outcome};

/// Bytes a second of each of two connections.
const RATE: u64 = 30_000;
/// So many bytes come, then the power goes.
const BETWEEN_CUTS: u64 = 500_000;

/// A cut costs what came in the second before it, and what was on its way; the rest is for a machine that is slow itself.
const COST: u64 = 4;

/// See the module.
///
/// # Errors
/// When anything else happens.
pub fn power_cuts() -> Outcome<String> {
    let published = published("recovery-cuts-published")?;
    let web = Web::start(&published.repo)?;
    let device = Device {
        name: "recovery-cuts",
        published: &published,
        damage: DESTROYED,
        modules: &["virtio_net"],
        config: format!("urls = [\"{}\"]\n", web.url()),
        extra: ethernet(),
    };
    let setup = device.setup()?;
    web.set(Manner::Slow(RATE));
    let mut cuts = 0u32;
    let mut vm = loop {
        let mut vm = setup.start()?;
        vm.expect("no deployment is bootable", BOOT)?;
        let (before, began) = (web.bytes(), Instant::now());
        while web.bytes() - before < BETWEEN_CUTS && !vm.has("[os] up: 3") {
            if began.elapsed() > patience(2 * RECOVERS) {
                return Err(vm.failure(&format!("not recovered after {cuts} power cuts")));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        if vm.has("[os] up: 3") {
            break vm;
        }
        cuts += 1;
    };
    vm.expect("[os] up: 3", RECOVERS)?;
    looks_around(&mut vm, &["eth0: fetched "])?;
    is_clean(device.name, &setup.disks, &published.commit)?;
    let (sent, whole) = (web.take().bytes, published.bytes()?);
    if cuts < 3 || sent > whole + u64::from(cuts) * 2 * RATE * patience(COST).as_secs() {
        return Err(Fault::new(format!("{cuts} cuts, {sent} bytes were sent for a commit of {whole}")));
    }
    Ok(format!("{cuts} power cuts during the download: {} kB were sent for {} kB", sent / 1000, whole / 1000))
}
