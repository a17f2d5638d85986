//! Where a host is reached.

use std::fmt;

use reqwest::Url;

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
        let (host, port) = match place.rsplit_once(':') {
            // What follows a colon within brackets is of the address.
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().ok().filter(|port| *port > 0).ok_or_else(invalid)?)
            }
            _ => (place, SSH_PORT),
        };
        if user.is_empty() || !user.chars().all(is_plain) {
            return Err(invalid());
        }
        let host = spelt_host(host).ok_or_else(invalid)?;
        Ok(Endpoint::Ssh(Address { user: user.to_owned(), host, port }))
    }
}

/// Spells a host as URLs do: a name in lower case, an address as numbers (`0x7f.1` is `127.0.0.1`), and neither with brackets or
/// the dot of the root. None where it can be no host.
pub fn spelt_host(host: &str) -> Option<String> {
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    // A URL has no other address in brackets than one with colons.
    let host = bracketed.filter(|address| !address.contains(':')).unwrap_or(host);
    if !host.starts_with('[') && !host.chars().all(is_plain) {
        return None;
    }
    let url = Url::parse(&format!("http://{host}")).ok()?;
    let host = url.host_str()?.trim_end_matches('.').trim_matches(['[', ']']);
    (!host.is_empty()).then(|| host.to_owned())
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
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
            ("ssh://ci@[127.0.0.1]", "ssh://ci@127.0.0.1", "127.0.0.1"),
            ("ssh://ci@0x7f.1", "ssh://ci@127.0.0.1", "127.0.0.1"),
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
            "ssh://ci@fe80::1",
            "ssh://ci@mac-1:",
            "ssh://ci@mac-1/x",
            "ssh://ci@mac 1",
            "ssh://c$(id)@mac-1",
            "tcp://ci@mac-1",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }
}
