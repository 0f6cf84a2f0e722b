//! The numbered actions.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::menu::{Command, Mistake, parse};

/// Lines that [`lines`] makes at most.
pub const LINES: usize = 5;
/// Actions below each other; the columns are as wide as `WIDTH`.
const HEIGHT: usize = 4;
const WIDTH: usize = 26;

/// What can be chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Try a deployment.
    Boot,
    /// Begin a round now.
    Recover,
    /// Choose a network, and type its passphrase.
    Network,
    /// Fetch another commit.
    Commit,
    /// Look for a stick or card.
    Medium,
    /// Verify and repair what is here.
    Repair,
    /// Show the ledger.
    Ledger,
    /// Show the kernel's log.
    KernelLog,
    /// Restart.
    Reboot,
    /// Switch off.
    PowerOff,
    /// A shell, where the configuration names one.
    Shell,
}

/// The actions with their names; the number is the place, from 1.
const ACTIONS: [(Action, &str); 11] = [
    (Action::Boot, "boot a deployment"),
    (Action::Recover, "recover now"),
    (Action::Network, "choose a network"),
    (Action::Commit, "choose a commit"),
    (Action::Medium, "install from USB or SD"),
    (Action::Repair, "verify and repair"),
    (Action::Ledger, "show the ledger"),
    (Action::KernelLog, "show the kernel's log"),
    (Action::Reboot, "restart"),
    (Action::PowerOff, "power off"),
    (Action::Shell, "shell"),
];

/// What a line at the menu means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// The number of an action.
    Numbered(Action),
    /// A command in words, as the plain prompt takes it.
    Words(Command),
    /// Neither, and why.
    Unknown(Mistake),
}

fn offered(shell: bool) -> impl Iterator<Item = (Action, &'static str)> {
    ACTIONS.into_iter().filter(move |(action, _)| shell || *action != Action::Shell)
}

/// The menu as it is shown.
pub fn lines(shell: bool) -> Vec<String> {
    let mut lines = alloc::vec![String::new(); HEIGHT];
    for (place, (_, name)) in offered(shell).enumerate() {
        if let Some(line) = lines.get_mut(place % HEIGHT) {
            let entry = format!("{:2} {name}", place + 1);
            line.push_str(&format!("{entry:WIDTH$}"));
        }
    }
    let mut all = alloc::vec![String::new()];
    all.extend(lines.into_iter().map(|line| String::from(line.trim_end())));
    all
}

/// Reads a line that was typed at the menu.
pub fn choose(line: &str, deployments: usize, shell: bool) -> Choice {
    let line = line.trim();
    let digits = !line.is_empty() && line.len() <= 2 && line.bytes().all(|b| b.is_ascii_digit());
    if digits {
        let place = line.parse().ok().and_then(|number: usize| number.checked_sub(1));
        let chosen = place.and_then(|place| offered(shell).nth(place));
        return chosen.map_or(Choice::Unknown(Mistake::Unknown), |(action, _)| Choice::Numbered(action));
    }
    match parse(line, deployments) {
        Ok(command) => Choice::Words(command),
        Err(mistake) => Choice::Unknown(mistake),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_on_the_screen_is_an_action() {
        for shell in [false, true] {
            let shown = lines(shell);
            assert!(shown.len() <= LINES && shown.iter().all(|l| l.len() < 80));
            let count = offered(shell).count();
            for (place, (action, name)) in offered(shell).enumerate() {
                let number = format!("{}", place + 1);
                assert!(shown.iter().any(|l| l.contains(&format!("{number} {name}"))), "{name}");
                assert_eq!(choose(&format!(" {number} "), 0, shell), Choice::Numbered(action));
            }
            for wrong in [format!("{}", count + 1), "0".into(), "99".into(), "001".into(), "-1".into()] {
                assert_eq!(choose(&wrong, 0, shell), Choice::Unknown(Mistake::Unknown), "{wrong}");
            }
        }
    }

    #[test]
    fn there_is_no_shell_unless_it_is_configured() {
        assert_eq!(choose("11", 0, false), Choice::Unknown(Mistake::Unknown));
        for word in ["sh", "shell", "/bin/sh", "exec sh"] {
            assert_eq!(choose(word, 9, true), Choice::Unknown(Mistake::Unknown), "{word}");
        }
    }

    #[test]
    fn the_words_of_the_plain_prompt_go_on_working() {
        assert_eq!(choose("reboot", 0, false), Choice::Words(Command::Reboot));
        assert_eq!(choose("boot 1", 2, false), Choice::Words(Command::Boot(1)));
        assert_eq!(choose("", 2, false), Choice::Words(Command::Nothing));
    }
}
