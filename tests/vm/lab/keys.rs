//! Keys and signatures of commits, made by openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

use gvariant::{Marker, SerializeTo, Variant, VariantWrap, gv};

use super::tools::{as_root, run, write};
use super::{Fault, Outcome};

/// A pair of ed25519 keys.
#[derive(Clone, Debug)]
pub struct Pair {
    private: PathBuf,
    /// The public key, in a file as bootward and libostree want it.
    pub public: PathBuf,
}

impl Pair {
    /// Makes one: `DIR/NAME` is the public key.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn new(dir: &Path, name: &str) -> Outcome<Self> {
        let (private, public) = (dir.with_extension(format!("{name}.pem")), dir.join(name));
        let script = "set -e; mkdir -p \"${2%/*}\"; openssl genpkey -algorithm ed25519 -out \"$1\"
            openssl pkey -in \"$1\" -pubout -outform DER | tail -c 32 | openssl base64 -A >\"$2\"";
        run(Command::new("sh").args(["-c", script, "sh"]).args([&private, &public]))?;
        Ok(Pair { private, public })
    }

    /// Signs a commit object: `metadata` becomes detached metadata with this one signature.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn sign(&self, commit: &Path, metadata: &Path) -> Outcome<()> {
        let signature = self.private.with_extension("signature");
        let mut openssl = as_root("openssl");
        openssl.args(["pkeyutl", "-sign", "-rawin", "-inkey"]).arg(&self.private);
        run(openssl.arg("-in").arg(commit).arg("-out").arg(&signature))?;
        let made = std::fs::read(&signature).map_err(|e| Fault::file("read", &signature, &e))?;
        let content = gv!("a{sv}").serialize_to_vec([("ostree.sign.ed25519", &Signatures(made))].iter());
        write(&signature, content)?;
        run(as_root("cp").arg(&signature).arg(metadata)).map(|_| ())
    }
}

struct Signatures(Vec<u8>);

impl SerializeTo<Variant> for &Signatures {
    fn serialize(self, f: &mut impl std::io::Write) -> std::io::Result<usize> {
        VariantWrap(gv!("aay"), [self.0.as_slice()].iter().copied()).serialize(f)
    }
}

/// Where a commit is among the objects of a sysroot, without an extension. `deployment` is its directory's name.
///
/// # Errors
/// When that is not named after a commit.
pub fn object(deployment: &str) -> Outcome<PathBuf> {
    let commit = deployment.split('.').next().and_then(|commit| commit.split_at_checked(2));
    commit
        .map(|(a, b)| Path::new(a).join(b))
        .ok_or_else(|| Fault::new("a deployment has no commit in its name"))
}

/// The names of the deployments' directories of versions 2 and 1.
///
/// # Errors
/// When there are not those two.
pub fn deployments(sysroot: &Path) -> Outcome<[String; 2]> {
    let script = "cd \"$1\"/ostree/deploy/*/deploy; for v in 2 1; do f=$(grep -lx $v *.?/usr/etc/version); echo ${f%%/*}; done";
    let names = run(Command::new("sh").args(["-c", script, "sh"]).arg(sysroot))?;
    let names: Vec<String> = names.lines().map(String::from).collect();
    names.try_into().map_err(|_| Fault::new("there are not two deployments"))
}
