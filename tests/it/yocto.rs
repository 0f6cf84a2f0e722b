//! The Yocto layer, as far as it can be judged without bitbake: what it says of this tree is true, its crates suffice
//! without a network, its scripts do what they are for.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bootward::config::Config;

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn layer() -> PathBuf {
    tree().join("yocto/meta-bootward")
}

fn read(path: &str) -> String {
    fs::read_to_string(layer().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

/// The crates that the layer names, with their checksums.
fn crates() -> BTreeMap<String, String> {
    let text = read("recipes-core/bootward/bootward-crates.inc");
    let sums = text.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("SRC_URI[")?.split_once(".sha256sum] = \"")?;
        Some((name.to_string(), rest.trim_end_matches('"').to_string()))
    });
    let sums: BTreeMap<_, _> = sums.collect();
    let uris = text.lines().filter_map(|line| line.trim().strip_prefix("crate://crates.io/"));
    let uris: Vec<_> = uris.map(|l| l.trim_end_matches(" \\").replace('/', "-")).collect();
    assert_eq!(uris.iter().collect::<Vec<_>>(), {
        let mut sorted: Vec<_> = sums.keys().collect();
        sorted.sort_by_key(|name| uris.iter().position(|u| u == *name));
        sorted
    });
    sums
}

#[test]
fn the_crates_are_those_of_the_lock_file() {
    let made = Command::new(tree().join("yocto/crates")).output().unwrap();
    assert!(made.status.success());
    let there = read("recipes-core/bootward/bootward-crates.inc");
    assert!(text(&made.stdout) == there, "run yocto/crates: Cargo.lock has changed");
    // And what the script prints is what the lock file says, by another reader.
    let lock: toml::Table = toml::from_str(&fs::read_to_string(tree().join("Cargo.lock")).unwrap()).unwrap();
    let packages = lock["package"].as_array().unwrap().iter();
    let locked: BTreeMap<_, _> = packages
        .filter(|p| p.get("source").is_some())
        .map(|p| {
            let field = |name: &str| p[name].as_str().unwrap().to_string();
            (format!("{}-{}", field("name"), field("version")), field("checksum"))
        })
        .collect();
    assert!(!locked.is_empty());
    assert_eq!(crates(), locked);
}

/// A directory of crates as bitbake's fetcher leaves it is all that cargo needs, kept off the network.
#[test]
fn the_crates_suffice_without_a_network() {
    let dir = tempfile::tempdir().unwrap();
    let run = |command: &mut Command| {
        let output = command.current_dir(tree()).output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    // Also those that only other systems need: a build on this one may not have fetched them.
    run(Command::new(env!("CARGO")).args(["fetch", "--quiet", "--locked"]));
    let home = |variable: &str, name: &str| {
        let default = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(name);
        std::env::var_os(variable).map_or_else(default, PathBuf::from)
    };
    let vendor = dir.path().join("bitbake");
    fs::create_dir(&vendor).unwrap();
    for (name, sum) in crates() {
        let found = fs::read_dir(home("CARGO_HOME", ".cargo").join("registry/cache")).unwrap().flatten();
        let file = found.map(|r| r.path().join(format!("{name}.crate"))).find(|f| f.exists());
        let file = file.unwrap_or_else(|| panic!("{name} was not fetched"));
        let told = run(Command::new("sha256sum").arg(&file));
        assert_eq!(told.split_whitespace().next(), Some(sum.as_str()), "{name}");
        run(Command::new("tar").arg("-xzf").arg(&file).arg("-C").arg(&vendor));
        let checksums = format!("{{\"files\":{{}},\"package\":\"{sum}\"}}");
        fs::write(vendor.join(&name).join(".cargo-checksum.json"), checksums).unwrap();
    }
    let config = format!(
        "[source.bitbake]\ndirectory = \"{}\"\n[source.crates-io]\nreplace-with = \"bitbake\"\n",
        vendor.display()
    );
    // An empty home: nothing that was fetched before can help.
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.env("CARGO_HOME", dir.path()).env("CARGO_TARGET_DIR", dir.path().join("target"));
    cargo.env("RUSTUP_HOME", home("RUSTUP_HOME", ".rustup"));
    run(cargo.args(["check", "--quiet", "--frozen", "--bin", "bootward", "--no-default-features"]));
}

fn recipes(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            recipes(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

#[test]
fn what_the_recipes_say_of_this_tree_is_true() {
    let mut files = Vec::new();
    recipes(&layer(), &mut files);
    let versions: Vec<_> = files
        .iter()
        .filter_map(|f| {
            f.file_name()?.to_str()?.strip_suffix(".bb")?.split_once('_').map(|n| n.1.to_string())
        })
        .collect();
    assert_eq!(versions.len(), 6);
    assert!(versions.iter().all(|v| v == env!("CARGO_PKG_VERSION")), "{versions:?}");

    let common = read("recipes-core/bootward/bootward-common.inc");
    let licences: Vec<_> =
        common.lines().filter_map(|l| l.trim().strip_prefix("file://${BOOTWARD_SOURCE}/")).collect();
    assert_eq!(licences.len(), 2);
    for line in licences {
        let (file, sum) = line.trim_end_matches(" \\").split_once(";md5=").unwrap();
        let told = Command::new("md5sum").arg(tree().join(file)).output().unwrap();
        assert_eq!(text(&told.stdout).split_whitespace().next(), Some(sum), "{file}");
    }

    let manifest: toml::Table =
        toml::from_str(&fs::read_to_string(tree().join("Cargo.toml")).unwrap()).unwrap();
    let features = manifest["features"].as_table().unwrap();
    for recipe in ["bootward_0.1.0.bb", "bootward-init_0.1.0.bb"] {
        let recipe = read(&format!("recipes-core/bootward/{recipe}"));
        let named: Vec<_> = recipe.lines().filter_map(|l| l.split_once("--features ")).map(|l| l.1).collect();
        assert!(!named.is_empty());
        for feature in named {
            assert!(features.contains_key(feature.trim_end_matches(",,\"")), "{feature}");
        }
    }
    // Of the OS's build nothing that is there by default is left out.
    let recipe = read("recipes-core/bootward/bootward_0.1.0.bb");
    let chosen = recipe.lines().find_map(|l| l.strip_prefix("PACKAGECONFIG ??= ")).unwrap();
    let mut all: Vec<&str> = chosen.trim_matches('"').split_whitespace().collect();
    let mut at = 0;
    while let Some(&feature) = all.get(at) {
        let means = features[feature].as_array().unwrap().iter().filter_map(toml::Value::as_str);
        all.extend(means.filter(|feature| !feature.starts_with("dep:")));
        at += 1;
    }
    for feature in manifest["features"]["default"].as_array().unwrap() {
        assert!(all.contains(&feature.as_str().unwrap()), "{feature} is not in {chosen}");
    }
}

/// The file that the recipe installs, alone and with what it appends for keys.
#[test]
fn the_configuration_of_the_layer_is_understood() {
    let plain = read("recipes-core/bootward/bootward-conf/bootward.toml");
    let (config, complaints) = Config::parse(plain.as_bytes());
    assert_eq!((complaints.count, config.root_device.as_str()), (0, "LABEL=otaroot"));
    let recipe = read("recipes-core/bootward/bootward-conf_0.1.0.bb");
    let printed = recipe.split("printf '").nth(1).unwrap().split('\'').next().unwrap();
    let appended = printed.replace("\\n", "\n").replace("${sysconfdir}", "/etc");
    let (config, complaints) = Config::parse((plain + &appended).as_bytes());
    assert_eq!((complaints.count, config.verify_keys.as_str()), (0, "/etc/bootward/keys.ed25519"));
    assert_eq!(config.verify_level.as_str(), "full");
}

#[test]
fn its_shell_is_clean() {
    let scripts =
        ["yocto/crates", "yocto/lint", "yocto/meta-bootward/recipes-core/initrdscripts/files/bootward"];
    for script in scripts {
        let path = tree().join(script);
        assert!(Command::new("sh").arg("-n").arg(&path).status().unwrap().success());
        let output = Command::new("shellcheck").args(["-s", "sh"]).arg(&path).output();
        let output = output.expect("shellcheck is needed for this test");
        assert!(output.status.success(), "{}", text(&output.stdout));
    }
}

/// Calls the module as initramfs-framework does, in a shell with the framework's functions, or what stands for them.
fn module(prepare: &str, root: &str) -> (Output, String) {
    let dir = tempfile::tempdir().unwrap();
    let calls = dir.path().join("calls");
    let program = |name: &str, body: &str| {
        let path = dir.path().join(name);
        let tell = format!("#!/bin/sh\necho \"${{0##*/}} $*\" >>{}\n{body}\n", calls.display());
        fs::write(&path, tell).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("guardian", prepare);
    program("reboot", "");
    let framework = r#"set -e; msg() { echo "$@"; }; info() { :; }; debug() { :; }
        . "$MODULE"; bootward_enabled; bootward_run; echo next module"#;
    let output = Command::new("sh")
        .args(["-c", framework])
        .env("MODULE", layer().join("recipes-core/initrdscripts/files/bootward"))
        .env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()))
        .env("BOOTWARD", dir.path().join("guardian"))
        .env("BOOTWARD_PAUSE", "0")
        .env("ROOTFS_DIR", root)
        .output()
        .unwrap();
    (output, fs::read_to_string(calls).unwrap_or_default())
}

#[test]
fn the_module_of_the_initramfs_framework() {
    let (output, calls) = module("exit 0", "/rootfs");
    assert_eq!(calls, "guardian prepare-root /rootfs\n");
    assert_eq!(text(&output.stdout), "next module\n");
    // Never the framework's fatal(), which waits for ever.
    let (output, calls) = module("exit 1", "/rootfs");
    assert_eq!(calls, "guardian prepare-root /rootfs\nreboot -f\n");
    assert!(text(&output.stdout).starts_with("ERROR: the OSTree root could not be prepared"));
    assert_eq!(module("exit 0", "").1, "");
}

/// The shell functions of the class that signs, with bitbake's variables filled in, and a stub for `ostree sign` that
/// keeps its signatures in a file: Debian's ostree is built without ed25519.
fn sign(repo: &Path, keys: Option<(&str, &str)>) -> Output {
    let class = read("classes-recipe/bootward_ostree_sign.bbclass");
    let functions = class.find("bootward_sign_commit() {").unwrap();
    let functions: String = class
        .split_at(functions)
        .1
        .lines()
        .filter(|l| !l.contains("[doc]"))
        .map(|l| format!("{l}\n"))
        .collect();
    let (secret, public) = keys.unwrap_or(("", ""));
    let filled = functions
        .replace("${BOOTWARD_SIGN_KEY}", secret)
        .replace("${BOOTWARD_PUBLIC_KEYS}", public)
        .replace("${OSTREE_REPO}", &repo.display().to_string())
        .replace("${WORKDIR}", &repo.display().to_string());
    assert!(!filled.contains("${"), "{filled}");
    let ostree = r#"bbfatal() { echo "FATAL: $*"; exit 1; }
        ostree() {
            repo=${1#--repo=}; shift 2; verify=; keys=
            for word in "$@"; do case $word in
                --verify) verify=1 ;; --keys-file=*) keys=${word#--keys-file=} ;; --sign-type=ed25519) ;;
                -*) exit 99 ;; *) commit=$word ;;
            esac; done
            echo "sign${verify:+ --verify} $keys $commit" >>"$repo/calls"
            if [ -n "$verify" ]; then grep -qx "${keys#public-} $commit" "$repo/signatures"
            else [ "$keys" != secret-bad ] && echo "${keys#secret-} $commit" >>"$repo/signatures"; fi
        }
        touch "$REPO/signatures"
        "#;
    let script = format!("set -e\n{ostree}\n{filled}\nbootward_sign_commit\n");
    Command::new("sh").args(["-c", &script]).env("REPO", repo).output().unwrap()
}

#[test]
fn the_class_signs_once_and_verifies_with_the_devices_keys() {
    let repo = tempfile::tempdir().unwrap();
    fs::write(repo.path().join("ostree_manifest"), "c0ffee\n").unwrap();
    let calls = || fs::read_to_string(repo.path().join("calls")).unwrap();
    let keys = Some(("secret-a", "public-a"));
    assert!(sign(repo.path(), keys).status.success());
    let first = "sign --verify public-a c0ffee\nsign secret-a c0ffee\nsign --verify public-a c0ffee\n";
    assert_eq!(calls(), first);
    // Nothing has changed: no second signature.
    assert!(sign(repo.path(), keys).status.success());
    assert_eq!(calls().matches("sign secret-a").count(), 1);
    // Keys that do not belong together, a key that cannot sign, no keys.
    let wrong = sign(repo.path(), Some(("secret-b", "public-c")));
    assert!(!wrong.status.success() && text(&wrong.stdout).contains("do the two files belong together?"));
    let wrong = sign(repo.path(), Some(("secret-bad", "public-bad")));
    assert!(!wrong.status.success() && text(&wrong.stdout).contains("cannot be signed"));
    let none = sign(repo.path(), None);
    assert!(!none.status.success() && text(&none.stdout).contains("needs BOOTWARD_SIGN_KEY"));
}

/// What the layer takes from elsewhere in the tree.
#[test]
fn its_links_stay_in_the_tree() {
    let mut files = Vec::new();
    recipes(&layer(), &mut files);
    let links: Vec<_> = files.iter().filter(|f| f.is_symlink()).collect();
    assert_eq!(links.len(), 5);
    for link in links {
        let target = fs::read_link(link).unwrap();
        assert!(target.starts_with("../../../../../uboot/"), "{}", target.display());
        let file = link.parent().unwrap().join(&target);
        assert!(file.is_file() || !tree().join("uboot").exists(), "{} is not there", file.display());
    }
}
