//! What this device is: which hardware, and which one of a thousand.

use std::path::Path;

use crate::cmdline::CommandLine;

/// A longer file of the firmware is not read past this, in bytes.
const FILE_MAX: usize = 4096;
/// More interfaces are not asked for their addresses.
const INTERFACES_MAX: usize = 32;

/// Names of the hardware, the most telling first: `bootward.hardware=`, what is configured, the device tree's
/// `compatible` and `model`.
pub fn hardware(root: &Path, command_line: &str, configured: &str) -> Vec<String> {
    let asked = CommandLine::parse(command_line).value("bootward.hardware");
    let given = [asked, Some(configured)].into_iter().flatten().filter(|n| !n.is_empty()).map(String::from);
    let tree = ["compatible", "model"].map(|name| read(&root.join("proc/device-tree").join(name)));
    let names = tree.iter().flat_map(|file| file.split(|b| *b == 0)).filter(|name| !name.is_empty());
    given.chain(names.map(|name| String::from_utf8_lossy(name).into_owned())).collect()
}

/// What sets this device apart from all others: serial numbers and hardware addresses, as far as there are any.
pub fn device(root: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for file in
        ["proc/device-tree/serial-number", "sys/class/dmi/id/product_uuid", "sys/class/dmi/id/board_serial"]
    {
        all.extend(read(&root.join(file)));
    }
    let interfaces = std::fs::read_dir(root.join("sys/class/net"));
    let mut paths: Vec<_> =
        interfaces.into_iter().flatten().take(INTERFACES_MAX).flatten().map(|e| e.path()).collect();
    paths.sort_unstable();
    paths.iter().for_each(|path| all.extend(read(&path.join("address"))));
    all
}

fn read(path: &Path) -> Vec<u8> {
    let mut file = std::fs::read(path).unwrap_or_default();
    file.truncate(FILE_MAX);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &[u8]| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        assert!(hardware(root.path(), "quiet", "").is_empty());
        assert!(device(root.path()).is_empty());
        write("proc/device-tree/compatible", b"acme,gateway-2\0acme,gateway\0");
        write("proc/device-tree/model", b"Acme Gateway\0");
        write("sys/class/net/eth0/address", b"02:00:00:00:00:01\n");
        let names = hardware(root.path(), "quiet bootward.hardware=acme,lab", "acme,set");
        assert_eq!(names, ["acme,lab", "acme,set", "acme,gateway-2", "acme,gateway", "Acme Gateway"]);
        assert_eq!(device(root.path()), b"02:00:00:00:00:01\n");
    }
}
