//! A way from this machine to an engine that listens with TLS in a network of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::copy;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::{Authority, BUSYBOX};

/// Where an engine listens in its own network.
const PORT: u16 = 2376;

/// The arguments with which `dockerd` listens with TLS for whomever an authority certified. Its certificates come into its
/// folder.
pub fn arguments(folder: &Path, authority: &Authority) -> Vec<String> {
    let own = authority.certify("engine");
    let files = [("tlscacert", authority.pem()), ("tlscert", own.certificate), ("tlskey", own.key)].map(
        |(flag, text)| {
            let file = folder.join(flag);
            fs::write(&file, text).unwrap();
            format!("--{flag}={}", file.display())
        },
    );
    let listens = ["--tlsverify".to_owned(), format!("--host=tcp://127.0.0.1:{PORT}")];
    listens.into_iter().chain(files).collect()
}

/// A port of this machine that leads to an engine's. It closes with this.
pub struct Door {
    address: SocketAddr,
    process: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Door {
    /// Opens one that leads nowhere yet.
    pub async fn open() -> Door {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let process = Arc::<AtomicU32>::default();
        let inside = process.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, inside.load(Ordering::Relaxed)));
            }
        });
        Door { address, process, task }
    }

    /// Has it lead to the engine in the network of a process.
    pub fn lead_to(&self, process: u32) {
        self.process.store(process, Ordering::Relaxed);
    }

    /// As `hosts[].endpoint` has it.
    pub fn endpoint(&self) -> String {
        format!("tcp://{}", self.address)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut stream: TcpStream, process: u32) {
    let mut inside = Command::new("nsenter");
    inside.arg(format!("--net=/proc/{process}/ns/net")).args([BUSYBOX, "nc", "127.0.0.1", &PORT.to_string()]);
    inside.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let Ok(mut inside) = inside.spawn() else { return };
    let (Some(mut to), Some(mut from)) = (inside.stdin.take(), inside.stdout.take()) else { return };
    let (mut reader, mut writer) = stream.split();
    // Whichever end closes, closes the other.
    tokio::select! {
        _ = copy(&mut reader, &mut to) => {}
        _ = copy(&mut from, &mut writer) => {}
    }
}
