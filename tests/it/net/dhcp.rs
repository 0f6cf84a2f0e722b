//! DHCP servers that behave: a table of what one may answer, and what becomes of it.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bootward::net::{Error, Settings};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::BindToDevice;

use super::lab::{Lab, Notes, addresses, alone, ip};

/// A question of the client's, taken apart.
pub struct Question {
    bytes: Vec<u8>,
}

impl Question {
    fn kind(&self) -> u8 {
        self.bytes[242]
    }

    /// An answer with these options behind its kind, laid out after RFC 2131.
    fn answer(&self, kind: u8, options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![2, 1, 6, 0];
        bytes.extend(&self.bytes[4..8]);
        bytes.extend([0, 0, 0x80, 0, 0, 0, 0, 0]);
        bytes.extend([192, 168, 77, 60]);
        bytes.extend([192, 168, 77, 1, 0, 0, 0, 0]);
        bytes.extend(&self.bytes[28..44]);
        bytes.resize(236, 0);
        bytes.extend([99, 130, 83, 99, 53, 1, kind]);
        bytes.extend(options);
        bytes.push(255);
        bytes
    }

    /// The answer of an honest server, with these options added: an offer for a discover, a yes for a request.
    fn honest(&self, options: &[u8]) -> Vec<u8> {
        let kind = if self.kind() == 1 { 2 } else { 5 };
        self.answer(kind, &[SERVER, MASK, options].concat())
    }
}

const SERVER: &[u8] = &[54, 4, 192, 168, 77, 1];
const MASK: &[u8] = &[1, 4, 255, 255, 255, 0];

/// What becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// No address, in time, and the reason has this in it.
    Nothing(&'static str),
    /// The address.
    Address,
}

type Script = Box<dyn Fn(&Question) -> Vec<Vec<u8>> + Send + Sync>;

struct Behaviour {
    name: String,
    script: Script,
    end: End,
}

/// Answers as a script says until it is dropped.
struct Scripted {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    asked: Arc<AtomicUsize>,
}

impl Scripted {
    fn start(lab: &Lab, script: impl Fn(&Question) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (flag, count) = (stop.clone(), asked.clone());
        lab.there("ip addr replace 192.168.77.1/24 dev srv0");
        let thread = lab.over_there(move || {
            let socket = UdpSocket::bind("0.0.0.0:67").unwrap();
            setsockopt(&socket, BindToDevice, &"srv0".into()).unwrap();
            socket.set_broadcast(true).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let mut buffer = [0; 2000];
            while !flag.load(Ordering::Relaxed) {
                let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                for answer in script(&Question { bytes: buffer[..length].to_vec() }) {
                    let _ = socket.send_to(&answer, "255.255.255.255:68");
                }
            }
        });
        Scripted { stop, thread: Some(thread), asked }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Every behaviour, by name.
fn behaviours() -> Vec<Behaviour> {
    let mut all = Vec::new();
    let mut add = |name: String, end: End, script: Script| all.push(Behaviour { name, script, end });
    // What is no DHCP message.
    for length in [0, 1, 4, 100, 236, 239, 240, 241, 1400, 1501, 9000, 60_000] {
        let filled = move |byte| Box::new(move |_: &Question| vec![vec![byte; length]]);
        add(format!("{length} bytes of 0"), End::Nothing(""), filled(0));
        add(format!("{length} bytes of 2"), End::Nothing(""), filled(2));
    }
    for (at, value) in
        [(0, 1), (0, 3), (1, 0), (1, 6), (2, 0), (2, 16), (2, 255), (236, 0), (239, 0), (4, 0), (28, 9)]
    {
        let script = move |q: &Question| {
            let mut answer = q.honest(&[]);
            answer[at] = if answer[at] == value { value + 1 } else { value };
            vec![answer]
        };
        add(format!("byte {at} is {value}"), End::Nothing(""), Box::new(script));
    }
    for kind in [0, 1, 3, 4, 7, 8, 9, 255] {
        let script = move |q: &Question| vec![q.answer(kind, SERVER)];
        add(format!("message of kind {kind}"), End::Nothing("neither an offer"), Box::new(script));
    }
    // Options that are cut, or have a length that they cannot have.
    for (code, lengths) in [
        (1u8, &[0u8, 1, 3, 5][..]),
        (3, &[0, 1, 3, 5]),
        (6, &[0, 1, 3, 5]),
        (42, &[0, 2, 7]),
        (51, &[0, 1, 3, 5]),
        (54, &[0, 1, 3, 5]),
        (58, &[0, 3, 8]),
        (59, &[0, 3, 8]),
        (121, &[1, 3, 4, 8]),
    ] {
        for &length in lengths {
            let script = move |q: &Question| {
                let option = [&[code, length][..], &vec![7; length.into()]].concat();
                vec![q.answer(if q.kind() == 1 { 2 } else { 5 }, &[&option, SERVER].concat())]
            };
            add(format!("option {code} of {length} bytes"), End::Nothing("wrong length"), Box::new(script));
        }
    }
    for tail in [&[12][..], &[12, 255], &[12, 9, 1, 2], &[121, 200, 1]] {
        let script = move |q: &Question| {
            let mut answer = q.honest(tail);
            answer.pop();
            vec![answer]
        };
        add(format!("options end with {tail:?}"), End::Nothing("past its end"), Box::new(script));
    }
    // Addresses that nobody can have.
    for bad in [
        "0.0.0.0",
        "0.0.0.9",
        "127.0.0.1",
        "224.0.0.9",
        "240.1.1.1",
        "255.255.255.255",
        "192.168.77.0",
        "192.168.77.255",
    ] {
        let script = move |q: &Question| {
            let mut answer = q.honest(&[]);
            answer[16..20].copy_from_slice(&bad.parse::<Ipv4Addr>().unwrap().octets());
            vec![answer]
        };
        add(format!("offers {bad}"), End::Nothing("no host can have"), Box::new(script));
    }
    for mask in [[0, 0, 0, 0], [0, 0, 0, 255], [255, 0, 255, 0], [255, 255, 255, 253], [127, 255, 255, 255]] {
        let script = move |q: &Question| {
            let option = [&[1, 4][..], &mask].concat();
            vec![q.answer(if q.kind() == 1 { 2 } else { 5 }, &[&option, SERVER].concat())]
        };
        add(format!("mask {mask:?}"), End::Nothing("its mask is"), Box::new(script));
    }
    add("does not say who it is".into(), End::Nothing("which server"), Box::new(|q| vec![q.answer(2, MASK)]));
    // Offers that come to nothing.
    let offer = |q: &Question| q.answer(2, &[SERVER, MASK].concat());
    let then = |after: fn(&Question) -> Vec<Vec<u8>>| -> Script {
        Box::new(move |q| if q.kind() == 1 { vec![offer(q)] } else { after(q) })
    };
    add("offers, then nothing".into(), End::Nothing(""), then(|_| vec![]));
    add("offers, then no".into(), End::Nothing("refuses"), then(|q| vec![q.answer(6, SERVER)]));
    add("offers, then no without a name".into(), End::Nothing("refuses"), then(|q| vec![q.answer(6, &[])]));
    add("offers, then noes".into(), End::Nothing("refuses"), then(|q| vec![q.answer(6, SERVER); 200]));
    add(
        "offers again and again".into(),
        End::Nothing(""),
        then(|q| vec![q.answer(2, &[SERVER, MASK].concat()); 100]),
    );
    add("another says yes".into(), End::Nothing(""), then(|q| vec![q.answer(5, &[54, 4, 192, 168, 77, 2])]));
    add("another says no".into(), End::Nothing(""), then(|q| vec![q.answer(6, &[54, 4, 192, 168, 77, 2])]));
    add(
        "yes to another address".into(),
        End::Nothing(""),
        then(|q| {
            let mut answer = q.honest(&[]);
            answer[19] = 61;
            vec![answer]
        }),
    );
    add(
        "yes to another question".into(),
        End::Nothing(""),
        then(|q| {
            let mut answer = q.honest(&[]);
            answer[7] ^= 1;
            vec![answer]
        }),
    );
    add("yes at once".into(), End::Nothing("does not answer"), Box::new(|q| vec![q.answer(5, SERVER)]));
    add("no at once".into(), End::Nothing("does not answer"), Box::new(|q| vec![q.answer(6, SERVER)]));
    add("the question back".into(), End::Nothing(""), Box::new(|q| vec![q.bytes.clone()]));
    // Strange, and an address all the same.
    let odd: Vec<(&str, Vec<u8>)> = vec![
        ("gateway 255.255.255.255", vec![3, 4, 255, 255, 255, 255]),
        ("gateway 0.0.0.0", vec![3, 4, 0, 0, 0, 0]),
        ("gateway 224.0.0.1", vec![3, 4, 224, 0, 0, 1]),
        ("gateway 127.0.0.1", vec![3, 4, 127, 0, 0, 1]),
        ("gateway is ourselves", vec![3, 4, 192, 168, 77, 60]),
        ("gateway elsewhere", vec![3, 4, 10, 9, 8, 7]),
        ("name server 0.0.0.0", vec![6, 4, 0, 0, 0, 0]),
        ("name server 255.255.255.255", vec![6, 4, 255, 255, 255, 255]),
        ("sixty name servers", [&[6, 240][..], &[9; 240]].concat()),
        ("sixty time servers", [&[42, 240][..], &[9; 240]].concat()),
        ("a lease of 0 s", vec![51, 4, 0, 0, 0, 0]),
        ("a lease of 1 s", vec![51, 4, 0, 0, 0, 1]),
        ("a lease for ever", vec![51, 4, 255, 255, 255, 255]),
        ("renewal after the end", vec![51, 4, 0, 0, 1, 0, 58, 4, 0, 1, 0, 0, 59, 4, 0, 0, 0, 1]),
        ("a name for a shell", [&[12, 12][..], b"$(reboot);`x", &[15, 5], b"\n/../"].concat()),
        ("a boot file", [&[67, 9][..], b"/etc/pass", &[66, 4], b"evil"].concat()),
        ("an MTU of 0", vec![26, 2, 0, 0]),
        ("an MTU of 68", vec![26, 2, 0, 68]),
        ("overload", vec![52, 1, 3]),
        ("overload, long", vec![52, 3, 1, 2, 3]),
        ("three hundred options", (0..300u32).flat_map(|n| [100 + (n % 20) as u8, 1, 0]).collect()),
        ("padding", vec![0; 1000]),
        ("two masks", [MASK, &[1, 4, 255, 0, 0, 0]].concat()),
        ("a proxy", [&[252, 17][..], b"http://evil/x.pac"].concat()),
        ("fifty routes", [&[121, 250][..], &[8, 9, 1, 2, 3].repeat(50)].concat()),
        ("a route to the name servers' loopback", vec![121, 9, 32, 127, 0, 0, 1, 192, 168, 77, 1]),
    ];
    for (name, options) in odd {
        let script = move |q: &Question| vec![q.honest(&options)];
        add(name.into(), End::Address, Box::new(script));
    }
    add(
        "a hundred answers to others first".into(),
        End::Address,
        Box::new(|q| {
            let mut other = q.honest(&[]);
            other[33] ^= 1;
            let mut answers = vec![other; 100];
            answers.push(q.honest(&[]));
            answers
        }),
    );
    add("every answer twice".into(), End::Address, Box::new(|q| vec![q.honest(&[]); 2]));
    add(
        "no end mark".into(),
        End::Address,
        Box::new(|q| {
            let mut answer = q.honest(&[]);
            answer.pop();
            vec![answer]
        }),
    );
    all
}

fn settings() -> Settings {
    // Longer than the client's pause after its first question, so that a second one comes.
    let dhcp = Duration::from_millis(2800);
    Settings { ipv6: false, carrier: Duration::from_secs(5), dhcp, ..Settings::default() }
}

fn judge(lab: &Lab, behaviour: Behaviour) {
    let Behaviour { name, script, end } = behaviour;
    let server = Scripted::start(lab, script);
    let mut notes = Notes::for_seconds(30);
    let began = Instant::now();
    let result = lab.configure(&settings(), &mut notes);
    assert!(began.elapsed() < Duration::from_secs(8), "{name}: {:?}", began.elapsed());
    assert!(server.asked.load(Ordering::Relaxed) > 0, "{name}: nobody asked");
    assert!(notes.lines.len() < 30, "{name}: {:?}", notes.lines);
    match (end, result) {
        (End::Nothing(why), Err(Error::NoAddress { seen, .. })) => {
            let told = notes.lines.join("\n") + &seen;
            assert!(told.contains(why), "{name}: {told}");
            assert!(!ip("-4 addr show dev dev0").contains("inet"), "{name}");
        }
        (End::Address, Ok(up)) => {
            assert_eq!(addresses(&up), ["192.168.77.60/24"], "{name}");
            assert!(ip("link show dev dev0").contains("mtu 1500"), "{name}");
            assert!(lab.resolver().lines().count() <= 4, "{name}");
        }
        (end, result) => {
            panic!("{name}: {end:?}, and not {:?}: {:?}", result.map(|up| up.to_string()), notes.lines)
        }
    }
    drop(server);
}

#[test]
fn whatever_a_server_answers_ends_in_time() {
    let behaviours = behaviours();
    let count = behaviours.len();
    let queue = std::sync::Mutex::new(behaviours);
    let next = || queue.lock().unwrap().pop();
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                alone(|lab| {
                    while let Some(behaviour) = next() {
                        judge(lab, behaviour);
                    }
                    // After all that, an honest one is understood.
                    let _server = Scripted::start(lab, |q| vec![q.honest(&[3, 4, 192, 168, 77, 1])]);
                    let up = lab.configure(&settings(), &mut Notes::for_seconds(30)).unwrap();
                    assert_eq!(up.to_string(), "dev0: 192.168.77.60/24 through 192.168.77.1");
                });
            });
        }
    });
    println!("{count} behaviours of DHCP servers");
    assert!(count >= 120, "{count}");
}

#[test]
fn a_lease_is_renewed_and_its_end_is_told() {
    alone(|lab| {
        // 60 s, renewed after 16 and asked of everybody after 20: a shorter one would be taken for too short.
        let times = [51, 4, 0, 0, 0, 60, 58, 4, 0, 0, 0, 16, 59, 4, 0, 0, 0, 20];
        let requests = Arc::new(AtomicUsize::new(0));
        let seen = requests.clone();
        let _server = Scripted::start(lab, move |q| match (q.kind(), seen.load(Ordering::Relaxed)) {
            (1, _) => vec![q.honest(&times)],
            (_, before) => {
                seen.fetch_add(1, Ordering::Relaxed);
                // A yes, then a yes to the renewal, then a no.
                if before < 2 { vec![q.honest(&times)] } else { vec![q.answer(6, SERVER)] }
            }
        });
        let mut notes = Notes::for_seconds(60);
        let mut up = lab.configure(&settings(), &mut notes).unwrap();
        let began = Instant::now();
        let lost = loop {
            assert!(began.elapsed() < Duration::from_secs(50), "{:?}", notes.lines);
            match up.tend(&mut notes) {
                Ok(()) => std::thread::sleep(Duration::from_millis(200)),
                Err(error) => break error,
            }
            assert_eq!(addresses(&up), ["192.168.77.60/24"]);
        };
        assert_eq!(lost, Error::Lost { interface: "dev0".into(), what: "its address" });
        assert_eq!(requests.load(Ordering::Relaxed), 3);
        assert!(began.elapsed() > Duration::from_secs(30), "{:?}", began.elapsed());
        assert!(notes.has("refuses the address"), "{:?}", notes.lines);
        assert!(!ip("-4 addr show dev dev0").contains("inet"));
    });
}
