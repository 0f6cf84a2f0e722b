//! Our pull with other numbers of connections and of requests under way in each, which the device binary has no option for:
//! the bench starts itself for it.

use std::fs;
use std::io;
use std::path::Path;

use bootward::fetch::Url;
use bootward::ostree::Keys;
use bootward::pull::Wanted;
use bootward::upgrade::{Request, fetch, find};

/// Connections at once.
const CHANNELS: [usize; 4] = [1, 2, 4, 8];
/// Requests under way in each.
const WINDOWS: [usize; 4] = [1, 8, 32, 128];

/// All combinations, as command lines of this program.
///
/// # Errors
/// When it does not know where it is.
pub fn lines() -> io::Result<Vec<String>> {
    let program = std::env::current_exe()?.display().to_string();
    let all = WINDOWS.iter().flat_map(|window| CHANNELS.iter().map(move |channels| (window, channels)));
    Ok(all.map(|(w, c)| format!("{program} --window {w} --channels {c}")).collect())
}

/// Pulls, as `bootward pull` with these words does.
///
/// # Errors
/// When it fails.
pub fn pull(words: &[String]) -> io::Result<()> {
    let value = |name: &str| {
        let at = words.iter().position(|word| word == name);
        at.and_then(|at| words.get(at + 1)).ok_or_else(|| failed(format!("{name} is missing")))
    };
    let number = |name: &str| value(name)?.parse::<usize>().map_err(failed);
    let url = Url::parse(value("--url")?).map_err(failed)?;
    let keys = Keys::parse(&fs::read(value("--keys")?)?).map_err(failed)?;
    let wanted = Wanted {
        remote: Some(value("--remote")?.clone()),
        reference: Some(value("--ref")?.clone()),
        commit: None,
    };
    let mut request = Request::new(Path::new(value("--sysroot")?), vec![url], wanted, &keys);
    request.transport.limits.window = number("--window")?;
    request.options.channels = number("--channels")?;
    request.delta = !words.iter().any(|word| word == "--no-delta");
    let found = find(&request, &mut |_| true).map_err(failed)?;
    fetch(&request, &found, &mut |_| true).map(drop).map_err(failed)
}

fn failed(why: impl std::fmt::Display) -> io::Error {
    io::Error::other(why.to_string())
}
