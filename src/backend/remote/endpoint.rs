//! Where a host is reached.

use std::fmt;

/// Where sshd listens unless the endpoint says otherwise.
const SSH_PORT: u16 = 22;

/// Where a host is reached, in the one spelling that it has here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// This machine.
    Local,
    /// A host with sshd.
    Ssh(Address),
}

/// A user on a host with sshd.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub(super) user: String,
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

/// A text that is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no endpoint: `local` or ssh://user@host[:port] is")]
pub struct InvalidEndpoint(String);

impl Endpoint {
    /// Reads an endpoint as a spec writes it.
    ///
    /// # Errors
    /// [`InvalidEndpoint`] where it names no user, no host or no port that there can be.
    pub fn parse(text: &str) -> Result<Endpoint, InvalidEndpoint> {
        let invalid = || InvalidEndpoint(text.chars().take(256).collect());
        if text == "local" {
            return Ok(Endpoint::Local);
        }
        let (user, place) =
            text.strip_prefix("ssh://").and_then(|rest| rest.split_once('@')).ok_or_else(invalid)?;
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(invalid)?;
                (host, port.strip_prefix(':').or(port.is_empty().then_some("")))
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, Some("")),
            },
        };
        let port = match port.ok_or_else(invalid)? {
            "" => SSH_PORT,
            port => port.parse().ok().filter(|port| *port > 0).ok_or_else(invalid)?,
        };
        let plain = |text: &str, more: &[char]| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
        };
        let named = plain(user, &['.', '_', '-']) && plain(host.trim_end_matches('.'), &['.', '_', '-', ':']);
        // With the dot of the root it is the same name.
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        named.then(|| Endpoint::Ssh(Address { user: user.to_owned(), host, port })).ok_or_else(invalid)
    }
}

impl Address {
    /// As `known_hosts` names it.
    pub(super) fn known_as(&self) -> String {
        match self.port {
            SSH_PORT => self.host.clone(),
            port => format!("[{}]:{port}", self.host),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint::Ssh(Address { user, host, port }) = self else { return f.write_str("local") };
        match host.contains(':') {
            true => write!(f, "ssh://{user}@[{host}]")?,
            false => write!(f, "ssh://{user}@{host}")?,
        }
        if *port == SSH_PORT { Ok(()) } else { write!(f, ":{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_one_host_are_one_endpoint() {
        for (text, shown, known_as) in [
            ("ssh://ci@Mac-1", "ssh://ci@mac-1", "mac-1"),
            ("ssh://ci@mac-1:22", "ssh://ci@mac-1", "mac-1"),
            ("ssh://ci@mac-1.", "ssh://ci@mac-1", "mac-1"),
            ("ssh://ci@mac-1:2222", "ssh://ci@mac-1:2222", "[mac-1]:2222"),
            ("ssh://ci@[FE80::1]", "ssh://ci@[fe80::1]", "fe80::1"),
            ("ssh://ci@[fe80::1]:23", "ssh://ci@[fe80::1]:23", "[fe80::1]:23"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.to_string(), shown);
            let Endpoint::Ssh(address) = endpoint else { panic!() };
            assert_eq!(address.known_as(), known_as);
        }
        assert_eq!(Endpoint::parse("local").unwrap().to_string(), "local");
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in [
            "",
            "mac-1",
            "ssh://mac-1",
            "ssh://@mac-1",
            "ssh://ci@",
            "ssh://ci@mac-1:0",
            "ssh://ci@mac-1:99999",
            "ssh://ci@mac-1:x",
            "ssh://ci@[fe80::1]x",
            "ssh://ci@mac 1",
            "ssh://c$(id)@mac-1",
            "tcp://ci@mac-1",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }
}
