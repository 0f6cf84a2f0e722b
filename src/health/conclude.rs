//! What follows from a verdict: the boot is confirmed or rejected.

use std::path::Path;

use crate::trial::act::{Site, Verb, act};

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conclusion {
    /// This boot is good: the trial ends.
    Confirm,
    /// This boot is bad: the deployment is not booted again.
    Reject,
}

impl Conclusion {
    /// One word for people and for `--json`.
    pub fn word(self) -> &'static str {
        match self {
            Conclusion::Confirm => "confirm",
            Conclusion::Reject => "reject",
        }
    }
}

/// Carries a conclusion out on the running system, or on an image; `reason` is what the checks said. The one place where
/// health checks meet the boot state.
///
/// # Errors
/// A sentence for the log, when it could not be carried out.
pub fn conclude(conclusion: Conclusion, image: Option<&Path>, reason: &str) -> Result<(), String> {
    let verb = match conclusion {
        Conclusion::Confirm => Verb::Confirm,
        Conclusion::Reject => Verb::Reject(reason.into()),
    };
    let report = act(&Site::of(image), &verb, false).map_err(|e| e.to_string())?;
    report.said.iter().for_each(|said| log::info!("{said}"));
    Ok(())
}
