//! A rehearsal of the exec: the kernel loads the program and stops before its first instruction.
#![expect(unsafe_code, reason = "fork is unsafe; what the child may do is kept to system calls")]

use std::ffi::CString;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, chdir, chroot, execve, fork};

/// Has a child execute `program` with `root` as its `/`, and ends the child before the program has run at all.
///
/// A file can look like a program and still be refused by the kernel; the one way to know is to ask it, and
/// the time to ask is before the initramfs is given up. Where the kernel forbids tracing, nothing is learnt
/// and the rehearsal counts as passed.
///
/// # Errors
/// The kernel's reason for not executing it.
pub fn exec(root: &Path, program: &CString) -> Result<(), Errno> {
    let arguments = [program.clone()];
    let environment: [CString; 0] = [];
    // SAFETY: this process has one thread; the child makes system calls only and ends in exec or _exit.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let failed = ptrace::traceme().map_err(|_| Errno::UnknownErrno).and_then(|()| {
                chroot(root)?;
                chdir("/")?;
                execve(program, &arguments, &environment).map(|_| ())
            });
            let code = failed.err().map_or(0, |e| e as i32);
            // SAFETY: _exit runs no handlers of the parent's.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => loop {
            match waitpid(child, None) {
                Ok(WaitStatus::Stopped(..)) => {
                    let _ = kill(child, Signal::SIGKILL);
                    let _ = waitpid(child, None);
                    return Ok(());
                }
                Ok(WaitStatus::Exited(_, 0)) => return Ok(()),
                Ok(WaitStatus::Exited(_, code)) => return Err(Errno::from_raw(code)),
                // Killed while it was being loaded, past the point where exec could still fail.
                Ok(WaitStatus::Signaled(..)) => return Err(Errno::ENOEXEC),
                Err(Errno::EINTR) | Ok(_) => {}
                Err(_) => return Ok(()),
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rehearse(content: &[u8]) -> Result<(), Errno> {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let init = root.path().join("init");
        std::fs::write(&init, content).unwrap();
        std::fs::set_permissions(&init, std::fs::Permissions::from_mode(0o755)).unwrap();
        exec(root.path(), &CString::new("/init").unwrap())
    }

    #[test]
    fn what_the_kernel_refuses_is_told() {
        assert_eq!(rehearse(b""), Err(Errno::ENOEXEC));
        assert_eq!(rehearse(b"no program"), Err(Errno::ENOEXEC));
        assert_eq!(rehearse(b"#!/no/such/shell\n"), Err(Errno::ENOENT));
        // The header of a program, with a table of segments that is not there.
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(rehearse(&own[..64]), Err(Errno::ENOEXEC));
        let missing = CString::new("/none").unwrap();
        assert_eq!(exec(Path::new("/proc"), &missing), Err(Errno::ENOENT));
    }

    #[test]
    fn a_program_passes_and_never_runs() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let (script, marker) = (directory.path().join("init"), directory.path().join("ran"));
        std::fs::write(&script, format!("#!/bin/sh\ntouch {}\n", marker.display())).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = CString::new(script.to_str().unwrap()).unwrap();
        assert_eq!(exec(Path::new("/"), &program), Ok(()));
        assert!(!marker.exists());
    }
}
