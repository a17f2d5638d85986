//! A GitHub that lies: what the simulated one answers is changed on its way, in each part that an answer has: status, head,
//! body, length, time and pace. Half of what is told is true: else nobody would ever come to the later steps.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::fuzz;
use crate::github::{SimGithub, SimGithubBuilder};

/// Bytes of an answer that is too large.
const LARGE: usize = 8 << 20;

/// What the opening of a session is answered with, before it is changed.
const SESSION: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n{\"sessionId\": \"00000000-0000-4000-8000-000000000000\"}";

/// The simulated GitHub, and what stands before it. It lives as long as the runtime.
#[derive(Debug)]
pub struct LyingGithub {
    /// What tells the truth.
    pub github: SimGithub,
    told: Arc<AtomicUsize>,
}

impl LyingGithub {
    /// Starts both. What is told is always the same for one seed and one order of requests.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start(github: SimGithubBuilder, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let github = github.public_url(url).start().await.map_err(io::Error::other)?;
        let (behind, told) = (github.address(), Arc::<AtomicUsize>::default());
        let (rng, counted) = (Arc::new(Mutex::new(StdRng::seed_from_u64(seed))), told.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, behind, rng.clone(), counted.clone()));
            }
        });
        Ok(LyingGithub { github, told })
    }

    /// How many lies were told.
    pub fn told(&self) -> usize {
        self.told.load(Ordering::Relaxed)
    }
}

/// Answers one request and hangs up.
async fn serve(
    stream: TcpStream,
    behind: SocketAddr,
    rng: Arc<Mutex<StdRng>>,
    told: Arc<AtomicUsize>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let request = request(&mut stream).await?;
    let lies = rng.lock().unwrap_or_else(PoisonError::into_inner).random();
    // A session whose opening is lied about stays open, and is in the way for minutes: it is not opened.
    let truth = match lies && opens_session(&request) {
        true => SESSION.to_vec(),
        false => ask(behind, &request).await?,
    };
    if !lies {
        return stream.write_all(&truth).await;
    }
    let Lie { answer, late, drips } = lie(&truth, &mut rng.lock().unwrap_or_else(PoisonError::into_inner));
    told.fetch_add(1, Ordering::Relaxed);
    sleep(late).await;
    let (slowly, rest) = answer.split_at(answer.len().min(drips));
    for byte in slowly {
        stream.write_u8(*byte).await?;
        stream.flush().await?;
        sleep(Duration::from_millis(5)).await;
    }
    stream.write_all(rest).await?;
    stream.shutdown().await
}

/// Reads a request, which is made one after which the connection ends.
async fn request(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let (mut request, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim_end().is_empty() {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(told) = lower.strip_prefix("content-length:") {
            length = told.trim().parse().unwrap_or(0);
        }
        if !lower.starts_with("connection:") {
            request.push_str(&line);
        }
    }
    let mut request = format!("{request}Connection: close\r\n\r\n").into_bytes();
    let head = request.len();
    request.resize(head + length, 0);
    stream.read_exact(request.get_mut(head..).unwrap_or_default()).await?;
    Ok(request)
}

async fn ask(behind: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(behind).await?;
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// What is answered in place of the truth.
struct Lie {
    answer: Vec<u8>,
    /// So long after it was asked for.
    late: Duration,
    /// So many bytes of it one by one.
    drips: usize,
}

fn opens_session(request: &[u8]) -> bool {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    line.starts_with(b"POST ") && line.windows(9).any(|piece| piece == b"/sessions")
}

fn lie(truth: &[u8], rng: &mut StdRng) -> Lie {
    let end = truth.windows(4).position(|four| four == b"\r\n\r\n").map_or(truth.len(), |at| at + 4);
    let (head, body) = truth.split_at(end);
    let with = |status: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let status = String::from_utf8_lossy(head.get(9..12).unwrap_or(b"200")).into_owned();
    let (mut late, mut drips) = (Duration::ZERO, 0);
    let answer = match rng.random_range(0..8) {
        0 | 1 => with(&rng.random_range(100..600).to_string(), body),
        2 | 3 => with(&status, &fuzz::changed(body, rng)),
        4 => [&fuzz::changed(head, rng), body].concat(),
        5 => with(&status, &b"[".repeat(LARGE)),
        6 => truth.get(..rng.random_range(0..truth.len().max(1))).unwrap_or_default().to_vec(),
        _ => {
            match rng.random() {
                true => late = Duration::from_millis(rng.random_range(0..5_000)),
                false => drips = 400,
            }
            truth.to_vec()
        }
    };
    Lie { answer, late, drips }
}
