//! What a private Docker engine beside a runner is, on whatever backend: how it is started, and what the two share.

/// The group that owns the engine's socket; the runner's user is in it in GitHub's own image.
pub(super) const GROUP: &str = "123";

/// How the engine is reached by its runner: by a socket in a folder that the two share. Nothing listens on a network.
pub(super) const SOCKET: &str = "unix:///var/run/docker.sock";

/// What the runner and its engine must both have at the same place: the socket, where jobs work, and the tools that the runner
/// mounts into the containers of jobs.
pub(super) const SHARED: [(&str, &str); 3] =
    [("docker-socket", "/var/run"), ("work", WORK), ("externals", "/home/runner/externals")];

/// Where jobs work.
pub(super) const WORK: &str = "/home/runner/_work";

/// A command that succeeds once the engine answers.
pub(super) const CHECK: [&str; 2] = ["docker", "info"];

/// The command that starts the engine.
pub(super) fn command() -> Vec<String> {
    vec!["dockerd".to_owned(), format!("--host={SOCKET}"), format!("--group={GROUP}")]
}
