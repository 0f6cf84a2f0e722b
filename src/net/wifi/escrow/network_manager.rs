//! NetworkManager's profiles. Ring: alloc.
//!
//! Format: nm-settings-keyfile(5); the names of groups of old versions are taken too (`802-11-wireless`). A network's name is
//! text, or its bytes as numbers that end in `;`.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::profile::{Key, Origin, Profile, Secret};
use super::{Left, ini};

/// Reads one profile; `None` where it is for no Wi-Fi.
///
/// # Errors
/// Why it is left out.
pub fn parse(file: &[u8], interface: &str) -> Result<Option<Profile>, Left> {
    if !matches!(ini::word(file, "connection", "type"), "wifi" | "802-11-wireless") {
        return Ok(None);
    }
    let group = |new: &'static str, old: &'static str| {
        if ini::groups(file, 64).contains(&new) { new } else { old }
    };
    let wifi = group("wifi", "802-11-wireless");
    let security = group("wifi-security", "802-11-wireless-security");
    let own = ini::word(file, "connection", "interface-name");
    if !own.is_empty() && own != interface {
        return Err(Left::Elsewhere(own.into()));
    }
    if ini::word(file, "connection", "autoconnect") == "false" {
        return Err(Left::Off);
    }
    let mode = ini::word(file, wifi, "mode");
    if !matches!(mode, "" | "infrastructure") {
        return Err(Left::Kind(mode.into()));
    }
    let ssid = ini::value(file, wifi, "ssid").ok_or(Left::Form("it has no ssid"))?;
    let key = key(file, security)?;
    let mut profile = Profile::new(name(&ssid), key, Origin::Escrow)?;
    profile.hidden = ini::yes(file, wifi, "hidden");
    profile.priority = ini::word(file, "connection", "autoconnect-priority").parse().unwrap_or(0);
    Ok(Some(profile))
}

/// `72;111;109;101;` is "Home"; anything else is the name itself.
fn name(text: &Secret) -> Vec<u8> {
    let bytes = text.bytes();
    let numbers = bytes.strip_suffix(b";").and_then(|list| core::str::from_utf8(list).ok());
    let numbers = numbers.and_then(|list| list.split(';').map(|n| n.trim().parse().ok()).collect());
    numbers.unwrap_or_else(|| bytes.to_vec())
}

fn key(file: &[u8], security: &str) -> Result<Key, Left> {
    let kind = ini::word(file, security, "key-mgmt");
    if kind.is_empty() || kind == "none" && ini::raw(file, security, "wep-key0").is_none() {
        return Ok(Key::Open);
    }
    let secret = || ini::value(file, security, "psk").filter(|s| !s.bytes().is_empty()).ok_or(Left::NoSecret);
    match kind {
        "wpa-psk" => {
            let secret = secret()?;
            let digits = secret.bytes().len() == 64;
            // It joins WPA3 networks with this kind as well, where the passphrase itself is known.
            Ok(if digits { Key::Psk(secret) } else { Key::Passphrase(secret) })
        }
        "sae" => Ok(Key::Wpa3(secret()?)),
        other => Err(Left::Kind(other.to_string())),
    }
}

/// The profiles that were used last come first: `/var/lib/NetworkManager/timestamps` has when, by the profile's UUID.
pub fn last_used(timestamps: &[u8], file: &[u8]) -> u64 {
    let uuid: String = ini::word(file, "connection", "uuid").into();
    if uuid.is_empty() { 0 } else { ini::word(timestamps, "timestamps", &uuid).parse().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `nmcli --offline connection add type wifi ...` prints it.
    const HOME: &str = "[connection]\nid=Home\nuuid=6f1a4c52-1ae8-4d6e-b1c1-6c5f3b1f2a30\ntype=wifi\ninterface-name=wlan0\n\
        autoconnect-priority=7\n\n[wifi]\nmode=infrastructure\nssid=Home\nhidden=true\n\n[wifi-security]\nkey-mgmt=wpa-psk\n\
        psk=\\scorrect\\\\horse\n\n[ipv4]\nmethod=auto\n\n[ipv6]\naddr-gen-mode=default\nmethod=auto\n\n[proxy]\n";

    fn of(text: &str) -> Result<Option<Profile>, Left> {
        parse(text.as_bytes(), "wlan0")
    }

    #[test]
    fn a_profile_as_nmcli_writes_it() {
        let profile = of(HOME).unwrap().unwrap();
        assert_eq!((profile.name().as_str(), profile.hidden, profile.priority), ("Home", true, 7));
        assert_eq!(profile.key, Key::Passphrase(Secret::new(" correct\\horse")));
        assert_eq!(parse(HOME.as_bytes(), "wlan1"), Err(Left::Elsewhere("wlan0".into())));
        assert_eq!(of(&HOME.replace("type=wifi", "type=ethernet")), Ok(None));
    }

    #[test]
    fn names_as_numbers_and_groups_of_old() {
        let old = HOME.replace("[wifi", "[802-11-wireless").replace("ssid=Home", "ssid=67;97;102;195;169;");
        assert_eq!(of(&old).unwrap().unwrap().ssid, "Café".as_bytes());
        assert_eq!(of(&HOME.replace("ssid=Home", "ssid=1;300;")).unwrap().unwrap().ssid, b"1;300;");
    }

    #[test]
    fn the_other_kinds() {
        let kind = |text: &str| of(text).unwrap().unwrap().key.kind();
        assert_eq!(kind(&HOME.replace("wpa-psk", "sae")), "WPA3");
        assert_eq!(
            kind(&HOME.replace("psk=\\scorrect\\\\horse", &alloc::format!("psk={}", "0a".repeat(32)))),
            "WPA2"
        );
        assert_eq!(kind("[connection]\ntype=wifi\n[wifi]\nssid=x\n"), "open");
        assert_eq!(of(&HOME.replace("wpa-psk", "wpa-eap")), Err(Left::Kind("wpa-eap".into())));
        assert_eq!(of(&HOME.replace("psk=\\scorrect\\\\horse", "psk-flags=1")), Err(Left::NoSecret));
        assert_eq!(of(&HOME.replace("mode=infrastructure", "mode=ap")), Err(Left::Kind("ap".into())));
        assert_eq!(of(&HOME.replace("id=Home", "autoconnect=false")), Err(Left::Off));
    }

    #[test]
    fn what_was_used_last() {
        let stamps = b"[timestamps]\n6f1a4c52-1ae8-4d6e-b1c1-6c5f3b1f2a30=1764300000\n";
        assert_eq!(last_used(stamps, HOME.as_bytes()), 1_764_300_000);
        assert_eq!(last_used(b"", HOME.as_bytes()), 0);
    }
}
