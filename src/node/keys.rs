//! Key files: Ed25519 keys as PKCS#8 PEM, readable by their owner only.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use zeroize::Zeroizing;

/// The longest file that can be a key, in bytes.
const MAX_KEY_FILE_BYTES: u64 = 4_096;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is not there.
    #[error("{path} is missing: {advice}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What to do.
        advice: String,
    },
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others can read or write the file.
    #[error("{path} is open to others (mode {mode:04o}); run: chmod 600 {path}")]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is no Ed25519 key.
    #[error("{path} is not an Ed25519 key in PKCS#8 PEM form; restore it from your backup")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a secret file that only its owner may read.
pub fn read_secret(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let failed = |source: io::Error| KeyError::Io {
        path: path.into(),
        source,
    };
    let file = File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => KeyError::Missing {
            path: path.into(),
            advice: "restore it from your backup".into(),
        },
        _ => failed(source),
    })?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::OpenToOthers {
            path: path.into(),
            mode,
        });
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_FILE_BYTES as usize));
    file.take(MAX_KEY_FILE_BYTES)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

/// Reads an Ed25519 key.
pub fn read_key(path: &Path) -> Result<SigningKey, KeyError> {
    let text = read_secret(path)?;
    SigningKey::from_pkcs8_pem(&text).map_err(|_| KeyError::Malformed { path: path.into() })
}

/// Writes a new secret file with mode 0600, durably. An existing file is never replaced.
pub fn write_secret(path: &Path, content: &str) -> Result<(), KeyError> {
    write_new(path, content, 0o600).map_err(|source| KeyError::Io {
        path: path.into(),
        source,
    })
}

/// Writes a new Ed25519 key.
pub fn write_key(path: &Path, key: &SigningKey) -> Result<(), KeyError> {
    write_secret(path, &key_to_pem(key))
}

/// A key in its file form.
pub fn key_to_pem(key: &SigningKey) -> Zeroizing<String> {
    key.to_pkcs8_pem(LineEnding::LF)
        .expect("a 32-byte key has a PKCS#8 form")
}

/// 32 secret bytes from the operating system.
pub fn new_secret() -> io::Result<Zeroizing<[u8; 32]>> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut()).map_err(io::Error::other)?;
    Ok(secret)
}

/// Writes a new file, durably, as a whole or not at all; fails when it exists.
pub(super) fn write_new(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    let written = file.write_all(content.as_bytes());
    written.and_then(|()| file.sync_all()).inspect_err(|_| {
        // The first failure is the one to tell; what is left is refused as existing the next time.
        std::fs::remove_file(path).ok();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_is_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("consensus.key");
        let key = SigningKey::from_bytes(&[5; 32]);
        write_key(&path, &key).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(read_key(&path).unwrap().to_bytes(), key.to_bytes());
        let again = write_key(&path, &SigningKey::from_bytes(&[6; 32]));
        assert!(matches!(again, Err(KeyError::Io { .. })));
        assert_eq!(read_key(&path).unwrap().to_bytes(), key.to_bytes());
    }

    #[test]
    fn a_key_open_to_others_is_refused_with_the_command_that_helps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("consensus.key");
        write_key(&path, &SigningKey::from_bytes(&[5; 32])).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_key(&path).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "{0} is open to others (mode 0640); run: chmod 600 {0}",
                path.display()
            )
        );
    }

    #[test]
    fn missing_and_damaged_keys_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        assert!(matches!(read_key(&path), Err(KeyError::Missing { .. })));
        write_secret(&path, "-----BEGIN PRIVATE KEY-----\nAAAA\n").unwrap();
        assert!(matches!(read_key(&path), Err(KeyError::Malformed { .. })));
    }
}
