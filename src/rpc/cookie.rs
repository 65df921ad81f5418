//! The secret of `rpc.cookie`.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::env::{DurableFile, Entropy};

/// The user name that goes with the cookie.
pub const USER: &str = "__cookie__";

/// The secret, as the value of the `Authorization` header that shows it. Never printed.
pub struct Cookie {
    hex: Zeroizing<String>,
}

impl Cookie {
    /// A new secret of 32 bytes.
    pub(super) fn new(entropy: &Entropy) -> Self {
        Self {
            hex: Zeroizing::new(hex::encode(entropy.derive("rpc cookie"))),
        }
    }

    /// Reads the file's content; `None` unless it is a cookie.
    pub fn from_file(content: &str) -> Option<Self> {
        let (user, hex) = content.trim().split_once(':')?;
        let is_cookie = user == USER && hex.len() == 64;
        is_cookie.then(|| Self {
            hex: Zeroizing::new(hex.into()),
        })
    }

    /// Writes the file, `__cookie__:` and 64 hex digits.
    pub(super) fn write(&self, file: &dyn DurableFile) -> io::Result<()> {
        file.replace(self.pair().as_bytes())
    }

    /// The value of the `Authorization` header.
    pub fn authorization(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("Basic {}", STANDARD.encode(self.pair().as_bytes())))
    }

    /// Whether a header value shows the secret; takes the same time wherever they differ.
    pub(super) fn matches(&self, authorization: &[u8]) -> bool {
        self.authorization().as_bytes().ct_eq(authorization).into()
    }

    fn pair(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{USER}:{}", *self.hex))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::FileInMemory;

    #[test]
    fn the_file_gives_the_header_that_matches() {
        let cookie = Cookie::new(&Entropy::from_seed([1; 32]));
        let file = FileInMemory::default();
        cookie.write(&file).unwrap();
        let content = String::from_utf8(file.load().unwrap().unwrap()).unwrap();
        let read = Cookie::from_file(&content).unwrap();
        assert!(cookie.matches(read.authorization().as_bytes()));
        let other = Cookie::new(&Entropy::from_seed([2; 32]));
        assert!(!other.matches(read.authorization().as_bytes()));
        assert!(!cookie.matches(b""));
        assert!(Cookie::from_file("admin:1234").is_none());
    }
}
