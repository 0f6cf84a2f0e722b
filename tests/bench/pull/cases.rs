//! What is measured, and by whom.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::place::{Place, Server, Way, output};

/// Who does it.
#[derive(Clone, Debug)]
pub struct Tool {
    /// Its name in the report.
    pub name: String,
    words: Vec<String>,
    ours: bool,
}

impl Tool {
    /// Our binaries, by their paths where there are several; each may have options of `pull` after it.
    pub fn ours(lines: &[String]) -> Vec<Self> {
        // What they have in common tells nothing.
        let program = |line: &String| line.split(' ').next().map(String::from);
        let same = lines.iter().all(|line| program(line) == lines.first().and_then(program));
        let name = |line: &String| match line.split_once(' ') {
            _ if lines.len() == 1 => "bootward".into(),
            Some((_, options)) if same => options.into(),
            _ => line.clone(),
        };
        let words = |line: &String| line.split(' ').map(String::from).collect();
        lines.iter().map(|line| Tool { name: name(line), words: words(line), ours: true }).collect()
    }

    /// The `ostree` of this machine, and that of the laboratory's Debian root where there is one.
    ///
    /// # Errors
    /// When there is none.
    pub fn peers(lab: &Path) -> io::Result<Vec<Self>> {
        let root = lab.join("debian-root").display().to_string();
        let newer = vec![
            format!("{root}/usr/lib64/ld-linux-x86-64.so.2"),
            "--library-path".into(),
            format!("{root}/usr/lib/x86_64-linux-gnu"),
            format!("{root}/usr/bin/ostree"),
        ];
        let mut tools = Vec::new();
        for words in [vec!["ostree".to_string()], newer] {
            let mut tool = Tool { name: String::new(), words, ours: false };
            let told = output(tool.command().arg("--version"))?;
            let version = told.lines().find_map(|line| line.trim().strip_prefix("Version: "));
            tool.name = format!("ostree {}", version.unwrap_or("?").trim_matches('\''));
            tools.push(tool);
        }
        tools.dedup_by(|a, b| a.name == b.name);
        Ok(tools)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        command
    }
}

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Objects, or a static delta where the server has one.
    Pull {
        /// Static deltas are used.
        delta: bool,
    },
    /// A commit that is here becomes the first deployment.
    Deploy,
}

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its name in the report.
    pub title: &'static str,
    /// The filesystem that it begins with.
    pub template: &'static str,
    /// The directory of the server, and the version that is to be here afterwards.
    pub from: &'static str,
    /// What is done.
    pub work: Work,
}

/// All of them.
pub const CASES: [Case; 5] = [
    pulled("full", "Full pull", "fresh", "one", false),
    pulled("incremental", "Incremental pull", "one", "two", false),
    pulled("delta-full", "Static delta from nothing", "fresh", "one", true),
    pulled("delta", "Static delta from the version before", "one", "two", true),
    Case { name: "deploy", title: "Deploy", template: "both", from: "two", work: Work::Deploy },
];

const fn pulled(
    name: &'static str,
    title: &'static str,
    template: &'static str,
    from: &'static str,
    delta: bool,
) -> Case {
    Case { name, title, template, from, work: Work::Pull { delta } }
}

/// The two versions on the server's disk.
#[derive(Debug)]
pub struct Payload {
    dir: PathBuf,
}

impl Payload {
    /// Makes them where they are not there yet.
    ///
    /// # Errors
    /// When the script fails.
    pub fn new(lab: &Path, bootward: &Path) -> io::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/pull/payload");
        output(Command::new(script).arg(lab).arg(bootward))?;
        Ok(Payload { dir: lab.join("bench-pull") })
    }

    /// What a server serves.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn commit(&self, version: &str) -> io::Result<String> {
        Ok(fs::read_to_string(self.dir.join(format!("{version}.commit")))?.trim().into())
    }

    /// The filesystems that runs begin with: an empty sysroot; version one deployed; version two pulled besides.
    ///
    /// # Errors
    /// When `ostree` fails.
    pub fn templates(&self, place: &Place) -> io::Result<()> {
        let ostree = |sysroot: &Path, line: &str| {
            let repo = sysroot.join("ostree/repo").display().to_string();
            let line = line.replace("REPO", &repo).replace("SYSROOT", &sysroot.display().to_string());
            output(Command::new("ostree").args(line.split(' ')))
        };
        let pull = |sysroot: &Path, version: &str| {
            let from = self.dir.join(version);
            ostree(sysroot, &format!("pull-local --repo=REPO --remote=origin {} main", from.display()))
        };
        place.template("fresh", None, |sysroot| {
            ostree(sysroot, "admin init-fs --modern SYSROOT")?;
            ostree(sysroot, "admin os-init --sysroot=SYSROOT os")?;
            ostree(sysroot, "config --repo=REPO set sysroot.bootloader none")?;
            ostree(sysroot, "remote add --repo=REPO --no-gpg-verify origin http://nowhere.invalid")?;
            Ok(())
        })?;
        place.template("one", Some("fresh"), |sysroot| {
            pull(sysroot, "one")?;
            ostree(sysroot, "admin deploy --sysroot=SYSROOT --os=os origin:main").map(drop)
        })?;
        place.template("both", Some("one"), |sysroot| pull(sysroot, "two").map(drop))
    }

    /// The command for a case.
    ///
    /// # Errors
    /// When the payload is not there.
    pub fn command(&self, case: &Case, tool: &Tool, sysroot: &Path, server: &Server) -> io::Result<Command> {
        let mut command = if tool.ours { Command::new(&tool.words[0]) } else { tool.command() };
        let (root, url) = (sysroot.display(), server.url(case.from));
        let key = self.dir.join("key.pub");
        match (case.work, tool.ours) {
            (Work::Pull { delta }, true) => {
                let line = format!("pull --sysroot {root} --remote origin --ref main --url {url}");
                command.args(line.split(' ')).arg("--keys").arg(key);
                command.args(&tool.words[1..]);
                if !delta {
                    command.arg("--no-delta");
                }
            }
            (Work::Pull { delta }, false) => {
                command.arg("pull").arg(format!("--repo={root}/ostree/repo")).arg(format!("--url={url}"));
                if !delta {
                    command.arg("--disable-static-deltas");
                }
                command.args(["origin", "main"]);
            }
            (Work::Deploy, true) => {
                let line = format!("deploy --sysroot {root} --stateroot os origin:main");
                command.args(line.split(' ')).arg("--keys").arg(key);
            }
            (Work::Deploy, false) => {
                command.args(["admin", "deploy", "--os=os"]).arg(format!("--sysroot={root}"));
                command.arg("origin:main");
            }
        }
        Ok(command)
    }

    /// Whether a run did what it was for; `thorough` reads every object.
    ///
    /// # Errors
    /// When it did not.
    pub fn judge(&self, case: &Case, sysroot: &Path, thorough: bool) -> io::Result<()> {
        let repo = format!("--repo={}/ostree/repo", sysroot.display());
        let wanted = self.commit(case.from)?;
        let found = output(Command::new("ostree").args(["rev-parse", &repo, "origin:main"]))?;
        if found.trim() != wanted {
            return Err(io::Error::other(format!("{}: {} in place of {wanted}", case.name, found.trim())));
        }
        if thorough {
            output(Command::new("ostree").args(["fsck", "--quiet", &repo]))?;
        }
        if case.work == Work::Deploy {
            let status = format!("--sysroot={}", sysroot.display());
            let status = output(Command::new("ostree").args(["admin", "status", &status]))?;
            if !status.lines().next().is_some_and(|line| line.contains(&wanted)) {
                return Err(io::Error::other(format!("deployed is\n{status}")));
            }
        }
        Ok(())
    }

    /// Bytes of the bodies that a case cannot do without: what the line alone is busy with. Of a pull of objects those
    /// that are new; of a static delta its files.
    ///
    /// # Errors
    /// When the payload is not there.
    pub fn bytes(&self, case: &Case) -> io::Result<u64> {
        let (repo, fresh) = (self.dir.join(case.from), case.template == "fresh");
        let commit = self.commit(case.from)?;
        match case.work {
            Work::Deploy => Ok(0),
            Work::Pull { delta: true } => {
                let from = if fresh { String::new() } else { self.commit("one")? };
                let list = output(
                    Command::new("ostree")
                        .args(["static-delta", "show"])
                        .arg(format!("--repo={}", repo.display()))
                        .arg(if fresh { commit } else { format!("{from}-{commit}") }),
                )?;
                delta_bytes(&list)
            }
            Work::Pull { delta: false } => {
                let mut total = 0;
                let known = if fresh { Vec::new() } else { objects(&repo, &self.commit("one")?)? };
                for name in objects(&repo, &commit)? {
                    if known.binary_search(&name).is_err() {
                        total += fs::metadata(repo.join("objects").join(&name))?.len();
                    }
                }
                Ok(total)
            }
        }
    }
}

/// What `static-delta show` says of sizes: parts as they come, and objects to be fetched beside them.
fn delta_bytes(list: &str) -> io::Result<u64> {
    let mut total = 0;
    for line in list.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| word.trim_start_matches("size=").parse::<u64>().ok();
        match words.as_slice() {
            ["Total", "Part", "Size:", size, ..] => total += number(size).unwrap_or(0),
            ["Total", "Fallback", "Size:", size, ..] => total += number(size).unwrap_or(0),
            _ => {}
        }
    }
    if total == 0 { Err(io::Error::other(format!("no sizes in\n{list}"))) } else { Ok(total) }
}

/// The objects of a commit, as paths below `objects/`, sorted.
fn objects(repo: &Path, commit: &str) -> io::Result<Vec<String>> {
    let repo = format!("--repo={}", repo.display());
    let list = output(Command::new("ostree").args(["ls", &repo, "-R", "-C", commit]))?;
    let mut names = vec![format!("{}/{}.commit", &commit[..2], &commit[2..])];
    for line in list.lines() {
        // Mode, owner, group, size, then one checksum of a file, or two of a directory.
        let is_sum = |word: &&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
        let sums: Vec<&str> = line.split_whitespace().skip(4).take_while(is_sum).collect();
        let kinds: &[&str] = if sums.len() == 2 { &["dirtree", "dirmeta"] } else { &["filez"] };
        for (sum, kind) in sums.iter().zip(kinds) {
            names.push(format!("{}/{}.{kind}", &sum[..2], &sum[2..]));
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// The ways that a case is measured over.
pub fn ways(case: &Case) -> &'static [Way] {
    match case.work {
        Work::Deploy => &[Way::Loopback],
        Work::Pull { .. } => &[Way::Loopback, Way::Link],
    }
}
