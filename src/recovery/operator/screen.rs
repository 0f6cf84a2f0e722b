//! What is shown: one screen of 80 by 24, made from the story and the status, and the line below it.
//!
//! Nothing is asked of the terminal but carriage return and line feed. What comes from outside (names of networks, words
//! of servers) is shown as printable ASCII.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::status::{Phase, Progress, Status, Tried};
use super::super::story::{Chapter, Story};

/// Columns that are used: with the last one of 80 filled, many terminals begin a line of their own.
pub const COLUMNS: usize = 79;
/// Lines of the screen; the prompt has one of its own.
pub const ROWS: usize = 23;
/// Columns of what goes on in the prompt.
const LIVE: usize = 56;
/// Columns of the progress bar, and of the one in the prompt.
const BAR: usize = 20;
const LIVE_BAR: usize = 10;
/// Deployments and failures that the screen has room for; `1` and `7` show what is left out.
const DEPLOYMENTS: usize = 4;
const FAILURES: usize = 3;

/// What the screen is made from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Why the device is here.
    pub story: &'a Story,
    /// What it does about it.
    pub status: &'a Status,
    /// Milliseconds since the kernel started.
    pub now: u64,
}

/// A text that is told in full has so many rows at most.
pub(super) const LONGEST: usize = 8;

/// Printable ASCII, at most `width` columns of it.
pub fn plain(text: &str, width: usize) -> String {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let mut line: String = text.chars().take(width).map(printable).collect();
    if text.chars().nth(width).is_some() && width > 2 {
        line.truncate(width - 2);
        line.push_str("..");
    }
    line
}

/// The text in at most `rows` lines, the first one behind `label`, broken at spaces where there are any.
pub(super) fn wrapped(lines: &mut Vec<String>, label: &str, text: &str, rows: usize) {
    let room = COLUMNS - label.len().min(COLUMNS / 2);
    let mut rest = plain(text, room * rows);
    let mut label = String::from(label);
    for row in 0..rows {
        // What is left over in the last row is cut there.
        let mut end = rest.len();
        if end > room && row + 1 < rows {
            let space = rest.get(..room).and_then(|head| head.rfind(' ')).filter(|space| *space > room / 2);
            end = space.unwrap_or(room);
        }
        let tail = rest.split_off(end);
        lines.push(plain(&format!("{label}{rest}"), COLUMNS));
        rest = tail.trim_start().into();
        if rest.is_empty() {
            return;
        }
        label = " ".repeat(label.len());
    }
}

/// Why the device is here and what failed, all of it, over as many rows as it takes (each text over `LONGEST`).
pub fn whole(view: &View<'_>) -> Vec<String> {
    let (story, status) = (view.story, view.status);
    let mut lines = Vec::new();
    wrapped(&mut lines, "bootward: recovery: ", &story.reason, LONGEST);
    for (index, chapter) in story.deployments.iter().enumerate() {
        wrapped(&mut lines, &format!("  {index}: "), &broken(chapter), LONGEST);
    }
    for note in &story.notes {
        wrapped(&mut lines, "  note: ", note, LONGEST);
    }
    for tried in &status.tried {
        wrapped(&mut lines, "  failed: ", &failed(tried, view.now), LONGEST);
    }
    lines
}

/// Which deployment, and why it does not boot.
fn broken(chapter: &Chapter) -> String {
    format!("{}: {}", chapter.name, chapter.why)
}

/// When something was tried, and how it failed.
fn failed(tried: &Tried, now: u64) -> String {
    let ago = span(now.saturating_sub(tried.at) / 1000);
    format!("{ago} ago, {}: {}", tried.source, tried.why)
}

/// The status screen, without the menu.
pub fn status(view: &View<'_>) -> Vec<String> {
    let (story, status) = (view.story, view.status);
    let mut lines = Vec::new();
    let up = format!(" up {} ==", span(view.now / 1000));
    let title = "== bootward recovery ";
    lines.push(format!("{title}{}{up}", "=".repeat(COLUMNS.saturating_sub(title.len() + up.len()))));
    wrapped(&mut lines, "bootward: recovery: ", &story.reason, 2);
    if story.deployments.is_empty() {
        lines.push("Deployments  none was found".into());
    }
    for (index, chapter) in story.deployments.iter().take(DEPLOYMENTS).enumerate() {
        let label = if index == 0 { "Deployments  " } else { "             " };
        wrapped(&mut lines, &format!("{label}{index}  "), &broken(chapter), 1);
    }
    let more = story.deployments.len().saturating_sub(DEPLOYMENTS);
    if more > 0 {
        lines.push(format!("             and {more} more"));
    }
    let skipped = status.tried.len().saturating_sub(FAILURES);
    for (index, tried) in status.tried.iter().skip(skipped).enumerate() {
        let label = if index == 0 { "Failed       " } else { "             " };
        wrapped(&mut lines, label, &failed(tried, view.now), 2);
    }
    wrapped(&mut lines, "Network      ", status.network.as_deref().unwrap_or("not connected"), 1);
    wrapped(&mut lines, "Now          ", &format!("{}", status.phase), 1);
    if let Some(progress) = &status.progress {
        wrapped(&mut lines, "             ", &progress_line(progress), 1);
    }
    if let Some(next) = next(view) {
        wrapped(&mut lines, "Next         ", &format!("another try in {next}"), 1);
    }
    if status.attempts.1 != 0 || status.bytes.1 != 0 {
        wrapped(&mut lines, "Today        ", &today(status), 1);
    }
    lines
}

/// How far it is, in one line: `[##########..........]  50 %, 1200 of 2400 objects, 12.5 MB, 1.2 MB/s, 0:43 left`.
pub fn progress_line(progress: &Progress) -> String {
    let mut line = percent(progress).map_or(String::new(), |percent| bar(percent, BAR) + ", ");
    let of = if progress.whole { "" } else { "at least " };
    line.push_str(&format!(
        "{} of {of}{}, {}, {}/s",
        progress.done,
        progress.total,
        size(progress.bytes),
        size(progress.rate)
    ));
    if let Some(left) = progress.left {
        line.push_str(&format!(", {} left", span(left)));
    }
    line
}

/// `[##########..........]  50 %`, the bar with so many columns.
fn bar(percent: u64, columns: usize) -> String {
    let full = usize::try_from(percent).unwrap_or(0).min(100) * columns / 100;
    format!("[{}{}] {percent:3} %", "#".repeat(full), ".".repeat(columns - full))
}

fn percent(progress: &Progress) -> Option<u64> {
    let share = u128::from(progress.done) * 100 / u128::from(progress.total.max(1));
    (progress.whole && progress.total > 0).then(|| u64::try_from(share.min(100)).unwrap_or(100))
}

fn next(view: &View<'_>) -> Option<String> {
    let waits = view.status.phase == Phase::Waiting || view.status.next.is_some_and(|n| n > view.now);
    let next = view.status.next.filter(|_| waits)?;
    Some(span(next.saturating_sub(view.now).div_ceil(1000)))
}

fn today(status: &Status) -> String {
    let mut parts: Vec<String> = Vec::new();
    let (used, all) = status.attempts;
    if all != 0 {
        parts.push(format!("{used} of {all} tries"));
    }
    let (used, all) = status.bytes;
    if all != 0 {
        parts.push(format!("{} of {}", size(used), size(all)));
    }
    parts.join(", ")
}

/// The live half of the prompt: what goes on, in a few words.
pub fn live(view: &View<'_>) -> String {
    if let Some(next) = next(view) {
        return format!("next try in {next}");
    }
    match &view.status.progress {
        Some(progress) => {
            let mut parts = Vec::new();
            if progress.bytes != 0 {
                parts.push(size(progress.bytes));
            }
            if progress.rate != 0 {
                parts.push(format!("{}/s", size(progress.rate)));
            }
            parts.extend(progress.left.map(|left| format!("{} left", span(left))));
            let head = match percent(progress) {
                Some(percent) => bar(percent, LIVE_BAR),
                None => format!("{}", view.status.phase),
            };
            parts.insert(0, head);
            plain(&parts.join(", "), LIVE)
        }
        None => plain(&format!("{}", view.status.phase), LIVE),
    }
}

/// Seconds as `0:07`, `12:34` or `1:02:03`.
pub fn span(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Bytes as `999 B`, `12.5 kB`, `1.2 MB` or `3.4 GB`, in powers of a thousand.
pub fn size(bytes: u64) -> String {
    let unit = match bytes {
        0..1000 => return format!("{bytes} B"),
        1000..1_000_000 => (1000, "kB"),
        1_000_000..1_000_000_000 => (1_000_000, "MB"),
        _ => (1_000_000_000, "GB"),
    };
    // Down, so that 999,999 bytes are not 1000.0 kB.
    format!("{}.{} {}", bytes / unit.0, bytes % unit.0 * 10 / unit.0, unit.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn story(count: usize, text: &str) -> Story {
        let chapter = Chapter { name: text.into(), why: text.into() };
        Story { reason: text.into(), deployments: alloc::vec![chapter; count], notes: Vec::new() }
    }

    #[test]
    fn the_fullest_screen_fits_and_is_ascii() {
        let long = "\u{1b}[2J é\r\n\0 ".repeat(500);
        let mut status = Status { network: Some(long.clone()), next: Some(u64::MAX), ..Status::default() };
        for _ in 0..20 {
            status.failed(Tried { at: 0, source: long.clone(), why: long.clone() });
        }
        status.progress = Some(Progress {
            done: u64::MAX,
            total: 1,
            whole: true,
            bytes: u64::MAX,
            rate: u64::MAX,
            left: Some(u64::MAX),
        });
        (status.attempts, status.bytes) = ((u32::MAX, u32::MAX), (u64::MAX, u64::MAX));
        for text in [long.as_str(), "", "x", &"x".repeat(5000)] {
            let story = story(40, text);
            let view = View { story: &story, status: &status, now: u64::MAX };
            let lines = super::status(&view);
            assert!(lines.len() + super::super::menu::LINES <= ROWS, "{}", lines.len());
            for line in lines.iter().chain([&live(&view)]) {
                assert!(line.len() <= COLUMNS, "{line}");
                assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)), "{line:?}");
            }
        }
    }

    #[test]
    fn numbers() {
        assert_eq!([0, 7, 754, 3723].map(span), ["0:00", "0:07", "12:34", "1:02:03"]);
        let sizes = [0, 999, 1000, 12_560, 999_999, 1_234_567, 3_400_000_000].map(size);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "12.5 kB", "999.9 kB", "1.2 MB", "3.4 GB"]);
    }

    #[test]
    fn progress() {
        let half =
            Progress { done: 5, total: 10, whole: true, bytes: 1_500_000, rate: 250_000, left: Some(43) };
        let line = "[##########..........]  50 %, 5 of 10, 1.5 MB, 250.0 kB/s, 0:43 left";
        assert_eq!(progress_line(&half), line);
        // While the end is not known there is no share of it.
        let open = Progress { whole: false, left: None, ..half };
        assert_eq!(progress_line(&open), "5 of at least 10, 1.5 MB, 250.0 kB/s");
        let bars = [0, 9, 100].map(|percent| bar(percent, 10));
        assert_eq!(bars, ["[..........]   0 %", "[..........]   9 %", "[##########] 100 %"]);
        let none = Progress { total: 0, ..half };
        assert_eq!(progress_line(&none), "5 of 0, 1.5 MB, 250.0 kB/s, 0:43 left");
    }

    #[test]
    fn long_text_is_broken_at_spaces_and_cut_with_dots() {
        let mut lines = Vec::new();
        let text = "word ".repeat(60);
        wrapped(&mut lines, "Label  ", &text, 2);
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].ends_with("word") && lines[1].starts_with("       word") && lines[1].ends_with("..")
        );
        assert_eq!(plain("abcdef", 5), "abc..");
        assert_eq!(plain("a\u{9b}b\tc", 9), "a?b?c");
        assert_eq!(plain("", 0), "".to_string());
    }
}
