//! Name servers that are silent, slow, broken or lie: a name is found or not within the time that it has.

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use bootward::fetch::resolve::resolve;

use super::lab::{alone, ip};

/// A question, taken apart: its number, what was asked word for word, and its type.
struct Question<'a> {
    bytes: &'a [u8],
    asked: &'a [u8],
    kind: u16,
}

impl<'a> Question<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let end = 12 + bytes.get(12..)?.iter().position(|b| *b == 0)?;
        let kind = u16::from_be_bytes(bytes.get(end + 1..end + 3)?.try_into().ok()?);
        Some(Question { bytes, asked: bytes.get(12..end + 5)?, kind })
    }

    /// The number in the first label: which behaviour is wanted.
    fn number(&self) -> Option<usize> {
        let length = usize::from(self.asked[0]);
        std::str::from_utf8(&self.asked[1..=length]).ok()?.strip_prefix('b')?.parse().ok()
    }

    /// An answer with these flags, counts and records.
    fn answer(&self, flags: u16, counts: [u16; 4], records: &[u8]) -> Vec<u8> {
        let mut bytes = self.bytes[..2].to_vec();
        bytes.extend(flags.to_be_bytes());
        counts.iter().for_each(|count| bytes.extend(count.to_be_bytes()));
        bytes.extend(self.asked);
        bytes.extend(records);
        bytes
    }

    /// A record for the name that was asked (a pointer to it), of this type.
    fn record(kind: u16, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xc0, 12];
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 60]);
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
        bytes
    }

    fn found(&self, addresses: &[[u8; 4]]) -> Vec<u8> {
        if self.kind != 1 {
            return self.answer(0x8180, [1, 0, 0, 0], &[]);
        }
        let records: Vec<u8> = addresses.iter().flat_map(|a| Question::record(1, a)).collect();
        self.answer(0x8180, [1, addresses.len() as u16, 0, 0], &records)
    }
}

type Script = fn(&Question) -> Vec<Vec<u8>>;

/// Every behaviour, with the address that it may lead to; none: no address at all.
const BEHAVIOURS: &[(&str, Script, Option<&str>)] = &[
    ("honest", |q| vec![q.found(&[[192, 168, 77, 9]])], Some("192.168.77.9")),
    ("silent", |_| vec![], None),
    ("empty", |_| vec![vec![]], None),
    ("one byte", |q| vec![q.bytes[..1].to_vec()], None),
    ("half a head", |q| vec![q.bytes[..6].to_vec()], None),
    ("only a head", |q| vec![q.bytes[..12].to_vec()], None),
    ("the question back", |q| vec![q.bytes.to_vec()], None),
    (
        "another number",
        |q| {
            let mut a = q.found(&[[6; 4]]);
            a[0] ^= 1;
            vec![a]
        },
        None,
    ),
    (
        "a flood of other numbers",
        |q| {
            let mut a = q.found(&[[6; 4]]);
            a[1] ^= 1;
            vec![a; 500]
        },
        None,
    ),
    (
        "another name",
        |q| {
            let mut a = q.found(&[[6; 4]]);
            a[13] ^= 1;
            vec![a]
        },
        None,
    ),
    ("no such name", |q| vec![q.answer(0x8183, [1, 0, 0, 0], &[])], None),
    ("failure", |q| vec![q.answer(0x8182, [1, 0, 0, 0], &[])], None),
    ("refused", |q| vec![q.answer(0x8185, [1, 0, 0, 0], &[])], None),
    ("not implemented", |q| vec![q.answer(0x8184, [1, 0, 0, 0], &[])], None),
    ("a reserved code", |q| vec![q.answer(0x818f, [1, 0, 0, 0], &[])], None),
    ("a name without an address", |q| vec![q.answer(0x8180, [1, 0, 0, 0], &[])], None),
    ("more answers told than there are", |q| vec![q.answer(0x8180, [1, 65_535, 65_535, 65_535], &[])], None),
    (
        "no question in it",
        |q| {
            let mut a = q.found(&[[6; 4]]);
            a[5] = 0;
            vec![a]
        },
        None,
    ),
    (
        "an address of three bytes",
        |q| vec![q.answer(0x8180, [1, 1, 0, 0], &Question::record(1, &[1, 2, 3]))],
        None,
    ),
    (
        "an address of five bytes",
        |q| vec![q.answer(0x8180, [1, 1, 0, 0], &Question::record(1, &[1, 2, 3, 4, 5]))],
        None,
    ),
    (
        "a record past the end",
        |q| {
            let mut r = Question::record(1, &[1, 2, 3, 4]);
            r[11] = 200;
            vec![q.answer(0x8180, [1, 1, 0, 0], &r)]
        },
        None,
    ),
    (
        "a name that points at itself",
        |q| {
            let at = 12 + q.asked.len();
            let mut r = Question::record(1, &[6; 4]);
            r[0] = 0xc0 | (at >> 8) as u8;
            r[1] = at as u8;
            vec![q.answer(0x8180, [1, 1, 0, 0], &r)]
        },
        None,
    ),
    (
        "a pointer past the end",
        |q| {
            let mut r = Question::record(1, &[6; 4]);
            (r[0], r[1]) = (0xff, 0xff);
            vec![q.answer(0x8180, [1, 1, 0, 0], &r)]
        },
        None,
    ),
    (
        "a chain of names that turns back",
        |q| {
            let r = Question::record(5, &[0xc0, 12]);
            vec![q.answer(0x8180, [1, 1, 0, 0], &r)]
        },
        None,
    ),
    (
        "two hundred names in a chain",
        |q| {
            let r = Question::record(5, b"\x01x\x07invalid\0").repeat(20);
            vec![q.answer(0x8180, [1, 20, 0, 0], &r)]
        },
        None,
    ),
    (
        "a name with a line in it",
        |q| {
            let r = Question::record(5, b"\x05a\nb\0c\0");
            vec![q.answer(0x8180, [1, 1, 0, 0], &r)]
        },
        None,
    ),
    ("a hundred addresses", |q| vec![q.found(&[[192, 168, 77, 9]; 100])], Some("192.168.77.9")),
    ("everybody's address", |q| vec![q.found(&[[255; 4]])], Some("255.255.255.255")),
    ("nobody's address", |q| vec![q.found(&[[0; 4]])], Some("0.0.0.0")),
    ("this device's address", |q| vec![q.found(&[[127, 0, 0, 1]])], Some("127.0.0.1")),
    (
        "cut, and nothing by TCP",
        |q| {
            let mut a = q.found(&[[6; 4]]);
            a[2] |= 2;
            vec![a]
        },
        None,
    ),
    (
        "sixty thousand bytes",
        |q| {
            let mut a = q.found(&[[192, 168, 77, 9]]);
            a.resize(60_000, 0);
            vec![a]
        },
        None,
    ),
    (
        "answers twice, differently",
        |q| vec![q.found(&[[192, 168, 77, 9]]), q.found(&[[6; 4]])],
        Some("192.168.77.9"),
    ),
    (
        "late by three seconds",
        |q| {
            std::thread::sleep(Duration::from_secs(3));
            vec![q.found(&[[192, 168, 77, 9]])]
        },
        None,
    ),
];

/// The time for one name.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn whatever_a_name_server_answers_ends_in_time() {
    alone(|lab| {
        ip("link set lo up");
        ip("link set dev0 up");
        ip("addr add 192.168.77.60/24 dev dev0");
        lab.there("ip addr add 192.168.77.1/24 dev srv0");
        let (ready, is_ready) = std::sync::mpsc::channel();
        lab.over_there(move || {
            let socket = UdpSocket::bind("192.168.77.1:53").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            ready.send(()).unwrap();
            let mut buffer = [0; 2000];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let bytes = buffer[..length].to_vec();
                let socket = socket.try_clone().unwrap();
                std::thread::spawn(move || {
                    let Some(question) = Question::parse(&bytes) else { return };
                    let Some((_, script, _)) = question.number().and_then(|n| BEHAVIOURS.get(n)) else {
                        return;
                    };
                    script(&question).iter().for_each(|answer| drop(socket.send_to(answer, from)));
                });
            }
        });
        is_ready.recv().unwrap();
        std::fs::write(&lab.places.resolver, "nameserver 192.168.77.1\noptions timeout:6 attempts:3\n")
            .unwrap();
        // In a process of its own: the C library keeps what it has read, and the machine's /etc stays as it is.
        let mut child = Command::new("unshare");
        child.args(["-m", "--propagation", "private", "sh", "-c"]);
        child.arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"").arg(&lab.places.resolver);
        child.arg(std::env::current_exe().unwrap());
        child.args(["--exact", "net::names::ask_for_all_names", "--ignored", "--nocapture"]);
        let out = child.output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success() && text.contains("1 passed"), "{text}");
        println!("{} behaviours of name servers", BEHAVIOURS.len());
    });
}

#[test]
#[ignore = "the other half of the test above, which runs it"]
fn ask_for_all_names() {
    let threads: Vec<_> = (0..BEHAVIOURS.len())
        .map(|number| {
            std::thread::spawn(move || {
                let (name, _, wanted) = BEHAVIOURS[number];
                let began = Instant::now();
                let found = resolve(&format!("b{number}.example"), 80, PATIENCE, &mut || true);
                assert!(began.elapsed() < PATIENCE + Duration::from_secs(2), "{name}: {:?}", began.elapsed());
                println!("{name}: {found:?} in {:?}", began.elapsed());
                match (&found, wanted) {
                    (Ok(found), Some(wanted)) => {
                        assert!(found.len() <= 8, "{name}");
                        assert!(found.iter().any(|a| a.ip().to_string() == wanted), "{name}: {found:?}");
                    }
                    (Err(cause), None) => assert!(!cause.is_empty(), "{name}"),
                    // Whether a late or damaged answer still counts is the library's affair.
                    (Ok(found), None) => assert!(found.len() <= 8, "{name}: {found:?}"),
                    (Err(cause), Some(_)) => panic!("{name}: {cause}"),
                }
            })
        })
        .collect();
    assert_eq!(threads.into_iter().filter_map(|thread| thread.join().err()).count(), 0);
}
