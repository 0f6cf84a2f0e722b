//! Kernel modules: dependency order and loading.
