//! What the endings of the scripts mean. Ring: alloc.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::plan::{Script, Stage};

/// The longest reason that is taken from a script's output, in characters.
pub const REASON_MAX: usize = 120;

/// How a script ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// With exit code 0.
    Passed,
    /// With another exit code.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// It was ended at the limit, which was this many seconds.
    TimedOut(u64),
    /// It was killed at the limit and is still there: it hangs in the kernel.
    Stuck(u64),
    /// It could not be started.
    NotStarted(String),
    /// It was not run, since a required one before it had failed.
    NotRun,
    /// It was not run, since the time for all of them was over.
    NoTimeLeft,
}

impl Ending {
    /// One word for `--json`.
    pub fn word(&self) -> &'static str {
        match self {
            Ending::Passed => "passed",
            Ending::Exit(_) => "exit",
            Ending::Signal(_) => "signal",
            Ending::TimedOut(_) => "timed-out",
            Ending::Stuck(_) => "stuck",
            Ending::NotStarted(_) => "not-started",
            Ending::NotRun => "not-run",
            Ending::NoTimeLeft => "no-time-left",
        }
    }

    /// Whether it stands for a failure: what was not run for another's failure has none of its own.
    pub fn is_failure(&self) -> bool {
        !matches!(self, Ending::Passed | Ending::NotRun)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Passed => f.write_str("passed"),
            Ending::Exit(code) => write!(f, "failed: exit code {code}"),
            Ending::Signal(signal) => write!(f, "failed: ended by signal {signal}"),
            Ending::TimedOut(limit) => write!(f, "failed: it took more than {limit} s and was killed"),
            Ending::Stuck(limit) => write!(f, "failed: it took more than {limit} s and cannot be killed"),
            Ending::NotStarted(reason) => write!(f, "failed: it could not be started: {reason}"),
            Ending::NotRun => f.write_str("not run, a required check before it failed"),
            Ending::NoTimeLeft => f.write_str("failed: the time for all checks was over before it began"),
        }
    }
}

/// One script and how it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The script.
    pub script: Script,
    /// How it ended.
    pub ending: Ending,
    /// How long it ran, in milliseconds.
    pub milliseconds: u64,
    /// The end of what it printed.
    pub output: String,
    /// How many bytes it printed.
    pub printed: u64,
}

impl Outcome {
    /// One that was not run.
    pub fn without_run(script: Script, ending: Ending) -> Self {
        Outcome { script, ending, milliseconds: 0, output: String::new(), printed: 0 }
    }

    /// What happened to it in one sentence, with the last line that it printed if it failed.
    pub fn sentence(&self) -> String {
        let mut text = format!("{} {} {}", self.script.stage.word(), self.script.name, self.ending);
        let last = self.output.lines().rev().map(str::trim).find(|line| !line.is_empty());
        if let Some(last) = last.filter(|_| self.ending.is_failure()) {
            text.push_str(": ");
            text.extend(last.chars().take(REASON_MAX));
        }
        text
    }
}

/// What the required and the wanted checks say together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Every required check passed.
    pub passed: bool,
    /// Why, in a sentence for the ledger.
    pub text: String,
}

/// Judges the outcomes of the required and the wanted stage. `troubles` are what kept the required stage from
/// being known; with one of them it has not passed.
pub fn judge(outcomes: &[Outcome], troubles: &[String]) -> Verdict {
    let of = |stage| outcomes.iter().filter(move |o| o.script.stage == stage);
    let passed = |stage| of(stage).filter(|o| o.ending == Ending::Passed).count();
    let good = troubles.is_empty() && of(Stage::Required).all(|o| o.ending == Ending::Passed);
    let mut parts: Vec<String> = troubles.to_vec();
    parts.extend(of(Stage::Required).filter(|o| o.ending.is_failure()).map(Outcome::sentence));
    match (passed(Stage::Required), passed(Stage::Wanted)) {
        (0, 0) if good => parts.push("no required check is installed".into()),
        (required, 0) => parts.push(format!("{required} required passed")),
        (required, wanted) => parts.push(format!("{required} required and {wanted} wanted passed")),
    }
    parts.extend(of(Stage::Wanted).filter(|o| o.ending.is_failure()).map(Outcome::sentence));
    match of(Stage::Required).chain(of(Stage::Wanted)).filter(|o| o.ending == Ending::NotRun).count() {
        0 => {}
        count => parts.push(format!("{count} not run")),
    }
    Verdict { passed: good, text: parts.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Runner;
    use super::*;
    use alloc::string::ToString;

    fn outcome(stage: Stage, name: &str, ending: Ending, output: &str) -> Outcome {
        let script = Script { stage, name: name.into(), path: format!("/x/{name}"), runner: Runner::Itself };
        Outcome { output: output.into(), ..Outcome::without_run(script, ending) }
    }

    #[test]
    fn only_a_required_one_makes_a_boot_bad() {
        use Stage::{Required, Wanted};
        let good = outcome(Required, "a", Ending::Passed, "");
        let wanted = outcome(Wanted, "b", Ending::Exit(3), "trying\nno server\n\n");
        let verdict = judge(&[good.clone(), wanted.clone()], &[]);
        assert!(verdict.passed);
        assert_eq!(verdict.text, "1 required passed; wanted b failed: exit code 3: no server");
        let endings = [
            Ending::Exit(1),
            Ending::Signal(9),
            Ending::TimedOut(60),
            Ending::Stuck(60),
            Ending::NotStarted("x".into()),
            Ending::NotRun,
            Ending::NoTimeLeft,
        ];
        for ending in endings {
            let verdict = judge(&[good.clone(), outcome(Required, "c", ending.clone(), "")], &[]);
            assert!(!verdict.passed, "{ending:?}");
        }
        let bad = outcome(Required, "c", Ending::TimedOut(60), "waiting");
        let left = outcome(Required, "d", Ending::NotRun, "");
        let text = judge(&[good, bad, left], &[]).text;
        assert_eq!(
            text,
            "required c failed: it took more than 60 s and was killed: waiting; 1 required passed; 1 not run"
        );
    }

    #[test]
    fn nothing_to_check_passes_and_says_so() {
        assert_eq!(judge(&[], &[]), Verdict { passed: true, text: "no required check is installed".into() });
        assert!(!judge(&[], &["/x: Input/output error".to_string()]).passed);
    }

    #[test]
    fn a_reason_is_short() {
        let long = outcome(Stage::Required, "a", Ending::Exit(1), &"é".repeat(1000));
        assert!(long.sentence().chars().count() < 200);
        let fine = outcome(Stage::Required, "a", Ending::Passed, "chatter");
        assert_eq!(fine.sentence(), "required a passed");
    }
}
