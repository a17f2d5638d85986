//! An engine's socket with something between it and Paddock: inspections of one container fail on request.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::parts::Folder;

/// What becomes of an inspection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The engine answers 500.
    Refused,
    /// No answer comes.
    Silent,
}

/// The container, and what becomes of its inspections.
type Faulty = Arc<Mutex<Option<(String, Fault)>>>;

/// The proxy. It ends with this.
pub struct Proxy {
    endpoint: String,
    faulty: Faulty,
    task: JoinHandle<()>,
    _folder: Folder,
}

impl Proxy {
    /// A proxy before an engine.
    pub fn before(name: &str, engine: &str) -> Proxy {
        let folder = Folder::new(&format!("proxy-{name}"));
        let path = folder.path().join("p.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let endpoint = format!("unix://{}", path.display());
        let (engine, faulty) = (engine.trim_start_matches("unix://").to_owned(), Faulty::default());
        let known = faulty.clone();
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(connection(client, engine.clone(), known.clone()));
            }
        });
        Proxy { endpoint, faulty, task, _folder: folder }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// From now on inspections of that container fail.
    pub fn fail(&self, container: &str, fault: Fault) {
        *self.faulty.lock().unwrap() = Some((container.to_owned(), fault));
    }

    /// All passes again.
    pub fn heal(&self) {
        *self.faulty.lock().unwrap() = None;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(client: UnixStream, engine: String, faulty: Faulty) {
    let Ok(engine) = UnixStream::connect(engine).await else { return };
    let ((from_client, mut to_client), (mut from_engine, to_engine)) =
        (client.into_split(), engine.into_split());
    let fault = tokio::select! {
        fault = requests(from_client, to_engine, &faulty) => fault,
        _ = tokio::io::copy(&mut from_engine, &mut to_client) => None,
    };
    match fault {
        Some(Fault::Refused) => {
            let body = r#"{"message": "it cannot be read"}"#;
            let answer = format!(
                "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nConnection: close\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = to_client.write_all(answer.as_bytes()).await;
        }
        Some(Fault::Silent) => std::future::pending().await,
        None => {}
    }
}

/// Passes requests on until one is to fail. A client sends the next when the one before was answered, so each begins what
/// is read at a time.
async fn requests(
    mut client: impl AsyncRead + Unpin,
    mut engine: impl AsyncWrite + Unpin,
    faulty: &Faulty,
) -> Option<Fault> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(read @ 1..) = client.read(&mut buffer).await else { return None };
        let line = buffer[..read].split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).into_owned();
        let fault = faulty.lock().unwrap().as_ref().and_then(|(container, fault)| {
            line.contains(&format!("/containers/{container}/json")).then_some(*fault)
        });
        if fault.is_some() {
            return fault;
        }
        if engine.write_all(&buffer[..read]).await.is_err() {
            return None;
        }
    }
}
