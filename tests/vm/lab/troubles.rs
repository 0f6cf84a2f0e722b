//! A network in trouble, one thing after the other on the way from the cable to the server: recovery says what is
//! wrong, and goes on as soon as it is not any more.

use super::nginx::{Nginx, certificates, free_port};
use super::recovery::{DESTROYED, Device, RECOVERS, ethernet, is_clean, looks_around, published};
use super::scenes::BOOT;
use super::tap::{self, dnsmasq};
use super::tools::empty_dir;
use super::vm::Vm;
use super::web::{Manner, Web};
use super::{Fault, Outcome};

/// What is said at each trouble comes within so many seconds: two rounds, each with its waits.
const TOLD: u64 = 2 * RECOVERS;
/// What is not there of that name is said to be not there, rather than refused, which musl takes for no answer.
const LOCAL: &str = "--local=/updates.lab/";
const RANGE: &str = "--dhcp-range=192.168.77.50,192.168.77.99,255.255.255.0,600";

/// DHCP is silent, the name unknown to the configured name server and to the network's own, the server down, a captive
/// portal, a server that asks for patience.
///
/// # Errors
/// When it does not say what is wrong, or does not recover.
pub fn of_the_network() -> Outcome<String> {
    tap::alone("192.168.77.1/24", || {
        let published = published("recovery-troubles-published")?;
        let device = Device {
            name: "recovery-troubles",
            published: &published,
            damage: DESTROYED,
            modules: &["virtio_net"],
            config: "urls = [\"http://updates.lab:8080/\"]\nwait_longest = 3\n\n[network]\ndhcp = 6\ndns = [\"192.168.77.250\"]\n"
                .into(),
            extra: tap::device(),
        };
        let setup = device.setup()?;
        let mut vm = setup.start()?;
        vm.expect("no deployment is bootable", BOOT)?;
        vm.expect_words("nothing answers: check the DHCP server", TOLD)?;
        let server = dnsmasq(device.name, &[RANGE])?;
        // First by the configured name server, which does not exist, then by the network's own, which does not know it.
        vm.expect_words("cannot resolve 'updates.lab'", TOLD)?;
        vm.expect_words("asking the network's own name servers", TOLD)?;
        vm.expect_words("cannot resolve 'updates.lab'", TOLD)?;
        drop(server);
        let _server = dnsmasq(device.name, &[RANGE, LOCAL, "--host-record=updates.lab,192.168.77.1"])?;
        vm.expect_words("cannot connect to updates.lab:8080", TOLD)?;
        let web = Web::start_at(&published.repo, "192.168.77.1:8080")?;
        web.set(Manner::Portal);
        vm.expect_words("a web page", TOLD)?;
        web.set(Manner::Busy(3));
        vm.expect_words("503", TOLD)?;
        web.set(Manner::Good);
        ends_well(&mut vm)?;
        is_clean(device.name, &setup.disks, &published.commit)?;
        Ok("DHCP was silent, then the name unknown, then the server down, a portal, busy: healed after all"
            .into())
    })
}

/// The server's certificate is another CA's, then it is down, then it is there.
///
/// # Errors
/// When it does not say what is wrong, or does not recover.
pub fn of_the_server() -> Outcome<String> {
    let published = published("recovery-certificate-published")?;
    let (ours, theirs) = (empty_dir("recovery-certificate-ours")?, empty_dir("recovery-certificate-theirs")?);
    certificates(&ours)?;
    certificates(&theirs)?;
    let port = free_port()?;
    let device = Device {
        name: "recovery-certificate",
        published: &published,
        damage: DESTROYED,
        modules: &["virtio_net"],
        config: format!(
            "urls = [\"https://10.0.2.2:{port}/\"]\nwait_longest = 3\nca = \"/etc/bootward/ca.pem\"
cert = \"/etc/bootward/device.pem\"\ncert_key = \"/etc/bootward/device.key\"\n"
        ),
        extra: ethernet(),
    };
    let files = ["ca.pem", "device.pem", "device.key"]
        .map(|name| format!("{}:/etc/bootward/{name}:600", ours.join(name).display()));
    let setup = device.setup_with(&files)?;
    let stranger = Nginx::start(&theirs, &published.repo, port)?;
    let mut vm = setup.start()?;
    vm.expect("no deployment is bootable", BOOT)?;
    vm.expect_words("no CA that this device was given has signed it", TOLD)?;
    drop(stranger);
    vm.expect_words("cannot connect to 10.0.2.2", TOLD)?;
    let _server = Nginx::start(&ours, &published.repo, port)?;
    ends_well(&mut vm)?;
    is_clean(device.name, &setup.disks, &published.commit)?;
    let log = super::tools::read(&theirs.join("access.log"))?;
    if log.contains(" 200 ") {
        return Err(Fault::new(format!("something was asked of a server that nobody vouches for: {log}")));
    }
    Ok("another CA's certificate, then nobody there: healed after all".into())
}

/// A network of IPv6 alone: DHCP is silent, addresses and name servers come by router advertisement.
///
/// # Errors
/// When it does not recover.
pub fn of_no_ipv4() -> Outcome<String> {
    tap::alone("fd00:77::1/64", || {
        let published = published("recovery-ipv6-published")?;
        let device = Device {
            name: "recovery-ipv6",
            published: &published,
            damage: DESTROYED,
            modules: &["virtio_net"],
            config: "urls = [\"http://updates.lab:8080/\"]\n\n[network]\ndhcp = 20\n".into(),
            extra: tap::device(),
        };
        let _server = dnsmasq(
            device.name,
            &[
                "--enable-ra",
                "--dhcp-range=fd00:77::,ra-only,600",
                "--ra-param=tap0,4,600",
                "--dhcp-option=option6:dns-server,[fd00:77::1]",
                LOCAL,
                "--host-record=updates.lab,fd00:77::1",
            ],
        )?;
        let web = Web::start_at(&published.repo, "[fd00:77::1]:8080")?;
        let setup = device.setup()?;
        let mut vm = setup.start()?;
        vm.expect("no deployment is bootable", BOOT)?;
        vm.expect("fd00:77:", RECOVERS)?;
        ends_well(&mut vm)?;
        is_clean(device.name, &setup.disks, &published.commit)?;
        Ok(format!("by router advertisement and HTTP over IPv6: {} requests", web.take().paths.len()))
    })
}

fn ends_well(vm: &mut Vm) -> Outcome<()> {
    vm.expect("[os] up: 3", 2 * RECOVERS)?;
    looks_around(vm, &["eth0: fetched "])
}
