//! iwd's known networks: a file each, `/var/lib/iwd/NAME.psk`. Ring: alloc.
//!
//! Format: iwd.network(5). A name with other letters than `A-Z a-z 0-9 _ -` and the blank is `=` and its bytes in
//! hexadecimal digits.

use alloc::vec::Vec;

use super::super::profile::{Key, Origin, Profile};
use super::{Left, ini};

/// Reads one network; `None` where the file is none.
///
/// # Errors
/// Why it is left out.
pub fn parse(name: &str, file: &[u8]) -> Result<Option<Profile>, Left> {
    let Some((stem, kind)) = name.rsplit_once('.') else { return Ok(None) };
    let key = match kind {
        "open" => Key::Open,
        "psk" => {
            match (ini::value(file, "Security", "Passphrase"), ini::value(file, "Security", "PreSharedKey")) {
                (Some(passphrase), _) => Key::Passphrase(passphrase),
                (None, Some(digits)) => Key::Psk(digits),
                (None, None) => return Err(Left::NoSecret),
            }
        }
        "8021x" => return Err(Left::Kind("8021x".into())),
        _ => return Ok(None),
    };
    if ini::word(file, "Settings", "AutoConnect") == "false" {
        return Err(Left::Off);
    }
    let ssid: Vec<u8> = match stem.strip_prefix('=') {
        Some(digits) => {
            ini::from_hex(digits.as_bytes()).ok_or(Left::Form("its name is no hexadecimal digits"))?
        }
        None => stem.into(),
    };
    let mut profile = Profile::new(ssid, key, Origin::Escrow)?;
    profile.hidden = ini::yes(file, "Settings", "Hidden");
    Ok(Some(profile))
}

#[cfg(test)]
mod tests {
    use super::super::super::profile::Secret;
    use super::*;

    #[test]
    fn networks_as_iwd_writes_them() {
        let text =
            b"[Security]\nPreSharedKey=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n\
            Passphrase=correct horse\nSAE-PT-Group19=00\n\n[Settings]\nHidden=true\n";
        let profile = parse("My Home.psk", text).unwrap().unwrap();
        assert_eq!((profile.ssid.as_slice(), profile.hidden), (&b"My Home"[..], true));
        assert_eq!(profile.key, Key::Passphrase(Secret::new("correct horse")));
        let profile = parse("=436166c3a9.psk", &text[..88]).unwrap().unwrap();
        assert_eq!((profile.ssid.as_slice(), profile.key.kind()), ("Café".as_bytes(), "WPA2"));
        assert_eq!(parse("Cafe.open", b"").unwrap().unwrap().key, Key::Open);
        assert_eq!(parse("Work.8021x", b""), Err(Left::Kind("8021x".into())));
        assert_eq!(parse("x.psk", b"[Security]\n"), Err(Left::NoSecret));
        assert_eq!(
            parse("x.psk", b"[Security]\nPassphrase=12345678\n[Settings]\nAutoConnect=false\n"),
            Err(Left::Off)
        );
        assert_eq!(parse(".known_network.freq", b""), Ok(None));
    }
}
