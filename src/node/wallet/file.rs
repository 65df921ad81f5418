//! `wallet.key`: an Ed25519 key as PKCS#8 PEM, in clear or encrypted with a passphrase.
//!
//! Encrypted means PBES2 (RFC 8018): scrypt with N = 2^17, r = 8, p = 1 and AES-256-CBC, with fresh
//! salt and initialisation vector at every write. Above the PEM stands the public key in clear, so that
//! the address is known without the passphrase; it is compared with the key whenever that is
//! decrypted.
//!
//! A file is only ever replaced by one that was read back and decrypted first.

use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{self, DecodePrivateKey, EncodePrivateKey};
use zeroize::Zeroizing;

use super::Wallet;
use crate::env::{DurableFile, FileOnDisk};
use crate::node::keys::{self, KeyError};
use crate::types::{Address, PublicKey};

/// The longest passphrase, in bytes.
pub const MAX_PASSPHRASE_BYTES: usize = 1_024;

/// What stands before the public key of an encrypted file.
const PUBLIC: &str = "Public key: ";

/// The first line of an encrypted key in PEM.
const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";

/// A passphrase: not empty, never shown, wiped from memory when dropped.
pub struct Passphrase(Zeroizing<Vec<u8>>);

/// Why a wallet's file cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum WalletFileError {
    /// There is no wallet.
    #[error("{path} is missing: make a key with \"timed wallet new\"")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A new wallet would replace one.
    #[error("{path} exists: it is not overwritten; move it away first")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or written, or holds no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An encrypted file that was altered or cut.
    #[error("{path} is damaged: {what}; restore it from your backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A passphrase is needed.
    #[error("{path} is encrypted: its passphrase is needed")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase does not open it.
    #[error("the passphrase does not open {path} (or the file is damaged)")]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// A passphrase that protects nothing, or that nobody typed.
    #[error("a passphrase has 1 to {MAX_PASSPHRASE_BYTES} bytes")]
    Passphrase,
    /// The key could not be encrypted.
    #[error("the key could not be encrypted: {0}")]
    Encryption(pkcs8::Error),
}

impl Passphrase {
    /// Takes what a person typed, without the line's end.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Result<Self, WalletFileError> {
        match bytes.len() {
            1..=MAX_PASSPHRASE_BYTES => Ok(Self(bytes)),
            _ => Err(WalletFileError::Passphrase),
        }
    }
}

impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }
}

/// A wallet's file as read.
pub struct WalletFile {
    path: PathBuf,
    text: Zeroizing<String>,
    form: Form,
}

enum Form {
    Clear(SigningKey),
    Encrypted(PublicKey),
}

impl WalletFile {
    /// Reads the file; an encrypted one stays so.
    pub fn open(path: &Path) -> Result<Self, WalletFileError> {
        let text = keys::read_secret(path).map_err(|error| match error {
            KeyError::Missing { path, .. } => WalletFileError::Missing { path },
            error => error.into(),
        })?;
        let form = match text.contains(ENCRYPTED) {
            false => Form::Clear(SigningKey::from_pkcs8_pem(&text).map_err(|_| {
                let path = path.into();
                KeyError::Malformed { path }
            })?),
            true => Form::Encrypted(public_key(&text).ok_or_else(|| WalletFileError::Damaged {
                path: path.into(),
                what: "the line with its public key is missing",
            })?),
        };
        Ok(Self {
            path: path.into(),
            text,
            form,
        })
    }

    /// Writes a new file, encrypted if there is a passphrase; never over an existing one.
    pub fn create(
        path: &Path,
        key: &SigningKey,
        passphrase: Option<&Passphrase>,
    ) -> Result<(), WalletFileError> {
        if path.symlink_metadata().is_ok() {
            return Err(WalletFileError::Exists { path: path.into() });
        }
        let content = encode(key, passphrase)?;
        verified(path, &content, key, passphrase)?;
        Ok(keys::write_secret(path, &content)?)
    }

    /// Where the wallet is paid; known without a passphrase.
    pub fn address(&self) -> Address {
        match &self.form {
            Form::Clear(key) => Address::of(&PublicKey::from(key)),
            Form::Encrypted(public) => Address::of(public),
        }
    }

    /// Whether a passphrase is needed to spend.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.form, Form::Encrypted(_))
    }

    /// The wallet, ready to sign. A passphrase of a file in clear is not looked at.
    pub fn unlock(&self, passphrase: Option<&Passphrase>) -> Result<Wallet, WalletFileError> {
        self.key(passphrase).map(Wallet::new)
    }

    /// Encrypts the file with another passphrase, or without one writes it in clear: as a whole and
    /// durably, after the new content was decrypted once.
    pub fn change(
        &self,
        old: Option<&Passphrase>,
        new: Option<&Passphrase>,
    ) -> Result<(), WalletFileError> {
        let key = self.key(old)?;
        let failed = |source| KeyError::Io {
            path: self.path.clone(),
            source,
        };
        // A link stays a link: what it points at must not stay behind in clear.
        let path = self.path.canonicalize().map_err(failed)?;
        let content = encode(&key, new)?;
        verified(&path, &content, &key, new)?;
        let replaced = FileOnDisk(path).replace(content.as_bytes());
        Ok(replaced.map_err(failed)?)
    }

    fn key(&self, passphrase: Option<&Passphrase>) -> Result<SigningKey, WalletFileError> {
        let path = || self.path.clone();
        let public = match &self.form {
            Form::Clear(key) => return Ok(key.clone()),
            Form::Encrypted(public) => public,
        };
        let passphrase = passphrase.ok_or_else(|| WalletFileError::Locked { path: path() })?;
        let pem = self.text.find(ENCRYPTED).map(|at| &self.text[at..]);
        let key = SigningKey::from_pkcs8_encrypted_pem(pem.unwrap_or(""), &*passphrase.0)
            .map_err(|_| WalletFileError::WrongPassphrase { path: path() })?;
        if PublicKey::from(&key) != *public {
            let what = "its public key is not that of the key in it";
            return Err(WalletFileError::Damaged { path: path(), what });
        }
        Ok(key)
    }
}

fn encode(
    key: &SigningKey,
    passphrase: Option<&Passphrase>,
) -> Result<Zeroizing<String>, WalletFileError> {
    let Some(passphrase) = passphrase else {
        return Ok(keys::key_to_pem(key));
    };
    let pem = key
        .to_pkcs8_encrypted_pem(&*passphrase.0, LineEnding::LF)
        .map_err(WalletFileError::Encryption)?;
    let public = PublicKey::from(key);
    Ok(Zeroizing::new(format!("{PUBLIC}{public}\n{}", *pem)))
}

/// What is about to be written must give the key back.
fn verified(
    path: &Path,
    content: &str,
    key: &SigningKey,
    passphrase: Option<&Passphrase>,
) -> Result<(), WalletFileError> {
    let written = WalletFile {
        path: path.into(),
        text: Zeroizing::new(content.to_owned()),
        form: match passphrase {
            None => return Ok(()),
            Some(_) => Form::Encrypted(PublicKey::from(key)),
        },
    };
    written.key(passphrase).map(|_| ())
}

fn public_key(text: &str) -> Option<PublicKey> {
    let line = text.lines().find_map(|line| line.strip_prefix(PUBLIC))?;
    let bytes: [u8; 32] = hex::decode(line.trim()).ok()?.try_into().ok()?;
    Some(PublicKey(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.into())).unwrap()
    }

    fn spends(file: &WalletFile, with: Option<&str>) -> bool {
        let passphrase = with.map(passphrase);
        file.unlock(passphrase.as_ref()).is_ok()
    }

    #[test]
    fn a_passphrase_is_set_changed_and_removed_and_the_key_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wallet.key");
        WalletFile::create(&path, &key(), None).unwrap();
        let clear = WalletFile::open(&path).unwrap();
        assert!(!clear.is_encrypted() && spends(&clear, None));
        let address = clear.address();

        clear.change(None, Some(&passphrase("first"))).unwrap();
        let first = WalletFile::open(&path).unwrap();
        assert!(first.is_encrypted());
        assert_eq!(first.address(), address);
        assert!(spends(&first, Some("first")));
        assert!(!spends(&first, None) && !spends(&first, Some("First")));
        let secret = hex::encode(key().to_bytes());
        let before = std::fs::read_to_string(&path).unwrap();
        assert!(!before.contains(&secret));

        // A wrong one changes nothing.
        let wrong = first.change(Some(&passphrase("no")), Some(&passphrase("second")));
        assert!(matches!(
            wrong,
            Err(WalletFileError::WrongPassphrase { .. })
        ));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);

        let (old, new) = (passphrase("first"), passphrase("second"));
        first.change(Some(&old), Some(&new)).unwrap();
        let second = WalletFile::open(&path).unwrap();
        assert!(spends(&second, Some("second")) && !spends(&second, Some("first")));
        second.change(Some(&new), None).unwrap();
        let again = keys::read_key(&path).unwrap();
        assert_eq!(again.to_bytes(), key().to_bytes());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_link_is_followed_and_nothing_stays_in_clear_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, real) = (folder.path().join("wallet.key"), folder.path().join("real"));
        WalletFile::create(&real, &key(), None).unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        let file = WalletFile::open(&path).unwrap();
        file.change(None, Some(&passphrase("p"))).unwrap();
        assert!(path.symlink_metadata().unwrap().is_symlink());
        assert!(std::fs::read_to_string(&real).unwrap().contains(ENCRYPTED));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wallet.key");
        let error = |path: &Path| WalletFile::open(path).err().unwrap().to_string();
        assert!(error(&path).contains("is missing: make a key with \"timed wallet new\""));
        WalletFile::create(&path, &key(), Some(&passphrase("p"))).unwrap();
        let again = WalletFile::create(&path, &key(), None);
        assert!(matches!(again, Err(WalletFileError::Exists { .. })));

        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &whole[whole.find(ENCRYPTED).unwrap()..]).unwrap();
        assert!(error(&path).contains("the line with its public key is missing"));
        let other = PublicKey::from(&SigningKey::from_bytes(&[8; 32])).to_string();
        let own = PublicKey::from(&key()).to_string();
        std::fs::write(&path, whole.replace(&own, &other)).unwrap();
        let swapped = WalletFile::open(&path).unwrap();
        let refused = swapped.unlock(Some(&passphrase("p"))).err().unwrap();
        assert!(
            matches!(refused, WalletFileError::Damaged { .. }),
            "{refused}"
        );
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let cut = WalletFile::open(&path).unwrap();
        assert!(!spends(&cut, Some("p")));
        std::fs::write(&path, "nothing").unwrap();
        assert!(error(&path).contains("is not an Ed25519 key"));
    }

    #[test]
    fn an_empty_passphrase_and_an_endless_one_are_refused() {
        for length in [0, MAX_PASSPHRASE_BYTES + 1] {
            let made = Passphrase::new(Zeroizing::new(vec![b'x'; length]));
            assert!(matches!(made, Err(WalletFileError::Passphrase)));
        }
    }
}
