//! The host keys that are expected, as `known_hosts` has them.

use aws_lc_rs::hmac;
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, KnownHosts as Lines, Marker};
use russh::keys::{Algorithm, PublicKey};

use super::endpoint::Address;

/// The host keys that are expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownHosts(Vec<Entry>);

/// Why host keys cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKnownHosts {
    /// A line is none of a `known_hosts` file.
    #[error("line {0} cannot be read (`ssh-keyscan HOST` prints what is expected)")]
    Line(usize),
    /// There is no line.
    #[error("it names no host (`ssh-keyscan HOST` prints what is expected)")]
    Empty,
}

/// Why a host's key is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("known_hosts has no usable key of {0}")]
    Unknown(String),
    #[error(
        "the host key of {0} is not the one in known_hosts: was the host installed anew, or is it another?"
    )]
    Changed(String),
    #[error("the host key of {0} is revoked in known_hosts")]
    Revoked(String),
}

impl KnownHosts {
    /// Reads a file's text.
    pub(super) fn read(text: &str) -> Result<KnownHosts, InvalidKnownHosts> {
        let mut entries = Vec::new();
        for (number, line) in text.lines().enumerate() {
            for entry in Lines::new(line) {
                entries.push(entry.map_err(|_| InvalidKnownHosts::Line(number + 1))?);
            }
        }
        if entries.is_empty() { Err(InvalidKnownHosts::Empty) } else { Ok(KnownHosts(entries)) }
    }

    /// The kinds of keys that are known of a host: it is asked for one of these and no other.
    pub(super) fn algorithms(&self, address: &Address) -> Result<Vec<Algorithm>, Refusal> {
        let usable = |entry: &&Entry| entry.marker().is_none() && !entry.public_key().algorithm().is_rsa();
        let mut known: Vec<Algorithm> = Vec::new();
        for entry in self.of(address).filter(usable) {
            let algorithm = entry.public_key().algorithm();
            if !known.contains(&algorithm) {
                known.push(algorithm);
            }
        }
        if known.is_empty() { Err(Refusal::Unknown(address.known_as())) } else { Ok(known) }
    }

    /// Judges the key that a host has shown.
    pub(super) fn check(&self, address: &Address, key: &PublicKey) -> Result<(), Refusal> {
        let same = |entry: &&Entry| entry.public_key().key_data() == key.key_data();
        let revoked = |entry: &Entry| entry.marker() == Some(&Marker::Revoked);
        if self.of(address).filter(same).any(revoked) {
            return Err(Refusal::Revoked(address.known_as()));
        }
        match self.of(address).filter(same).any(|entry| entry.marker().is_none()) {
            true => Ok(()),
            false => Err(Refusal::Changed(address.known_as())),
        }
    }

    fn of(&self, address: &Address) -> impl Iterator<Item = &Entry> {
        let name = address.known_as();
        self.0.iter().filter(move |entry| names(entry.host_patterns(), &name))
    }
}

/// Whether patterns name a host. Those with wildcards or a negation name none: a key is one host's.
fn names(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::Patterns(patterns) => patterns.iter().any(|pattern| pattern.eq_ignore_ascii_case(name)),
        HostPatterns::HashedName { salt, hash } => {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
            hmac::sign(&key, name.as_bytes()).as_ref() == hash
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::endpoint::Endpoint;
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";
    /// Of example.com, as `ssh-keygen -H` writes it.
    const HASHED: &str = "|1|O33ESRMWPVkMYIwJ1Uw+n877jTo=|nuuC5vEqXlEZ/8BXQR7m619W6Ak= \
                          ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF";

    fn address(endpoint: &str) -> Address {
        let Endpoint::Ssh(address) = Endpoint::parse(endpoint).unwrap() else { panic!() };
        address
    }

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(&format!("{text} someone@somewhere")).unwrap()
    }

    #[test]
    fn a_key_is_accepted_for_the_host_that_it_is_of_and_no_other() {
        let text = format!("# Macs\n\nmac-1,10.0.0.1 {KEY} comment\n[mac-2]:2222 {OTHER}\n{HASHED}\n");
        let known = KnownHosts::read(&text).unwrap();
        let check = |endpoint, text| known.check(&address(endpoint), &key(text));
        assert_eq!(check("ssh://a@mac-1", KEY), Ok(()));
        assert_eq!(check("ssh://a@10.0.0.1", KEY), Ok(()));
        assert_eq!(check("ssh://a@mac-2:2222", OTHER), Ok(()));
        assert_eq!(check("ssh://a@mac-1", OTHER), Err(Refusal::Changed("mac-1".to_owned())));
        assert_eq!(check("ssh://a@mac-2", OTHER), Err(Refusal::Changed("mac-2".to_owned())));
        let hashed = HASHED.split_once(' ').unwrap().1.trim();
        assert_eq!(check("ssh://a@example.com", hashed), Ok(()));
        assert!(check("ssh://a@example.org", hashed).is_err());
        assert_eq!(known.algorithms(&address("ssh://a@mac-1")), Ok(vec![Algorithm::Ed25519]));
        assert_eq!(known.algorithms(&address("ssh://a@mac-3")), Err(Refusal::Unknown("mac-3".to_owned())));
    }

    #[test]
    fn a_revoked_key_and_an_authoritys_are_not_accepted() {
        let text = format!("mac-1 {KEY}\n@revoked mac-1 {KEY}\n@cert-authority mac-2 {OTHER}\n");
        let known = KnownHosts::read(&text).unwrap();
        let check = |endpoint, text| known.check(&address(endpoint), &key(text));
        assert_eq!(check("ssh://a@mac-1", KEY), Err(Refusal::Revoked("mac-1".to_owned())));
        assert_eq!(check("ssh://a@mac-2", OTHER), Err(Refusal::Changed("mac-2".to_owned())));
        assert!(known.algorithms(&address("ssh://a@mac-2")).is_err());
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        assert_eq!(KnownHosts::read("\n# nothing\n"), Err(InvalidKnownHosts::Empty));
        assert_eq!(KnownHosts::read(&format!("mac {KEY}\nmac-1")), Err(InvalidKnownHosts::Line(2)));
    }
}
