//! Runs in a guest with simulated radios: the product's own `net::wifi`, driven a line at a time from the console.
//!
//! `sh COMMAND`, `scan`, `join NAME KIND [SECRET]` (KIND: any, wpa2, wpa3, psk, open, hidden), `joined`, `quit`. A blank in a name or
//! secret is typed as `\x20`. What it answers begins with `radio: `.

use std::io::BufRead;
use std::process::Command;
use std::time::Instant;

use bootward::net::Watch;
use bootward::net::wifi::{Key, Origin, Profile, Radio, Secret, Settings, wire};

struct Console;

impl Watch for Console {
    fn tell(&mut self, line: &str) {
        println!("radio: told {line}");
    }
    fn alive(&mut self) -> bool {
        true
    }
}

fn profile(words: &[&str]) -> Result<Profile, String> {
    let [name, kind, secret @ ..] = words else { return Err("join NAME KIND [SECRET]".into()) };
    let decoded =
        |text: &str| wire::decode(text.as_bytes()).ok_or_else(|| format!("{text} is no name or secret"));
    let secret = Secret::new(secret.first().map(|s| decoded(s)).transpose()?.unwrap_or_default());
    let key = match *kind {
        "any" | "hidden" => Key::Passphrase(secret),
        "wpa2" => Key::Wpa2(secret),
        "wpa3" => Key::Wpa3(secret),
        "psk" => Key::Psk(secret),
        "open" => Key::Open,
        other => return Err(format!("{other} is no kind")),
    };
    let mut profile = Profile::new(decoded(name)?, key, Origin::Operator).map_err(|e| e.to_string())?;
    profile.hidden = *kind == "hidden";
    Ok(profile)
}

fn obey(radio: &mut Radio, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["scan"] => {
            let seen = radio.scan(&mut Console).map_err(|e| e.to_string())?;
            let shown: Vec<String> = seen
                .iter()
                .map(|s| format!("{} ({}, {} MHz, {} dBm)", s.name(), s.protection, s.frequency, s.signal))
                .collect();
            Ok(format!("seen {}", shown.join(", ")))
        }
        ["join", rest @ ..] => {
            let joined = radio.join(&profile(rest)?, &[], &mut Console).map_err(|e| e.to_string())?;
            let [.., bssid] = joined.bssid;
            Ok(format!("joined {} by {} at {bssid:02x}", joined.name, joined.key_mgmt))
        }
        ["sh", rest @ ..] => {
            let status = Command::new("/lab/busybox").args(["sh", "-c", &rest.join(" ")]).status();
            let status = status.map_err(|e| e.to_string())?;
            if status.success() { Ok("done".into()) } else { Err(status.to_string()) }
        }
        ["joined"] => Ok(format!("is joined: {}", radio.is_joined())),
        _ => Err("scan, join, joined, quit".into()),
    }
}

fn main() {
    bootward::logging::to_stderr(log::LevelFilter::Debug);
    let interface = std::env::args().nth(1).unwrap_or_else(|| "wlan0".into());
    let settings = Settings { country: "US".into(), ..Settings::default() };
    let mut radio = match Radio::start(&interface, &settings, &mut Console) {
        Ok(radio) => radio,
        Err(e) => {
            println!("radio: failed {e}");
            return;
        }
    };
    println!("radio: ready");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if line.trim() == "quit" {
            break;
        }
        let begun = Instant::now();
        let said = obey(&mut radio, &line).unwrap_or_else(|why| format!("failed {why}"));
        println!("radio: {said} ({} ms)", begun.elapsed().as_millis());
    }
    drop(radio);
    println!("radio: ended");
}
