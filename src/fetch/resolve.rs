//! The addresses of a name, within a bounded time.
//!
//! The C library is asked, which reads `resolv.conf(5)`. How long it takes is its own affair: musl keeps to the time-out
//! that is written there, but what is written there is not always ours. So it is asked in a thread, which is left to
//! itself when the time is over; it ends with the library's own time-out.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// More addresses of one name are not tried.
const MAX_ADDRESSES: usize = 8;
/// Whoever waits is asked so often whether to go on.
const TICK: Duration = Duration::from_millis(500);
/// The library's own buffers, in bytes: musl needs 10 KiB and says that a thread may do with little.
const STACK: usize = 128 << 10;

/// The addresses of a host, which may be one already, each once.
///
/// # Errors
/// Why there is none, in the words of the system.
pub fn resolve(
    host: &str,
    port: u16,
    patience: Duration,
    alive: &mut dyn FnMut() -> bool,
) -> Result<Vec<SocketAddr>, String> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (tell, told) = sync_channel(1);
    let name = host.to_string();
    let ask = move || {
        let found = (name.as_str(), port).to_socket_addrs();
        // Nobody may be there any more.
        let _ = tell.send(found.map(|all| all.take(MAX_ADDRESSES).collect::<Vec<_>>()));
    };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(ask);
    thread.map_err(|error| format!("no thread for it: {error}"))?;
    let began = Instant::now();
    loop {
        let left = patience.saturating_sub(began.elapsed());
        match told.recv_timeout(left.min(TICK)) {
            Ok(Ok(found)) => {
                let mut addresses: Vec<SocketAddr> = Vec::new();
                for address in found {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
                return if addresses.is_empty() { Err("it has no address".into()) } else { Ok(addresses) };
            }
            Ok(Err(error)) => {
                // std's sentence begins with one of its own.
                let text = error.to_string();
                return Err(text
                    .strip_prefix("failed to lookup address information: ")
                    .unwrap_or(&text)
                    .into());
            }
            Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                return Err(format!("no name server answers in {} s", patience.as_secs()));
            }
            Err(RecvTimeoutError::Timeout) if alive() => {}
            Err(_) => return Err("stopped".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_no_name_server() {
        for (host, wanted) in
            [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80"), ("localhost", "127.0.0.1:80")]
        {
            let found = resolve(host, 80, Duration::from_secs(20), &mut || true).unwrap();
            assert!(found.contains(&wanted.parse().unwrap()), "{host}: {found:?}");
        }
    }
}
