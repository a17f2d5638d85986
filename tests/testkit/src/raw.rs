//! A GitHub of a few lines on a bare socket: what a client puts on the wire is seen byte for byte, and what it is answered
//! may be of any size.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What a request to the service is answered with, by its first line.
type Answers = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// An answer.
pub enum Answer {
    /// A status and a body, in which `HOST` stands for the server's address.
    Body(u16, String),
    /// A status, then this text again and again, so many bytes of it.
    Endless(u16, &'static str, usize),
}

/// A request head, as it came.
#[derive(Debug, Clone)]
pub struct Head {
    /// Method, path and version.
    pub line: String,
    /// Names and values of the headers.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }
}

/// The server. It lives as long as the runtime.
#[derive(Debug)]
pub struct RawGithub {
    /// Where it listens.
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<Head>>>,
    sent: Arc<AtomicUsize>,
}

impl RawGithub {
    /// Starts it. The hops to the admin token are answered by itself.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start(answers: impl Fn(&str) -> Answer + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (heads, sent) = (Arc::<Mutex<Vec<Head>>>::default(), Arc::<AtomicUsize>::default());
        let (noted, counted, answers) = (heads.clone(), sent.clone(), Arc::new(answers) as Answers);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, address, noted.clone(), counted.clone(), answers.clone()));
            }
        });
        Ok(RawGithub { address, heads, sent })
    }

    /// The request heads so far.
    pub fn heads(&self) -> Vec<Head> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many bytes of endless bodies went out.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    heads: Arc<Mutex<Vec<Head>>>,
    sent: Arc<AtomicUsize>,
    answers: Answers,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let line = lines.remove(0);
        let split = |line: String| line.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned()));
        let head = Head { line: line.clone(), headers: lines.into_iter().filter_map(split).collect() };
        let length = head.all("content-length").first().and_then(|length| length.parse().ok()).unwrap_or(0);
        heads.lock().unwrap_or_else(PoisonError::into_inner).push(head);
        stream.read_exact(&mut vec![0; length]).await?;
        let mut answer = opening(&line, address).unwrap_or_else(|| answers(&line));
        if let Answer::Body(_, body) = &mut answer {
            *body = body.replace("HOST", &address.to_string());
        }
        let (status, length) = match &answer {
            Answer::Body(status, body) => (*status, body.len()),
            Answer::Endless(status, _, length) => (*status, *length),
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        match answer {
            Answer::Body(_, body) => stream.write_all(body.as_bytes()).await?,
            Answer::Endless(_, text, length) => {
                let piece = text.repeat(4096 / text.len());
                let mut left = length;
                while left > 0 {
                    let written = stream.write(&piece.as_bytes()[..piece.len().min(left)]).await?;
                    sent.fetch_add(written, Ordering::Relaxed);
                    left -= written;
                }
            }
        }
        stream.flush().await?;
    }
}

/// What the hops to the admin token are answered with.
fn opening(line: &str, address: SocketAddr) -> Option<Answer> {
    if line.contains("/access_tokens ") || line.contains("/registration-token ") {
        return Some(Answer::Body(201, r#"{"token": "opened"}"#.into()));
    }
    line.contains("/runner-registration ").then(|| {
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let token = format!(
            "{}.{}.{}",
            part(r#"{"alg": "RS256"}"#),
            part(r#"{"exp": 4102444800}"#),
            part("signature")
        );
        Answer::Body(200, format!(r#"{{"url": "http://{address}/", "token": "{token}"}}"#))
    })
}
