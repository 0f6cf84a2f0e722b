//! The list of name servers that the C library reads, `resolv.conf(5)`.
//!
//! musl asks all of them at once and takes the first answer that is one; it reads three at most, and gives up after
//! `timeout` seconds in all, in which it asks `attempts` times. So a name is found or not within that time.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// musl reads no more (`MAXNS`).
pub const MAX_SERVERS: usize = 3;
/// Seconds for one name, and questions in that time.
const OPTIONS: &str = "options timeout:6 attempts:3\n";

/// Writes the list anew.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, servers: &[IpAddr], interface: &str) -> io::Result<()> {
    let text = text(servers, interface);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

/// Addresses of the link are reached over the interface only.
fn text(servers: &[IpAddr], interface: &str) -> String {
    let mut text = String::new();
    for server in servers.iter().take(MAX_SERVERS) {
        match server {
            IpAddr::V6(six) if six.is_unicast_link_local() => {
                text.push_str(&format!("nameserver {six}%{interface}\n"));
            }
            server => text.push_str(&format!("nameserver {server}\n")),
        }
    }
    text + OPTIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_servers_and_the_interface_of_the_links_own() {
        let servers = ["fe80::1", "192.168.7.1", "2001:db8::53", "9.9.9.9"].map(|s| s.parse().unwrap());
        assert_eq!(
            text(&servers, "eth0"),
            "nameserver fe80::1%eth0\nnameserver 192.168.7.1\nnameserver 2001:db8::53\noptions timeout:6 attempts:3\n"
        );
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("etc/resolv.conf");
        write(&path, &servers[1..2], "eth0").unwrap();
        write(&path, &[], "eth0").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), OPTIONS);
    }
}
