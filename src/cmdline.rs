//! The kernel command line, split by the kernel's own quoting rules.
