//! Bytes through the compression programs of the build host.

use std::fmt;
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Why a program did not do its work.
#[derive(Debug)]
pub enum Error {
    /// It could not be started.
    Start(&'static str, io::Error),
    /// It failed, and what it said.
    Failed(&'static str, String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Start(program, error) if error.kind() == io::ErrorKind::NotFound => {
                write!(f, "the program '{program}' is not installed")
            }
            Error::Start(program, error) => write!(f, "'{program}' could not be run: {error}"),
            Error::Failed(program, said) => write!(f, "'{program}' failed: {said}"),
        }
    }
}

/// How the archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Read by every kernel with an initramfs.
    Gzip,
    /// Smallest, slowest to unpack.
    Xz,
    /// Fast to unpack; kernels from 5.9 with CONFIG_RD_ZSTD.
    Zstd,
}

impl Compression {
    /// What a name on the command line means.
    pub fn named(name: &str) -> Option<Compression> {
        match name {
            "none" => Some(Compression::None),
            "gzip" => Some(Compression::Gzip),
            "xz" => Some(Compression::Xz),
            "zstd" => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// Compresses; the same bytes in give the same bytes out, with the same version of the program.
    ///
    /// # Errors
    /// The program is missing or failed.
    pub fn apply(self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        match self {
            Compression::None => Ok(bytes),
            Compression::Gzip => run("gzip", &["-n", "-9", "-c"], bytes),
            // The kernel's xz reader knows CRC32 only, and threads would change how blocks are cut.
            Compression::Xz => run("xz", &["--check=crc32", "-9", "-T1", "-c"], bytes),
            Compression::Zstd => run("zstd", &["-q", "-19", "--single-thread", "-c"], bytes),
        }
    }
}

/// A module file's content, by the end of its name.
///
/// # Errors
/// The program is missing or refused the file.
pub fn decompressed(file: &str, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    if file.ends_with(".xz") {
        run("xz", &["-dc"], bytes)
    } else if file.ends_with(".zst") {
        run("zstd", &["-q", "-dc"], bytes)
    } else if file.ends_with(".gz") {
        run("gzip", &["-dc"], bytes)
    } else {
        Ok(bytes)
    }
}

fn run(program: &'static str, arguments: &[&str], input: Vec<u8>) -> Result<Vec<u8>, Error> {
    let mut child = Command::new(program)
        .args(arguments)
        // Options that users set in the environment would change the bytes.
        .env_remove("GZIP")
        .env_remove("XZ_OPT")
        .env_remove("XZ_DEFAULTS")
        .env_remove("ZSTD_CLEVEL")
        .env_remove("ZSTD_NBTHREADS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Error::Start(program, e))?;
    let stdin = child.stdin.take();
    // Written from a thread: the program answers before it has read everything.
    let writer = std::thread::spawn(move || stdin.map_or(Ok(()), |mut pipe| pipe.write_all(&input)));
    let output = child.wait_with_output().map_err(|e| Error::Start(program, e))?;
    let written = writer.join().unwrap_or(Ok(()));
    if !output.status.success() {
        return Err(Error::Failed(program, String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    written.map_err(|e| Error::Start(program, e))?;
    Ok(output.stdout)
}
