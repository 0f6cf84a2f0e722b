//! What can be typed at the recovery prompt. There is no way to a shell.

use core::fmt;

/// What `help` prints.
pub const HELP: [&str; 7] = [
    "  status     what is on the disk, what was tried, why it failed",
    "  log        what the boot ledger remembers",
    "  boot N     try deployment N once more",
    "  retry      look for the root and at the deployments again",
    "  reboot     restart the device",
    "  poweroff   switch it off",
    "  help       this list",
];

/// One thing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// An empty line.
    Nothing,
    /// Print what can be typed.
    Help,
    /// Tell the story again.
    Status,
    /// Print the ledger.
    Log,
    /// Try a deployment.
    Boot(usize),
    /// Start over.
    Retry,
    /// Restart.
    Reboot,
    /// Switch off.
    PowerOff,
}

/// Why a line was not understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    /// No such command.
    Unknown,
    /// `boot` needs the number of one of the listed deployments; how many there are.
    Which(usize),
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mistake::Unknown => f.write_str("not a command; 'help' lists them"),
            Mistake::Which(0) => f.write_str("there is no deployment to boot"),
            Mistake::Which(count) => write!(f, "which one? 'boot N' with N from 0 to {}", count - 1),
        }
    }
}

/// Reads one line. Letters may be upper or lower case; anything unprintable is no command.
///
/// # Errors
/// When it is no command, or names a deployment that is not in the list of `deployments`.
pub fn parse(line: &str, deployments: usize) -> Result<Command, Mistake> {
    let mut words = line.split_ascii_whitespace();
    let Some(verb) = words.next() else { return Ok(Command::Nothing) };
    let argument = words.next();
    if words.next().is_some() {
        return Err(Mistake::Unknown);
    }
    if verb.eq_ignore_ascii_case("boot") {
        let index = argument.and_then(|a| a.parse().ok()).filter(|&i| i < deployments);
        return index.map(Command::Boot).ok_or(Mistake::Which(deployments));
    }
    let plain = [
        ("help", Command::Help),
        ("?", Command::Help),
        ("status", Command::Status),
        ("log", Command::Log),
        ("retry", Command::Retry),
        ("reboot", Command::Reboot),
        ("poweroff", Command::PowerOff),
    ];
    let found = plain.iter().find(|(name, _)| argument.is_none() && verb.eq_ignore_ascii_case(name));
    found.map(|f| f.1).ok_or(Mistake::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let cases: [(&str, Result<Command, Mistake>); 14] = [
            ("", Ok(Command::Nothing)),
            ("  \t ", Ok(Command::Nothing)),
            ("help", Ok(Command::Help)),
            ("Status", Ok(Command::Status)),
            (" log ", Ok(Command::Log)),
            ("boot 0", Ok(Command::Boot(0))),
            ("boot 1", Ok(Command::Boot(1))),
            ("boot 2", Err(Mistake::Which(2))),
            ("boot", Err(Mistake::Which(2))),
            ("boot -1", Err(Mistake::Which(2))),
            ("boot 99999999999999999999", Err(Mistake::Which(2))),
            ("reboot now", Err(Mistake::Unknown)),
            ("sh", Err(Mistake::Unknown)),
            ("boot 0 0", Err(Mistake::Unknown)),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(line, 2), expected, "{line:?}");
        }
    }

    #[test]
    fn every_command_of_the_help_is_one() {
        for line in HELP {
            let verb = line.split_whitespace().next().unwrap();
            let typed = if verb == "boot" { "boot 0" } else { verb };
            assert!(parse(typed, 1).is_ok(), "{line}");
        }
    }
}
