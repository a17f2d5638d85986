//! Where an engine is reached.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::backend::remote;

/// The engine's socket on a host with sshd, and on any that is reached over the network.
const SOCKET: &str = "/var/run/docker.sock";

/// Where the controller's container has the machine's own `/run`. A socket that is mounted by itself is lost when the engine makes
/// another one in its place, and the machine's `/run` in place of the container's would hide the ServiceAccount's token.
const MACHINE_RUN: &str = "/host/run";

/// Where an engine is reached, in the one spelling that it has here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Endpoint {
    /// A socket on the controller's own machine. Two spellings of one path, by way of a symbolic link, are one endpoint.
    Unix(String),
    /// A port of a host, of which this is the name or the address, without brackets.
    Tcp(String, u16),
    /// The socket of a host with sshd.
    Ssh(remote::Endpoint),
}

impl Endpoint {
    /// Reads an endpoint as a spec writes it; the error says why it cannot be used.
    pub(super) fn parse(endpoint: &str) -> Result<Self, String> {
        let parsed = match endpoint.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => without_links(path).map(Endpoint::Unix),
            Some(("tcp", place)) => tcp(place),
            Some(("ssh", _)) => remote::Endpoint::parse(endpoint).ok().map(Endpoint::Ssh),
            _ => None,
        };
        parsed.ok_or_else(|| {
            let endpoint: String = endpoint.chars().take(256).collect();
            format!(
                "{endpoint:?} is no endpoint of a Docker engine: unix:///path, tcp://host:port and \
                 ssh://user@host[:port] are"
            )
        })
    }

    /// Whether it is on the controller's own machine.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Endpoint::Unix(_))
    }

    /// The path of the engine's socket on its host.
    pub(super) fn socket(&self) -> &str {
        match self {
            Endpoint::Unix(path) => path,
            Endpoint::Tcp(..) | Endpoint::Ssh(_) => SOCKET,
        }
    }
}

/// Where this process finds a socket of the machine that it runs on: in the machine's `/run`, where it has that by a mount.
pub(super) fn found_at(socket: &str) -> PathBuf {
    found_by(socket, Path::new(MACHINE_RUN))
}

fn found_by(socket: &str, machine_run: &Path) -> PathBuf {
    let Some(at) = in_run(socket).filter(|_| machine_run.is_dir()).map(|name| machine_run.join(name)) else {
        return PathBuf::from(socket);
    };
    // Podman's package has a link there, and it says where on the machine.
    let target = at.read_link().ok();
    let linked = target.and_then(|target| in_run(target.to_str()?).map(|name| machine_run.join(name)));
    linked.unwrap_or(at)
}

/// What a path is called in the machine's `/run`, if it is there.
fn in_run(path: &str) -> Option<&str> {
    path.strip_prefix("/run/").or_else(|| path.strip_prefix("/var/run/"))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix://{path}"),
            Endpoint::Tcp(host, port) if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Endpoint::Tcp(host, port) => write!(f, "tcp://{host}:{port}"),
            Endpoint::Ssh(endpoint) => endpoint.fmt(f),
        }
    }
}

fn tcp(place: &str) -> Option<Endpoint> {
    let (host, port) = place.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    Some(Endpoint::Tcp(remote::spelt_host(host)?, port))
}

/// The path with its folder resolved; the socket itself comes and goes with the engine. Where there is no such folder here, nobody
/// can tell where `..` leads.
fn without_links(path: &str) -> Option<String> {
    let resolve = || {
        let path = Path::new(path);
        let folder = path.parent()?.canonicalize().ok()?;
        Some(folder.join(path.file_name()?).to_str()?.to_owned())
    };
    let is_straight = path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    resolve().or_else(|| is_straight.then(|| path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_one_host_are_one_endpoint() {
        for (text, shown) in [
            ("unix:///nowhere/d.sock", "unix:///nowhere/d.sock"),
            ("tcp://Rack-1.:2376", "tcp://rack-1:2376"),
            ("tcp://0x7f.1:2376", "tcp://127.0.0.1:2376"),
            ("tcp://[FE80::0:1]:2376", "tcp://[fe80::1]:2376"),
            ("ssh://ci@Rack-1:22", "ssh://ci@rack-1"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for endpoint in [
            "unix://relative",
            "unix:///nowhere/../run/docker.sock",
            "unix:///nowhere//d.sock",
            "/var/run/docker.sock",
            "tcp://rack-1",
            "tcp://:2376",
            "tcp://rack-1:0",
            "tcp://rack-1:99999",
            "tcp://a@rack-1:2376",
            "tcp://rack-1:80:2376",
            "tcp://rack-1/x:2376",
            "tcp://[x:y]:2376",
            "ssh://rack-1",
            "https://rack-1:2376",
        ] {
            let error = Endpoint::parse(endpoint).unwrap_err();
            assert!(error.contains("is no endpoint"), "{endpoint}: {error}");
        }
    }

    #[test]
    fn a_socket_is_found_in_the_machines_run_where_that_is_mounted() {
        let mounted = std::env::temp_dir().join(format!("run-{}", std::process::id()));
        std::fs::create_dir(&mounted).unwrap();
        for (link, target) in
            [("podman-docker.sock", "/run/podman/podman.sock"), ("near.sock", "docker/d.sock")]
        {
            std::os::unix::fs::symlink(target, mounted.join(link)).unwrap();
        }
        for (socket, found) in [
            ("/var/run/docker.sock", mounted.join("docker.sock")),
            ("/run/docker/d.sock", mounted.join("docker/d.sock")),
            ("/run/podman-docker.sock", mounted.join("podman/podman.sock")),
            ("/run/near.sock", mounted.join("near.sock")),
            ("/running/d.sock", PathBuf::from("/running/d.sock")),
        ] {
            assert_eq!(found_by(socket, &mounted), found);
            assert_eq!(found_by(socket, Path::new("/nowhere")), Path::new(socket));
        }
        std::fs::remove_dir_all(&mounted).unwrap();
    }

    #[test]
    fn a_linked_folder_is_the_same_place() {
        let real = std::env::temp_dir().join(format!("paddock-endpoint-{}", std::process::id()));
        let linked = real.with_extension("link");
        std::fs::create_dir_all(&real).unwrap();
        std::os::unix::fs::symlink(&real, &linked).unwrap();
        let parse = |folder: &Path| Endpoint::parse(&format!("unix://{}/d.sock", folder.display())).unwrap();
        let same = parse(&real) == parse(&linked);
        std::fs::remove_file(&linked).unwrap();
        std::fs::remove_dir(&real).unwrap();
        assert!(same);
    }
}
