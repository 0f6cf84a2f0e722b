//! Clocks and the kernel's boot id.

use nix::time::{ClockId, clock_gettime};

/// Seconds since 1970, as the device believes.
pub fn wall() -> i64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |t| t.tv_sec())
}

/// Milliseconds since the kernel started; stops at 2³² − 1 (49 days).
pub fn uptime() -> u32 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME);
    now.map_or(0, |t| u32::try_from(t.tv_sec() * 1000 + t.tv_nsec() / 1_000_000).unwrap_or(u32::MAX))
}

/// The random id of this boot; zero where the kernel does not tell.
pub fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut id = [0; 16];
    let mut digits = text.chars().filter_map(|c| c.to_digit(16));
    for byte in &mut id {
        if let (Some(high), Some(low)) = (digits.next(), digits.next()) {
            *byte = (high << 4 | low) as u8;
        }
    }
    id
}

/// A moment as `2026-11-24 15:06:12 UTC` (proleptic Gregorian, days counted from March as civil calendars
/// make easiest).
pub fn civil(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::civil;

    #[test]
    fn moments_as_date_prints_them() {
        for seconds in
            [0, 1, 951_782_400, 1_709_164_799, 1_709_164_800, 2_147_483_647, 4_102_444_800, -86_401]
        {
            let date = std::process::Command::new("date")
                .args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%d %H:%M:%S UTC"])
                .output()
                .unwrap();
            assert_eq!(civil(seconds), String::from_utf8(date.stdout).unwrap().trim());
        }
    }
}
