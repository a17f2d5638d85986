//! How a host is logged in to: a private key, which stays in memory, and the host keys that are expected.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use russh::keys::{PrivateKey, decode_secret_key};

use super::known_hosts::{InvalidKnownHosts, KnownHosts};

/// A private key and the host keys that are expected.
#[derive(Clone)]
pub struct SshLogin {
    pub(super) key: Arc<PrivateKey>,
    pub(super) known_hosts: KnownHosts,
    /// What both were read from, to tell logins apart.
    source: (String, String),
}

/// Why a login cannot be used. Says nothing of the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLogin {
    /// There is none.
    #[error("a host that is reached over SSH needs a Secret with ssh-privatekey and known_hosts")]
    Missing,
    /// The private key has a passphrase.
    #[error("ssh-privatekey has a passphrase: a key without one is needed")]
    Encrypted,
    /// The private key is none that is known here.
    #[error(
        "ssh-privatekey is no private key that can be used: an Ed25519 or ECDSA key in OpenSSH's form is (ssh-keygen -t ed25519)"
    )]
    Key,
    /// The host keys cannot be read.
    #[error("known_hosts: {0}")]
    KnownHosts(#[from] InvalidKnownHosts),
}

impl SshLogin {
    /// Reads a private key and a `known_hosts` file.
    ///
    /// # Errors
    /// [`InvalidLogin`] where either cannot be used.
    pub fn read(private_key: &str, known_hosts: &str) -> Result<SshLogin, InvalidLogin> {
        let key = decode_secret_key(private_key, None).map_err(|error| match error {
            russh::keys::Error::KeyIsEncrypted => InvalidLogin::Encrypted,
            _ => InvalidLogin::Key,
        })?;
        // Without the crate for it, which is not finished, no RSA key can sign.
        if key.is_encrypted() {
            return Err(InvalidLogin::Encrypted);
        }
        if key.algorithm().is_rsa() {
            return Err(InvalidLogin::Key);
        }
        Ok(SshLogin {
            key: Arc::new(key),
            known_hosts: KnownHosts::read(known_hosts)?,
            source: (private_key.to_owned(), known_hosts.to_owned()),
        })
    }
}

impl PartialEq for SshLogin {
    fn eq(&self, other: &SshLogin) -> bool {
        self.source == other.source
    }
}

impl Eq for SshLogin {}

impl Hash for SshLogin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.hash(state);
    }
}

/// Without the key.
impl fmt::Debug for SshLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SshLogin")
    }
}
