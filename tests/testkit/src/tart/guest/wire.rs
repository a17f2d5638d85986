//! What `tart exec` and the guest agent say to each other: frames of a kind, a length and bytes.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A program to run in the guest.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) struct Request {
    /// Its name and its arguments.
    pub command: Vec<String>,
    /// Whether it gets a standard input.
    pub interactive: bool,
}

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Frame {
    /// A [`Request`], as JSON.
    Request(Vec<u8>),
    /// The agent has read the request.
    Hello,
    /// Standard input; empty at its end.
    Input(Vec<u8>),
    /// Standard output.
    Output(Vec<u8>),
    /// Standard error.
    Error(Vec<u8>),
    /// The program ended, and everyone who had its output closed it.
    Exit(u8),
    /// The program could not be started.
    Refused(String),
}

/// More than anybody sends in one frame.
const LONGEST: u32 = 16 << 20;

impl Frame {
    fn parts(&self) -> (u8, &[u8]) {
        match self {
            Self::Request(bytes) => (0, bytes),
            Self::Hello => (1, &[]),
            Self::Input(bytes) => (2, bytes),
            Self::Output(bytes) => (3, bytes),
            Self::Error(bytes) => (4, bytes),
            Self::Exit(code) => (5, std::slice::from_ref(code)),
            Self::Refused(text) => (6, text.as_bytes()),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let (kind, bytes) = self.parts();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        [&[kind][..], &length.to_be_bytes(), bytes].concat()
    }

    fn decode(kind: u8, bytes: Vec<u8>) -> io::Result<Self> {
        Ok(match (kind, bytes.first()) {
            (0, _) => Self::Request(bytes),
            (1, _) => Self::Hello,
            (2, _) => Self::Input(bytes),
            (3, _) => Self::Output(bytes),
            (4, _) => Self::Error(bytes),
            (5, Some(code)) => Self::Exit(*code),
            (6, _) => Self::Refused(String::from_utf8_lossy(&bytes).into_owned()),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

fn length(header: [u8; 5]) -> io::Result<usize> {
    let [_, length @ ..] = header;
    let length = u32::from_be_bytes(length);
    if length > LONGEST { Err(io::ErrorKind::InvalidData.into()) } else { Ok(length as usize) }
}

/// Writes one frame.
pub(in super::super) fn write_frame(to: &mut impl Write, frame: &Frame) -> io::Result<()> {
    to.write_all(&frame.encode())
}

/// Reads one frame; `None` when the other side has closed.
pub(in super::super) fn read_frame(from: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut header = [0; 5];
    match from.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut bytes = vec![0; length(header)?];
    from.read_exact(&mut bytes)?;
    Frame::decode(header[0], bytes).map(Some)
}

/// The same without blocking the thread.
pub(super) async fn send(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    to.write_all(&frame.encode()).await
}

/// The same without blocking the thread.
pub(super) async fn receive(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let mut header = [0; 5];
    match from.read_exact(&mut header).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let mut bytes = vec![0; length(header)?];
    from.read_exact(&mut bytes).await?;
    Frame::decode(header[0], bytes).map(Some)
}
