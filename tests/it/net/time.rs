//! Time servers: chrony, and a table of what others may answer. Nobody's clock is set here.

use std::net::UdpSocket;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bootward::net::Error;
use bootward::net::clock::{BUILT, time_from};
use bootward::net::sntp::MAX_AHEAD;

use super::lab::{Lab, Notes, alone, ip};

fn linked(lab: &Lab) {
    ip("link set lo up");
    ip("link set dev0 up");
    ip("addr add 192.168.77.60/24 dev dev0");
    lab.there("ip addr add 192.168.77.1/24 dev srv0");
}

/// As tests/vm/setup unpacks it.
const CHRONY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/lab/chrony/usr/sbin/chronyd");

#[test]
fn the_time_from_chrony() {
    alone(|lab| {
        linked(lab);
        // It has no server of its own: first it says so, then the machine's clock is declared to be right.
        let serve = |directive: &str| {
            // No file of it may be /dev/null: chronyd replaces its drift file by a rename, the machine's device then.
            let files = lab.directory.path();
            let config = format!(
                "{directive}\nallow\ncmdport 0\nuser root\npidfile {0}/pid\ndriftfile {0}/drift\n",
                files.display()
            );
            let path = files.join("chrony.conf");
            std::fs::write(&path, config).unwrap();
            // -x: it does not touch the clock.
            lab.serve(CHRONY, &["-d", "-x", "-u", "root", "-f", path.to_str().unwrap()])
        };
        let servers = ["192.168.77.250".to_string(), "192.168.77.1".to_string()];
        let ask = |servers: &[String]| time_from(servers, BUILT, &mut Notes::for_seconds(60));
        let server = serve("");
        let until = Instant::now() + Duration::from_secs(10);
        let error = loop {
            match ask(&servers[1..]) {
                Err(Error::NoTime { seen })
                    if !seen.contains("has no time itself") && Instant::now() < until =>
                {
                    std::thread::sleep(Duration::from_millis(100));
                }
                other => break other.unwrap_err().to_string(),
            }
        };
        assert!(error.contains("192.168.77.1: the server has no time itself"), "{error}");
        drop(server);
        let _server = serve("local stratum 8");
        let until = Instant::now() + Duration::from_secs(10);
        // The first server does not exist.
        let told = loop {
            match ask(&servers) {
                Err(error) => assert!(Instant::now() < until, "{error}"),
                Ok(told) => break told,
            }
        };
        assert_eq!(told.server, "192.168.77.1");
        let told = told.at + told.since.elapsed();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(now.abs_diff(told) < Duration::from_secs(1), "{told:?} {now:?}");
    });
}

/// An honest answer to a question, for this time.
fn answer(question: &[u8], at: u64) -> Vec<u8> {
    let mut bytes = vec![0x24, 2, 6, 0xe9];
    bytes.resize(24, 0);
    bytes.extend(&question[40..48]);
    for _ in 0..2 {
        bytes.extend((((at + 2_208_988_800) as u32) as u64 * (1 << 32)).to_be_bytes());
    }
    bytes
}

type Script = Box<dyn Fn(&[u8]) -> Vec<Vec<u8>> + Send>;

/// Every behaviour: its name, what it answers, and what is in the reason, or nothing where the time is taken.
fn behaviours() -> Vec<(String, Script, Option<&'static str>)> {
    const NOW: u64 = BUILT + 86_400;
    let mut all: Vec<(String, Script, Option<&'static str>)> = Vec::new();
    let mut add = |name: String, why, script: Script| all.push((name, script, why));
    add("silence".into(), Some("no answer in"), Box::new(|_| vec![]));
    for length in [0, 1, 4, 47, 48, 68, 1500, 60_000] {
        add(
            format!("{length} bytes of 0"),
            Some("no answer of a time server"),
            Box::new(move |_| vec![vec![0; length]]),
        );
    }
    add("the question back".into(), Some("no answer of a time server"), Box::new(|q| vec![q.to_vec()]));
    for head in [0x04, 0x0c, 0x14, 0x2c, 0x3c, 0x23, 0x25, 0x26, 0x27] {
        let script = move |q: &[u8]| {
            let mut answer = answer(q, NOW);
            answer[0] = head;
            vec![answer]
        };
        add(format!("head {head:#x}"), Some("no answer of a time server"), Box::new(script));
    }
    for at in 24..32 {
        let script = move |q: &[u8]| {
            let mut answer = answer(q, NOW);
            answer[at] ^= 0x80;
            vec![answer]
        };
        add(format!("originate differs in byte {at}"), Some("answers somebody else"), Box::new(script));
    }
    for (name, at, value, why) in [
        ("stratum 0", 1, 0, "has no time itself"),
        ("stratum 16", 1, 16, "has no time itself"),
        ("stratum 255", 1, 255, "has no time itself"),
        ("not synchronised", 0, 0xe4, "has no time itself"),
    ] {
        let script = move |q: &[u8]| {
            let mut answer = answer(q, NOW);
            answer[at] = value;
            vec![answer]
        };
        add(name.into(), Some(why), Box::new(script));
    }
    for letters in [b"RATE", b"DENY", b"RSTR", b"\x1b[2J", b"\0\0\0\0"] {
        let why = if letters[0].is_ascii_uppercase() { "refuses us: " } else { "has no time itself" };
        let script = move |q: &[u8]| {
            let mut answer = answer(q, NOW);
            answer[1] = 0;
            answer[12..16].copy_from_slice(letters);
            vec![answer; 50]
        };
        add(format!("kiss of death {letters:?}"), Some(why), Box::new(script));
    }
    for (name, from, to, byte, why) in [
        ("never received", 32, 40, 0, "has no time itself"),
        ("never sent", 40, 48, 0, "has no time itself"),
        ("all ones", 32, 48, 0xff, "is absurd"),
    ] {
        let script = move |q: &[u8]| {
            let mut answer = answer(q, NOW);
            answer[from..to].fill(byte);
            vec![answer]
        };
        add(name.into(), Some(why), Box::new(script));
    }
    for (at, why) in [
        (0, Some("is before")),
        (1, Some("is before")),
        (BUILT - 1, Some("is before")),
        (BUILT - 86_400, Some("is before")),
        (BUILT, None),
        (NOW, None),
        (2_085_978_496 + 5, None),
        (BUILT + MAX_AHEAD, None),
        (BUILT + MAX_AHEAD + 60, Some("is absurd")),
        (4_294_967_295, Some("is absurd")),
    ] {
        add(format!("time {at}"), why, Box::new(move |q| vec![answer(q, at)]));
    }
    add(
        "a thousand wrong ones first".into(),
        None,
        Box::new(|q| {
            let mut wrong = answer(q, 0);
            wrong[30] ^= 1;
            let mut answers = vec![wrong; 100];
            answers.push(answer(q, NOW));
            answers
        }),
    );
    add("with an extension".into(), None, Box::new(|q| vec![[answer(q, NOW), vec![7; 400]].concat()]));
    all
}

#[test]
fn whatever_a_time_server_answers_ends_in_time() {
    alone(|lab| {
        linked(lab);
        let all = behaviours();
        let count = all.len();
        let mut waits = Vec::new();
        for (number, (name, script, why)) in all.into_iter().enumerate() {
            let port = 2000 + number as u16;
            let (ready, is_ready) = std::sync::mpsc::channel();
            lab.over_there(move || {
                let socket = UdpSocket::bind(("192.168.77.1", port)).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                ready.send(()).unwrap();
                let mut buffer = [0; 100];
                while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    script(&buffer[..length]).iter().for_each(|answer| drop(socket.send_to(answer, from)));
                }
            });
            is_ready.recv().unwrap();
            // A thread of this one is in its network.
            waits.push(std::thread::spawn(move || {
                let began = Instant::now();
                let told = time_from(&[format!("192.168.77.1:{port}")], BUILT, &mut Notes::for_seconds(60));
                assert!(began.elapsed() < Duration::from_secs(8), "{name}: {:?}", began.elapsed());
                match (told, why) {
                    (Ok(_), None) => {}
                    (Err(Error::NoTime { seen }), Some(why)) if seen.contains(why) => {
                        assert!(!seen.contains('\x1b'), "{name}: {seen:?}");
                    }
                    (told, why) => panic!("{name}: {told:?}, and not {why:?}"),
                }
            }));
        }
        let failed = waits.into_iter().filter_map(|wait| wait.join().err()).count();
        assert_eq!(failed, 0);
        println!("{count} behaviours of time servers");
        assert!(count >= 50, "{count}");
    });
}

#[test]
fn no_server_takes_longer_than_all_may() {
    alone(|lab| {
        linked(lab);
        // Ten silent ones, of which half do not exist.
        let servers: Vec<String> =
            (1..=10).map(|n| format!("192.168.77.{}", if n % 2 == 0 { 1 } else { n + 90 })).collect();
        let began = Instant::now();
        let error = time_from(&servers, BUILT, &mut Notes::for_seconds(100)).unwrap_err();
        assert!(matches!(error, Error::NoTime { .. }), "{error}");
        assert!(
            began.elapsed() < bootward::net::clock::PATIENCE + Duration::from_secs(4),
            "{:?}",
            began.elapsed()
        );
        let began = Instant::now();
        assert_eq!(time_from(&servers, BUILT, &mut Notes::for_seconds(0)), Err(Error::Stopped));
        assert_eq!(time_from(&[], BUILT, &mut Notes::for_seconds(9)), Err(Error::NoTimeServer));
        assert!(began.elapsed() < Duration::from_secs(3));
    });
}
