//! ConnMan's services: provisioning files (`*.config`) and what it stores itself (`wifi_*/settings`). Ring: alloc.
//!
//! Format: connman-service.config(5), and src/service.c for the stored form.

use alloc::vec::Vec;

use super::super::profile::{Key, Origin, Profile, Secret};
use super::{Left, ini};

/// More services than this are not taken from one file.
const SERVICES_MAX: usize = 64;

/// Reads a file; each service of Wi-Fi is a profile, or why it is left out.
pub fn parse(file: &[u8]) -> Vec<Result<Profile, Left>> {
    let services = ini::groups(file, SERVICES_MAX).into_iter();
    services
        .filter(|g| g.starts_with("service_") || g.starts_with("wifi_"))
        .filter_map(|g| service(file, g))
        .collect()
}

fn service(file: &[u8], group: &str) -> Option<Result<Profile, Left>> {
    let provisioned = group.starts_with("service_");
    if provisioned && ini::word(file, group, "Type") != "wifi" {
        return None;
    }
    if !provisioned && ini::word(file, group, "AutoConnect") == "false" {
        return Some(Err(Left::Off));
    }
    let ssid = match ini::raw(file, group, "SSID") {
        Some(digits) => ini::from_hex(digits),
        None => ini::value(file, group, "Name").map(|name| name.bytes().to_vec()),
    };
    let Some(ssid) = ssid else { return Some(Err(Left::Form("a service has no SSID"))) };
    Some(key(file, group, provisioned).and_then(|key| {
        let mut profile = Profile::new(ssid, key, Origin::Escrow)?;
        profile.hidden = ini::yes(file, group, "Hidden");
        Ok(profile)
    }))
}

fn key(file: &[u8], group: &str, provisioned: bool) -> Result<Key, Left> {
    let security = ini::word(file, group, "Security");
    if ini::raw(file, group, "EAP").is_some() || security == "ieee8021x" || group.ends_with("_ieee8021x") {
        return Err(Left::Kind("ieee8021x".into()));
    }
    let secret = ini::value(file, group, "Passphrase").filter(|s| !s.bytes().is_empty());
    match (security, secret) {
        ("wep", _) => Err(Left::Kind("wep".into())),
        (_, Some(secret)) => Ok(of(secret)),
        ("none", None) => Ok(Key::Open),
        // The kind is in the name of what it stored itself.
        ("", None) if provisioned || group.ends_with("_none") => Ok(Key::Open),
        (_, None) => Err(Left::NoSecret),
    }
}

fn of(secret: Secret) -> Key {
    if secret.bytes().len() == 64 { Key::Psk(secret) } else { Key::Passphrase(secret) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provisioned_and_stored() {
        let text = b"[global]\nName = Example\n\n[service_home]\nType = wifi\nName = Home\nPassphrase = correct horse\n\
            Hidden = true\n\n[service_wire]\nType = ethernet\n\n[service_cafe]\nType = wifi\nSSID = 436166c3a9\n\n\
            [service_work]\nType = wifi\nName = Work\nEAP = tls\n\n\
            [wifi_00_486f6d65_managed_psk]\nName=Home2\nSSID=486f6d6532\nFavorite=true\nAutoConnect=true\nPassphrase=12345678\n\
            [wifi_00_61_managed_psk]\nSSID=61\nAutoConnect=true\n";
        let all = parse(text);
        let names: Vec<_> = all.iter().map(|s| s.as_ref().map(|p| (p.name(), p.key.kind()))).collect();
        assert_eq!(
            names,
            [
                Ok(("Home".into(), "WPA2/WPA3")),
                Ok(("Café".into(), "open")),
                Err(&Left::Kind("ieee8021x".into())),
                Ok(("Home2".into(), "WPA2/WPA3")),
                Err(&Left::NoSecret)
            ]
        );
        assert!(all[0].as_ref().unwrap().hidden);
    }
}
