//! The command line: one file a verb.
//!
//! Exit codes, the same for every verb: 0 done; 1 it failed, the reason is on standard error; 2 the command
//! line was wrong. What a verb has besides is in its `--help`.

#[cfg(feature = "health")]
pub mod check;
#[cfg(feature = "recovery")]
pub mod deploy;
pub mod env;
pub mod log;
#[cfg(feature = "recovery")]
pub mod mend;
pub mod options;
#[cfg(all(feature = "recovery", feature = "publish"))]
pub mod password;
pub mod prepare_root;
#[cfg(feature = "publish")]
pub mod publish;
#[cfg(feature = "recovery")]
pub mod pull;
#[cfg(feature = "recovery")]
pub mod recover;
#[cfg(feature = "recovery")]
pub mod source;
pub mod status;
#[cfg(feature = "trial")]
pub mod trial;
#[cfg(feature = "verify")]
pub mod verify;
#[cfg(feature = "recovery")]
pub mod wifi;

use std::process::ExitCode;

/// A verb: its name, one line of help, and what it does with its arguments.
struct Verb {
    name: &'static str,
    summary: &'static str,
    run: fn(&[String]) -> ExitCode,
}

/// Every verb, in the order in which `--help` shows them.
const VERBS: &[Verb] = &[
    Verb { name: "status", summary: "deployments, boot state, what boots next and why", run: status::status },
    Verb {
        name: "decide",
        summary: "what the guardian would do with a sysroot, as a dry run",
        run: status::dry_run,
    },
    #[cfg(feature = "trial")]
    Verb { name: "confirm", summary: "this boot is healthy: end the trial", run: trial::confirm },
    #[cfg(feature = "trial")]
    Verb { name: "reject", summary: "this boot is not healthy: go back", run: trial::reject },
    #[cfg(feature = "trial")]
    Verb { name: "rollback", summary: "make another deployment the first one", run: trial::rollback },
    #[cfg(feature = "trial")]
    Verb { name: "undeploy", summary: "remove a deployment", run: trial::undeploy },
    #[cfg(feature = "trial")]
    Verb { name: "repair", summary: "mend boot links, entries, uEnv.txt and kernels", run: trial::repair },
    #[cfg(feature = "verify")]
    Verb { name: "verify", summary: "hold deployments against their commits", run: verify::run },
    #[cfg(feature = "recovery")]
    Verb { name: "deploy", summary: "make a commit the first deployment to boot", run: deploy::deploy },
    #[cfg(feature = "recovery")]
    Verb { name: "init-fs", summary: "make a sysroot of an empty filesystem", run: deploy::init_fs },
    #[cfg(feature = "health")]
    Verb { name: "check", summary: "run the health checks and conclude", run: check::run },
    #[cfg(feature = "recovery")]
    Verb { name: "pull", summary: "fetch a signed commit into the repository", run: pull::pull },
    #[cfg(all(feature = "recovery", feature = "trial"))]
    Verb { name: "upgrade", summary: "fetch a signed commit and deploy it on trial", run: pull::upgrade },
    #[cfg(feature = "recovery")]
    Verb {
        name: "recover",
        summary: "ask for recovery, or a drill of it, at the next boot",
        run: recover::run,
    },
    #[cfg(feature = "recovery")]
    Verb { name: "wifi", summary: "hand the system's Wi-Fi over to recovery", run: wifi::run },
    Verb { name: "env", summary: "print or change the U-Boot environment", run: env::run },
    Verb { name: "log", summary: "what the boot ledger remembers", run: log::run },
    #[cfg(feature = "publish")]
    Verb { name: "keygen", summary: "make a pair of keys for signing commits", run: publish::keygen },
    #[cfg(feature = "publish")]
    Verb { name: "sign", summary: "sign a commit of a repository", run: publish::sign },
    #[cfg(all(feature = "recovery", feature = "publish"))]
    Verb {
        name: "hash-password",
        summary: "make the hash of a password for the recovery console",
        run: password::hash_password,
    },
    Verb {
        name: "prepare-root",
        summary: "make a deployment the root, as ostree-prepare-root does",
        run: prepare_root::run,
    },
];

/// It failed; the reason was printed.
pub const FAILED: u8 = 1;
/// The command line was wrong.
pub const USAGE: u8 = 2;

/// Whether the command line names a verb or asks for help, so that this is a command and not a boot.
pub fn is_called() -> bool {
    std::env::args().nth(1).is_some_and(|first| {
        matches!(first.as_str(), "--help" | "--version") || VERBS.iter().any(|verb| verb.name == first)
    })
}

/// Runs the verb that the command line names.
pub fn run() -> ExitCode {
    crate::logging::to_stderr(::log::LevelFilter::Warn);
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    match arguments.split_first() {
        None => {
            eprint!("{}", help());
            ExitCode::from(USAGE)
        }
        Some((first, rest)) => match first.as_str() {
            "--help" | "-h" | "help" => {
                print!("{}", help());
                ExitCode::SUCCESS
            }
            "--version" | "-V" => {
                println!("bootward {}", env!("CARGO_PKG_VERSION"));
                ExitCode::SUCCESS
            }
            name => match VERBS.iter().find(|v| v.name == name) {
                Some(verb) => (verb.run)(rest),
                None => {
                    eprintln!("bootward: there is no verb '{name}'; see 'bootward --help'");
                    ExitCode::from(USAGE)
                }
            },
        },
    }
}

fn help() -> String {
    let mut text = String::from(
        "bootward: guards the boot of OSTree devices\n\nUsage: bootward VERB [OPTION ...]\n\nVerbs:\n",
    );
    for verb in VERBS {
        text.push_str(&format!("  {:<14}{}\n", verb.name, verb.summary));
    }
    text.push_str(
        "\n'bootward VERB --help' tells more. Exit codes: 0 done, 1 failed, 2 wrong command line.\n",
    );
    text
}

/// How a verb ends that prints one text: what it did, or why it did not.
#[cfg(any(feature = "recovery", feature = "publish"))]
fn finish(done: Result<String, String>) -> ExitCode {
    match done {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("bootward: {why}");
            ExitCode::from(FAILED)
        }
    }
}

/// Where it is done: as `--sysroot`, `--boot` and `--env-config` say.
#[cfg(any(feature = "recovery", feature = "trial"))]
fn site(options: &options::Options) -> crate::trial::act::Site {
    let mut site = crate::trial::act::Site::of(options.value("--sysroot").map(std::path::Path::new));
    if let Some(boot) = options.value("--boot") {
        site.boot = boot.into();
    }
    if let Some(config) = options.value("--env-config") {
        site.env_config = Some(config.into());
    }
    site
}
