//! Where an engine is reached.

use std::fmt;
use std::path::Path;

/// A local engine's socket. Two spellings of one path, by way of a symbolic link, are one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Endpoint(String);

impl Endpoint {
    /// Reads an endpoint as a spec writes it; the error says why it cannot be used.
    pub(super) fn parse(endpoint: &str) -> Result<Self, String> {
        match endpoint.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Endpoint(without_links(path))),
            Some((scheme @ ("tcp" | "ssh"), _)) => {
                Err(format!("{endpoint}: {scheme}:// endpoints are not available yet"))
            }
            _ => Err(format!("{endpoint:?} is no endpoint of a Docker engine: unix:///path is")),
        }
    }

    /// The socket's path.
    pub(super) fn path(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.0)
    }
}

/// The path with its folder resolved; the socket itself comes and goes with the engine.
fn without_links(path: &str) -> String {
    let resolve = || {
        let path = Path::new(path);
        let folder = path.parent()?.canonicalize().ok()?;
        Some(folder.join(path.file_name()?).to_str()?.to_owned())
    };
    resolve().unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_sockets_only() {
        assert_eq!(Endpoint::parse("unix:///nowhere/d.sock").unwrap().to_string(), "unix:///nowhere/d.sock");
        for (endpoint, why) in [
            ("tcp://10.0.0.7:2376", "tcp:// endpoints are not available yet"),
            ("ssh://ci@rack-1", "ssh:// endpoints are not available yet"),
            ("unix://relative", "is no endpoint"),
            ("/var/run/docker.sock", "is no endpoint"),
        ] {
            let error = Endpoint::parse(endpoint).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
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
