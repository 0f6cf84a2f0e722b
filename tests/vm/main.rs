//! Real kernels, real sysroots, a real serial console: see `lab`. `tests/vm/setup` must have run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "how a test fails; clippy knows this of #[test] functions only"
)]

#[allow(dead_code, reason = "the demo uses all of it")]
mod lab;
mod units;

fn plays(name: &str) {
    match lab::scenes::named(name).and_then(|scene| scene.play(false)) {
        Ok(happened) => println!("{name}: {happened}"),
        Err(fault) => panic!("{name}: {fault}"),
    }
}

mod tour {
    use super::plays;

    #[test]
    fn normal() {
        plays("normal");
    }

    #[test]
    fn rollback() {
        plays("rollback");
    }

    #[test]
    fn bootcount() {
        plays("bootcount");
    }

    #[test]
    fn broken_first() {
        plays("broken-first");
    }

    #[test]
    fn damaged() {
        plays("damaged");
    }

    #[test]
    fn broken_all() {
        plays("broken-all");
    }

    #[test]
    fn power_cut() {
        plays("power-cut");
    }
}

/// Plays every scene of a table, two at a time, and tells of all that went wrong.
fn all_play<S: Sync>(scenes: &[S], play: impl Fn(&S) -> (&str, lab::Outcome<String>) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let faults = std::sync::Mutex::new(Vec::new());
    let work = || {
        while let Some(scene) = scenes.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            match play(scene) {
                (name, Ok(happened)) => println!("{name}: {happened}"),
                (name, Err(fault)) => faults.lock().unwrap().push(format!("{name}: {fault}")),
            }
        }
    };
    std::thread::scope(|threads| {
        threads.spawn(work);
        threads.spawn(work);
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{} of {} failed:\n{}", faults.len(), scenes.len(), faults.join("\n\n"));
}

#[test]
fn another_kernel_is_started_by_kexec() {
    match lab::kexec::play() {
        Ok(happened) => println!("kexec: {happened}"),
        Err(fault) => panic!("kexec: {fault}"),
    }
}

#[test]
fn every_broken_deployment_is_survived_and_explained() {
    all_play(&lab::breakages::DEPLOYMENTS, |scene| (scene.name, scene.play(false)));
}

#[test]
fn every_broken_environment_is_survived_and_explained() {
    all_play(&lab::breakages::ENVIRONMENTS, |scene| (scene.name, scene.play(false)));
}

fn happens(outcome: lab::Outcome<String>) {
    match outcome {
        Ok(happened) => println!("{happened}"),
        Err(fault) => panic!("{fault}"),
    }
}

#[test]
fn the_watchdog_is_handed_over_armed() {
    happens(lab::hardware::watchdog());
}

#[test]
fn a_root_that_never_comes_ends_in_recovery_and_a_timed_restart() {
    happens(lab::hardware::missing_root());
}

#[test]
fn the_console_answers_and_boots_what_is_chosen() {
    happens(lab::hardware::console());
}

#[test]
fn a_read_only_root_keeps_its_ledger() {
    happens(lab::hardware::read_only_root());
}

#[test]
fn the_boot_partition_is_read_and_let_go() {
    happens(lab::hardware::boot_partition());
}

#[test]
fn the_environment_in_flash_is_shared_with_fw_setenv() {
    happens(lab::flash::play());
}

/// Nothing boots, nobody is there, and the device heals itself.
mod recovery {
    use super::{
        happens,
        lab::{recovery, recovery_cuts, troubles},
    };

    #[test]
    fn over_ethernet() {
        happens(recovery::over_ethernet());
    }

    #[test]
    fn from_usb() {
        happens(recovery::from_usb());
    }

    #[test]
    fn from_nothing() {
        happens(recovery::from_nothing());
    }

    #[test]
    fn one_object() {
        happens(recovery::one_object());
    }

    #[test]
    fn over_https() {
        happens(recovery::over_https());
    }

    #[test]
    fn power_cuts() {
        happens(recovery_cuts::power_cuts());
    }

    #[test]
    fn over_ipv6() {
        happens(troubles::of_no_ipv4());
    }

    #[test]
    fn troubles_of_the_network() {
        happens(troubles::of_the_network());
    }

    #[test]
    fn troubles_of_the_server() {
        happens(troubles::of_the_server());
    }
}

/// The same without a cable.
mod recovery_over {
    use super::{happens, lab::wireless};

    #[test]
    fn wpa2() {
        happens(wireless::over_wpa2());
    }

    #[test]
    fn wpa3() {
        happens(wireless::over_wpa3());
    }

    #[test]
    fn air_with_evil_twins() {
        happens(wireless::evil_twins());
    }
}

/// Somebody is there.
mod console {
    use super::{happens, lab::console};

    #[test]
    fn every_action() {
        happens(console::every_action());
    }

    #[test]
    fn locked() {
        happens(console::locked());
    }

    #[test]
    fn drill() {
        happens(console::drill());
    }
}

/// Through real U-Boot, from power on.
mod uboot {
    use super::{all_play, lab::board::Uboot, lab::trials};

    fn play(trials: &[trials::Trial]) {
        all_play(trials, |trial| (trial.making.name, trial.play(false)));
    }

    #[test]
    fn counted_by_the_script_in_a_file() {
        play(&trials::shared(Uboot::Stock));
    }

    #[test]
    fn counted_by_the_script_in_a_file_by_a_newer_uboot() {
        play(&trials::some(Uboot::Newer));
    }

    #[test]
    fn counted_by_the_script_in_the_environment() {
        play(&trials::shared(Uboot::Saving));
    }

    #[test]
    fn counted_by_uboot() {
        play(&trials::shared(Uboot::Counting));
    }

    #[test]
    fn counted_by_uboot_in_nor_flash() {
        play(&trials::some(Uboot::Flash));
    }

    #[test]
    fn power_cuts_in_the_state() {
        for uboot in [Uboot::Stock, Uboot::Counting] {
            super::happens(super::lab::state_cuts::cuts(uboot));
        }
    }

    #[test]
    fn libostree_goes_on_after_our_clean_up() {
        play(&[trials::GOES_ON]);
    }

    #[test]
    fn bootward_deploys_through_uboot() {
        play(&trials::DEPLOYS);
    }

    #[test]
    fn entries_that_do_not_load_and_text_that_is_not_believed() {
        play(&trials::ENTRIES);
    }
}

#[test]
fn only_what_is_verified_boots() {
    match lab::trust::play() {
        Ok(happened) => happened.iter().for_each(|line| println!("{line}")),
        Err(fault) => panic!("{fault}"),
    }
}

#[test]
fn only_the_composefs_image_that_was_signed_boots() {
    match lab::verity::play() {
        Ok(happened) => happened.iter().for_each(|line| println!("{line}")),
        Err(fault) => panic!("{fault}"),
    }
}

#[test]
fn composefs_on_an_old_kernel() {
    happens(lab::verity::old_kernel());
}

#[test]
fn every_kind_of_network_is_joined_and_every_failure_told() {
    match lab::wifi::every_network() {
        Ok(happened) => happened.iter().for_each(|line| println!("{line}")),
        Err(fault) => panic!("{fault}"),
    }
}

#[test]
fn what_power_cuts_leave_boots_as_in_their_laboratory() {
    match lab::cuts::agree() {
        Ok(happened) => happened.iter().for_each(|line| println!("{line}")),
        Err(fault) => panic!("{fault}"),
    }
}

#[test]
fn debian() {
    let report = match lab::debian::boot() {
        Ok(report) => report,
        Err(fault) => panic!("{fault}"),
    };
    println!("{:#?}", report.lines);
    assert!(report.on("target").any(|line| line == "active"), "multi-user.target: {report:#?}");
    let running: Vec<&str> = report.on("running").collect();
    assert!(matches!(running.as_slice(), ["running"] | ["degraded"]), "is-system-running: {running:?}");
    let failed: Vec<&str> = report.on("failed").collect();
    assert!(failed.is_empty(), "failed units: {failed:?}");
    let commit = report.path.rsplit('/').next().unwrap_or_default();
    let booted = report.on("status").find(|line| line.starts_with("* "));
    assert!(
        booted.is_some_and(|line| !commit.is_empty() && line.contains(commit)),
        "ostree admin status names {booted:?}, the guardian handed over to {commit}"
    );
    assert!(report.on("usr-write").any(|line| line.contains("Read-only")), "/usr can be written");
    assert!(report.on("var-write").any(|line| line == "written"), "/var cannot be written");
}
