//! Everything that a server can take of us, in one place.

use core::time::Duration;

/// Limits on what a server sends and on the time that it takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// For the addresses of a name. 20 s, more than the C library takes where `resolv.conf` is ours.
    pub resolve: Duration,
    /// For the connection to one address of the server; each address is tried. 10 s.
    pub connect: Duration,
    /// For the whole TLS handshake. 20 s.
    pub handshake: Duration,
    /// From an answer being due to the end of its head. 30 s.
    pub head: Duration,
    /// Without a single byte, while some are due. 20 s.
    pub idle: Duration,
    /// The lowest rate in bytes a second, on the average of each `rate_over`. 1 KiB/s. Each answer counts as
    /// [`Limits::answer_worth`] bytes more, so that small objects over a line with long delays pass.
    pub rate: u64,
    /// The time that the rate is the average of: 30 s, so that a server that gets slow is left within 60 s. Only
    /// time spent waiting for the server counts, not the time that we take to write what came.
    pub rate_over: Duration,
    /// What an answer counts for the rate, in bytes. 4 KiB.
    pub answer_worth: u64,
    /// The time for one body is `body` + its length / `body_rate`, in bytes a second (where no length is told, the
    /// request's limit): a server just above the rate holds a large file for a bounded time. 120 s.
    pub body: Duration,
    /// See [`Limits::body`]. 4 KiB/s.
    pub body_rate: u64,
    /// Bytes of the head of an answer, of one line of a chunked body, and of its trailer. 16 KiB.
    pub head_bytes: usize,
    /// Header fields of an answer, and of a chunked body's trailer. 64.
    pub fields: usize,
    /// Interim answers (1xx) before an answer. 4.
    pub interim: usize,
    /// Redirects of one request. 3.
    pub redirects: u8,
    /// The longest wait that a Retry-After gets. 10 min.
    pub retry_after: Duration,
    /// Requests under way at once in one connection.
    pub window: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            resolve: Duration::from_secs(20),
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(20),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(20),
            rate: 1 << 10,
            rate_over: Duration::from_secs(30),
            answer_worth: 4 << 10,
            body: Duration::from_secs(120),
            body_rate: 4 << 10,
            head_bytes: 16 << 10,
            fields: 64,
            interim: 4,
            redirects: 3,
            retry_after: Duration::from_secs(600),
            window: 32,
        }
    }
}

impl Limits {
    /// The time for a body of so many bytes.
    pub fn body_time(&self, length: u64) -> Duration {
        let seconds = length.checked_div(self.body_rate).unwrap_or(u64::MAX);
        self.body.saturating_add(Duration::from_secs(seconds))
    }
}
