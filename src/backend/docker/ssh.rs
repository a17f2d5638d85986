//! An engine's socket by way of sshd: what keeps one from it, in words.

use std::time::Duration;

use crate::backend::remote::{Failure, Remote, Script};

/// What a user sees of a socket.
const LOOK: &str =
    r#"[ -S "$1" ] || { echo missing; exit; }; [ -w "$1" ] || { echo denied; exit; }; echo there"#;
/// For that look.
const LOOKING: Duration = Duration::from_secs(15);

/// Connects to a host and to the socket there; the error says what keeps one from either.
pub(super) async fn connect(remote: &Remote, socket: &str) -> Result<(), String> {
    remote.connect().await.map_err(|failure| failure.to_string())?;
    match remote.open_socket(socket).await {
        Ok(_) => Ok(()),
        Err(Failure::Refused(_)) => Err(obstacle(remote, socket).await),
        Err(failure) => Err(failure.to_string()),
    }
}

/// sshd does not say why it does not connect to a socket. A user who may run nothing else is told less.
async fn obstacle(remote: &Remote, socket: &str) -> String {
    let look = remote.run(&Script::new("looking at the engine's socket", LOOK, LOOKING).arg(socket)).await;
    match look.map(|output| output.text()).unwrap_or_default().trim() {
        "missing" => format!("there is no socket {socket} on the host: does an engine run there?"),
        "denied" => {
            format!("the user may not use {socket} on the host: it must be in the socket's group (docker)")
        }
        "there" => format!(
            "sshd does not connect to {socket} on the host: no engine listens there, or sshd_config or the key's options forbid \
             the forwarding of sockets (AllowStreamLocalForwarding, port-forwarding)"
        ),
        _ => format!(
            "sshd does not connect to {socket} on the host: no engine listens there, the user may not use it, or the \
             forwarding of sockets is forbidden"
        ),
    }
}
