//! What a technician is told: why the device is here, what was tried, and why each attempt failed.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// One deployment and what became of it.
#[derive(Clone, Debug, Default)]
pub struct Chapter {
    /// Stateroot, commit and version, short enough for a serial line.
    pub name: String,
    /// Why it does not boot.
    pub why: String,
}

/// The whole story.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// Why recovery began.
    pub reason: String,
    /// The deployments in boot order.
    pub deployments: Vec<Chapter>,
    /// What else was noticed: the environment's state, links out of step.
    pub notes: Vec<String>,
}

impl Story {
    /// Tells it line by line.
    pub fn tell(&self, line: &mut dyn FnMut(&str)) {
        line("");
        line(&format!("bootward: recovery: {}", self.reason));
        if self.deployments.is_empty() {
            line("bootward:   no deployment was found");
        }
        for (index, chapter) in self.deployments.iter().enumerate() {
            line(&format!("bootward:   {index}: {}: {}", chapter.name, chapter.why));
        }
        for note in &self.notes {
            line(&format!("bootward:   note: {note}"));
        }
    }

    /// What happens next if nobody does anything.
    pub fn closing(&self, reboot_after: u32) -> String {
        match reboot_after {
            0 => "bootward: waiting for you; 'help' lists what can be typed".to_string(),
            seconds => {
                format!(
                    "bootward: restarting in {seconds} s unless something is typed; 'help' lists what can be"
                )
            }
        }
    }
}
