//! Log lines to the kernel log and the console.
