//! Options of a verb: `--flag`, `--name VALUE`, `--name=VALUE`, and what is left.

use std::process::ExitCode;

/// An option that a verb takes.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// With its dashes.
    pub name: &'static str,
    /// Whether a value follows.
    pub value: bool,
}

/// What was typed.
#[derive(Debug, Default)]
pub struct Options {
    given: Vec<(&'static str, String)>,
    /// What is not an option, in order.
    pub rest: Vec<String>,
}

impl Options {
    /// Reads a verb's arguments. On a mistake, or where help was asked for, that was printed and the exit
    /// code comes back.
    ///
    /// # Errors
    /// The exit code with which to end.
    pub fn read(arguments: &[String], known: &[Known], help: &str) -> Result<Self, ExitCode> {
        let mut options = Options::default();
        let mut left = arguments.iter();
        while let Some(argument) = left.next() {
            if argument == "--help" || argument == "-h" {
                print!("{help}");
                return Err(ExitCode::SUCCESS);
            }
            if argument == "--" {
                options.rest.extend(left.by_ref().cloned());
                break;
            }
            if !argument.starts_with('-') || argument == "-" {
                options.rest.push(argument.clone());
                continue;
            }
            let (name, attached) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_string())),
                None => (argument.as_str(), None),
            };
            let Some(option) = known.iter().find(|k| k.name == name) else {
                return Err(usage(&format!("there is no option {name}")));
            };
            let value = match (option.value, attached) {
                (true, Some(value)) => value,
                (true, None) => match left.next() {
                    Some(value) => value.clone(),
                    None => return Err(usage(&format!("{name} needs a value"))),
                },
                (false, None) => String::new(),
                (false, Some(_)) => return Err(usage(&format!("{name} takes no value"))),
            };
            options.given.push((option.name, value));
        }
        Ok(options)
    }

    /// Whether an option was given.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// Every value of an option that may be given more than once, in order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.given.iter().filter(move |g| g.0 == name).map(|g| g.1.as_str())
    }

    /// The value of an option; the last one where it was given more than once.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.given.iter().rev().find(|g| g.0 == name).map(|g| g.1.as_str())
    }
}

/// The value of an option that takes a number from 1 to `most`.
///
/// # Errors
/// The exit code with which to end.
#[cfg(feature = "recovery")]
pub fn number(options: &Options, name: &str, default: usize, most: usize) -> Result<usize, ExitCode> {
    match options.value(name).map(str::parse) {
        None => Ok(default),
        Some(Ok(number)) if (1..=most).contains(&number) => Ok(number),
        Some(_) => Err(usage(&format!("{name} takes a number from 1 to {most}"))),
    }
}

/// For whom it is told how far something is, and what came of it.
#[cfg(feature = "verify")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Show {
    /// A program.
    Json,
    /// A person who waits.
    Terminal,
    /// A file.
    Text,
}

#[cfg(feature = "verify")]
impl Show {
    /// A program when `--json` says so, else a person where standard error is a terminal.
    pub fn of(options: &Options) -> Self {
        match (options.has("--json"), std::io::IsTerminal::is_terminal(&std::io::stderr())) {
            (true, _) => Show::Json,
            (false, true) => Show::Terminal,
            (false, false) => Show::Text,
        }
    }
}

/// Says what is wrong with the command line and gives the exit code for it.
pub fn usage(mistake: &str) -> ExitCode {
    eprintln!("bootward: {mistake}; --help lists what there is");
    ExitCode::from(super::USAGE)
}
