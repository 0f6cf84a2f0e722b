//! GLib key files: `prepare-root.conf`, the repository's `config`, origins.
