//! Says the time, and becomes the program that it is given. Built by the bench for its virtual machine: first it is what
//! the kernel starts, then the real init of the deployment.

use std::os::unix::process::CommandExt;

fn main() {
    let now = std::time::Instant::now();
    println!("[stamp] {now:?}");
    if let Some(program) = std::env::args().nth(1) {
        println!("{program}: {}", std::process::Command::new(&program).exec());
    }
}
