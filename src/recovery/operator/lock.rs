//! The lock of the console: a password's hash, and a delay after each failure.
//!
//! The hash is Argon2id (RFC 9106) in the usual text form,
//! `$argon2id$v=19$m=8192,t=4,p=1$SALT$HASH`, salt and hash in base64 without padding (the PHC string format).
//! `bootward hash-password` makes one, and so does `argon2 SALT -id -e -k 8192 -t 4` with a salt of 16 characters.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};

use crate::ostree::sign::base64;

use super::secret::Secret;

/// Kibibytes that one check takes: a device with 64 MiB has them while it downloads.
pub const MEMORY: u32 = 8 * 1024;
/// Passes over them: OWASP's advice for this much memory.
pub const PASSES: u32 = 4;
/// A hash that wants more kibibytes than this is not taken.
pub const MEMORY_MAX: u32 = 16 * 1024;
/// A hash that wants more kibibytes times passes than this is not taken.
pub const WORK_MAX: u32 = 128 * 1024;
/// A hash that wants more lanes than this is not taken.
pub const LANES_MAX: u32 = 4;
/// Bytes of a salt.
pub const SALT: usize = 16;
/// Bytes of a hash.
const HASH: usize = 32;
/// Milliseconds before the next try after the first failure; twice as many after each further one.
const DELAY: u64 = 1000;
/// And at most this many.
const DELAY_MAX: u64 = 300_000;

/// A password's hash.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    memory: u32,
    passes: u32,
    lanes: u32,
    salt: [u8; SALT],
    hash: [u8; HASH],
}

/// Why a text is no hash that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashError {
    /// It has another form.
    Form,
    /// Its costs are more than this device is asked for.
    Cost,
    /// There is no memory for it now.
    Memory,
}

impl fmt::Display for HashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HashError::Form => f.write_str("it is not of the form $argon2id$v=19$m=8192,t=4,p=1$SALT$HASH (make one with 'bootward hash-password')"),
            HashError::Cost => write!(
                f,
                "it asks for more than {MEMORY_MAX} KiB, {WORK_MAX} KiB times passes, or {LANES_MAX} lanes"
            ),
            HashError::Memory => f.write_str("there is no memory to check it"),
        }
    }
}

impl PasswordHash {
    /// The hash of a password with the costs of this program.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn of(password: &Secret, salt: [u8; SALT]) -> Result<Self, HashError> {
        let mut made = PasswordHash { memory: MEMORY, passes: PASSES, lanes: 1, salt, hash: [0; HASH] };
        made.hash = made.work(password)?;
        Ok(made)
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// When it has another form, or asks for more than a device can give.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        let rest = text.strip_prefix("$argon2id$v=19$").ok_or(HashError::Form)?;
        let mut parts = rest.split('$');
        let [Some(costs), Some(salt), Some(hash), None] = core::array::from_fn(|_| parts.next()) else {
            return Err(HashError::Form);
        };
        let mut costs = costs.split(',');
        let mut cost = |name: &str| -> Option<u32> {
            let digits = costs.next()?.strip_prefix(name)?.strip_prefix('=')?;
            digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))
        };
        let (memory, passes, lanes) = (cost("m"), cost("t"), cost("p"));
        let (Some(memory), Some(passes), Some(lanes), None) = (memory, passes, lanes, costs.next()) else {
            return Err(HashError::Form);
        };
        let salt = base64::decode(alloc::format!("{salt}==").as_bytes()).ok_or(HashError::Form)?;
        let hash = base64::decode(alloc::format!("{hash}=").as_bytes()).ok_or(HashError::Form)?;
        let fits = memory <= MEMORY_MAX && lanes <= LANES_MAX && memory.saturating_mul(passes) <= WORK_MAX;
        let valid = Params::new(memory, passes, lanes, Some(HASH)).is_ok();
        match (fits, valid) {
            (false, _) => Err(HashError::Cost),
            (true, false) => Err(HashError::Form),
            (true, true) => Ok(PasswordHash { memory, passes, lanes, salt, hash }),
        }
    }

    /// The text form.
    pub fn text(&self) -> String {
        let [salt, hash] = [base64::encode(&self.salt), base64::encode(&self.hash)];
        let (salt, hash) = (salt.trim_end_matches('='), hash.trim_end_matches('='));
        alloc::format!("$argon2id$v=19$m={},t={},p={}${salt}${hash}", self.memory, self.passes, self.lanes)
    }

    /// Whether this is the password.
    ///
    /// # Errors
    /// When there is no memory to find out.
    pub fn fits(&self, password: &Secret) -> Result<bool, HashError> {
        let found = self.work(password)?;
        // Every byte is looked at, whatever the others were.
        let differs = found.iter().zip(&self.hash).fold(0, |all, (a, b)| all | (a ^ b));
        Ok(core::hint::black_box(differs) == 0)
    }

    fn work(&self, password: &Secret) -> Result<[u8; HASH], HashError> {
        let params =
            Params::new(self.memory, self.passes, self.lanes, Some(HASH)).map_err(|_| HashError::Form)?;
        let count = params.block_count();
        let mut blocks: Vec<Block> = Vec::new();
        blocks.try_reserve_exact(count).map_err(|_| HashError::Memory)?;
        blocks.resize(count, Block::new());
        let mut out = [0; HASH];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(password.bytes(), &self.salt, &mut out, blocks.as_mut_slice())
            .map_err(|_| HashError::Form)?;
        Ok(out)
    }
}

impl fmt::Debug for PasswordHash {
    /// What a log may have of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash")
    }
}

/// Whether the console is open, and when it may be tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lock {
    failures: u32,
    /// Milliseconds of the caller's clock before which no password is taken.
    closed_until: u64,
}

impl Lock {
    /// Milliseconds until a password is taken again; 0 where one is taken now.
    pub fn wait(&self, now: u64) -> u64 {
        self.closed_until.saturating_sub(now)
    }

    /// A password was wrong. Failures are forgotten by a right one only.
    pub fn failed(&mut self, now: u64) {
        let delay = DELAY.checked_shl(self.failures).unwrap_or(DELAY_MAX).min(DELAY_MAX);
        self.failures = (self.failures + 1).min(32);
        self.closed_until = now.saturating_add(delay);
    }

    /// The password was right.
    pub fn opened(&mut self) {
        *self = Lock::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        let mut secret = Secret::with_room(text.len());
        assert!(text.bytes().all(|b| secret.push(b)));
        secret
    }

    /// `printf hunter2 | argon2 0123456789abcdef -id -k 8192 -t 4 -p 1 -e`, as the argon2 of Debian 12 prints it.
    const REFERENCE: &str =
        "$argon2id$v=19$m=8192,t=4,p=1$MDEyMzQ1Njc4OWFiY2RlZg$/BVsPHHvD7yAR0jxm3AyVX4MyfdtoxtOhblBghSDOK4";

    #[test]
    fn a_hash_of_the_reference_program_is_taken() {
        let hash = PasswordHash::parse(REFERENCE).unwrap();
        assert_eq!(hash.text(), REFERENCE);
        assert_eq!(hash.fits(&secret("hunter2")), Ok(true));
        for wrong in ["", "hunter", "hunter22", "Hunter2"] {
            assert_eq!(hash.fits(&secret(wrong)), Ok(false), "{wrong}");
        }
        assert_eq!(PasswordHash::of(&secret("hunter2"), *b"0123456789abcdef").unwrap(), hash);
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let cost = [
            "m=16385,t=1,p=1",
            "m=8192,t=17,p=1",
            "m=8192,t=4,p=5",
            "m=4294967295,t=4,p=1",
            "m=8192,t=4294967295,p=1",
        ];
        for cost in cost {
            let text = REFERENCE.replace("m=8192,t=4,p=1", cost);
            assert_eq!(PasswordHash::parse(&text), Err(HashError::Cost), "{text}");
        }
        let forms = [
            ("m=8192,t=4,p=1", "m=8192,t=4"),
            ("m=8192,t=4,p=1", "m=8192,t=4,p=1,x=1"),
            ("m=8192,t=4,p=1", "t=4,m=8192,p=1"),
            ("m=8192,t=4,p=1", "m=+8192,t=4,p=1"),
            ("m=8192,t=4,p=1", "m=8192,t=0,p=1"),
            ("m=8192,t=4,p=1", "m=0,t=4,p=1"),
            ("m=8192,t=4,p=1", "m=8192,t=4,p=0"),
            ("argon2id", "argon2i"),
            ("v=19", "v=16"),
            ("MDEyMzQ1Njc4OWFiY2RlZg", "MDEyMzQ1Njc4OWFiY2Rl"),
            ("MDEyMzQ1Njc4OWFiY2RlZg", "MDEyMzQ1Njc4OWFiY2RlZg=="),
        ];
        for (from, to) in forms {
            let text = REFERENCE.replace(from, to);
            assert_eq!(PasswordHash::parse(&text), Err(HashError::Form), "{text}");
        }
        for length in 0..REFERENCE.len() {
            assert!(PasswordHash::parse(&REFERENCE[..length]).is_err(), "{length}");
        }
        for text in ["", "hunter2", "$6$salt$hash", "$argon2id$v=19$$$", &REFERENCE.repeat(2)] {
            assert_eq!(PasswordHash::parse(text), Err(HashError::Form), "{text}");
        }
    }

    #[test]
    fn delays_grow_to_their_limit_and_end_with_the_right_password() {
        let mut lock = Lock::default();
        let mut now = 5000;
        assert_eq!(lock.wait(now), 0);
        let mut delays = Vec::new();
        for _ in 0..40 {
            lock.failed(now);
            let wait = lock.wait(now);
            assert_eq!((lock.wait(now + wait - 1), lock.wait(now + wait)), (1, 0));
            now += wait;
            delays.push(wait / 1000);
        }
        assert_eq!(delays[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(delays[10..].iter().all(|d| *d == 300));
        lock.opened();
        lock.failed(now);
        assert_eq!(lock.wait(now), 1000);
    }
}
