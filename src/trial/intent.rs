//! What a command that names deployments by their place is about to make of their order, so that it can be run again.
//!
//! `rollback` and `undeploy INDEX` mean something else once they have worked: the former second one is the first, and
//! another one has the index. So the order that is to be is written down, durable before the swap, and removed when the command is
//! done. A run of the same command that finds just that order has nothing to swap: it finishes what the first one began.
//! Any other order, by whomever, makes the file mean nothing; the next such command writes its own.
//!
//! A line with the format, one with the command, then the deployments in their order.

use alloc::string::String;

/// The file, below the physical root.
pub const PATH: &str = "ostree/bootward/intent";
/// The largest file that is read, in bytes.
pub const SIZE_MAX: usize = 64 * 1024;

/// The file of a command and the order that it is going to make, by the deployments' paths.
pub fn text(command: &str, order: impl Iterator<Item = String>) -> String {
    let mut text = String::from("bootward intent 1\n");
    for line in core::iter::once(command.into()).chain(order) {
        text.push_str(&line);
        text.push('\n');
    }
    text
}
