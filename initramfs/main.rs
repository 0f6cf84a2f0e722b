//! Builds a reproducible initramfs around bootward: the same inputs give the same bytes.
//!
//! Needs no root, no mounts and no depmod. It reads what it is asked for ([`args`]), gathers the content
//! ([`image`]: files, and modules as [`resolve`] picks them from a [`tree`]), writes one archive ([`cpio`]),
//! compressed by the build host's programs ([`pipe`]), and tells what went in.

mod args;
mod cpio;
mod image;
mod modinfo;
mod pipe;
mod resolve;
mod tree;
mod wifi;

use std::fmt::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned());
    let request = match args::parse(arguments) {
        Ok(request) => request,
        Err(args::Error::Help) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("bootward-initramfs: {error}");
            return ExitCode::from(2);
        }
    };
    match build(&request) {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bootward-initramfs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build(request: &args::Request) -> Result<String, image::Error> {
    let mtime = image::epoch()?;
    let (archive, selection) = image::gather(request)?;
    let raw = archive.bytes(mtime);
    let raw_size = raw.len();
    let packed = request.compression.apply(raw).map_err(image::Error::Compress)?;
    let list = manifest(&archive);
    if let Some(path) = &request.manifest {
        image::write(path, list.as_bytes())?;
    }
    image::write(&request.output, &packed)?;
    let mut report = if request.list { list } else { String::new() };
    describe(&archive, &selection, &mut report);
    let _ = writeln!(report, "{:>10}  archive, uncompressed", raw_size);
    let _ = writeln!(report, "{:>10}  {}", packed.len(), request.output.display());
    Ok(report)
}

/// Mode, size and name of every entry.
fn manifest(archive: &cpio::Archive) -> String {
    let mut text = String::new();
    for entry in archive.entries() {
        let _ = write!(text, "{:06o} {:>9} /{}", entry.mode(), entry.body().len(), entry.name);
        let _ = match &entry.kind {
            cpio::Kind::Symlink(target) => writeln!(text, " -> {target}"),
            cpio::Kind::Character(major, minor) => writeln!(text, " char {major}:{minor}"),
            cpio::Kind::Directory | cpio::Kind::File(_) => writeln!(text),
        };
    }
    text
}

/// The table: files with sizes, modules in load order, and what a person should know.
fn describe(archive: &cpio::Archive, selection: &resolve::Selection, text: &mut String) {
    for entry in archive.entries() {
        if matches!(entry.kind, cpio::Kind::File(_)) && !entry.name.ends_with(".ko") {
            let _ = writeln!(text, "{:>10}  /{}", entry.body().len(), entry.name);
        }
    }
    for module in &selection.modules {
        let _ = writeln!(text, "{:>10}  module {}", module.bytes.len(), module.name);
    }
    for name in &selection.builtin {
        let _ = writeln!(text, "{:>10}  module {name}: built into the kernel", "-");
    }
    for (module, wish) in &selection.absent {
        let _ = writeln!(
            text,
            "note: {module} would like '{wish}' to be loaded too, which this kernel does not have"
        );
    }
    for module in &selection.modules {
        for name in &module.firmware {
            let there = |entry: &cpio::Entry| {
                let file = entry.name.strip_prefix("lib/firmware/").unwrap_or("");
                file.strip_prefix(name.as_str()).is_some_and(|end| matches!(end, "" | ".xz" | ".zst"))
            };
            if !archive.entries().iter().any(there) {
                let _ =
                    writeln!(text, "note: {} may ask for the firmware {name}: see --firmware", module.name);
            }
        }
    }
}
