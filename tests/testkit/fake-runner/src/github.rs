//! The simulated GitHub's runner endpoints, over HTTP/1.1 with one connection per call.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::json;

/// A call that is not held has to be answered within this time.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where GitHub is, and who this runner is to it.
pub struct Github {
    /// Host and port.
    authority: String,
    /// The path before `/_runner`.
    prefix: String,
    secret: String,
}

/// What to do.
pub struct Job {
    pub name: String,
    /// None: until told.
    pub duration: Option<Duration>,
    pub exit_code: u8,
    pub result: String,
}

/// Why a call came to nothing.
pub enum Failure {
    Unreachable(io::Error),
    RegistrationGone,
    Refused(u16),
}

impl Failure {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::RegistrationGone | Self::Refused(_) => 1,
            Self::Unreachable(_) => 2,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "GitHub cannot be reached: {error}"),
            Self::RegistrationGone => write!(f, "The runner registration has been deleted from the server."),
            Self::Refused(status) => write!(f, "GitHub answers {status}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error)
    }
}

impl Github {
    /// Reads the files in a JIT configuration.
    pub fn from_jit(jit: &str) -> Option<Self> {
        let files = json::base64_text(jit)?;
        let settings = json::base64_text(json::string(&files, ".runner")?)?;
        let credentials = json::base64_text(json::string(&files, ".credentials")?)?;
        let url = json::string(&settings, "ServerUrl")?.strip_prefix("http://")?;
        let (authority, prefix) = url.split_once('/').unwrap_or((url, ""));
        let port = if authority.contains(':') { "" } else { ":80" };
        Some(Self {
            authority: format!("{authority}{port}"),
            prefix: if prefix.is_empty() {
                String::new()
            } else {
                format!("/{}", prefix.trim_end_matches('/'))
            },
            secret: json::string(&credentials, "Token")?.to_owned(),
        })
    }

    pub fn connect(&self) -> Result<(), Failure> {
        self.call("POST", "connect").map(|_| ())
    }

    /// Waits for a job; none when the poll's time is up.
    pub fn next_job(&self) -> Result<Option<Job>, Failure> {
        let (status, body) = self.call("GET", "job")?;
        if status == 202 {
            return Ok(None);
        }
        let duration = json::number(&body, "durationMs").and_then(|ms| u64::try_from(ms).ok());
        let exit_code = json::number(&body, "exitCode").and_then(|code| u8::try_from(code).ok());
        Ok(Some(Job {
            name: json::string(&body, "jobName").unwrap_or("job").to_owned(),
            duration: duration.map(Duration::from_millis),
            exit_code: exit_code.unwrap_or(0),
            result: json::string(&body, "result").unwrap_or("succeeded").to_owned(),
        }))
    }

    /// Waits while the job runs, at most for this long, and gives its state.
    pub fn hold(&self, time: Option<Duration>) -> Result<String, Failure> {
        let query = time.map_or(String::new(), |time| format!("?ms={}", time.as_millis()));
        let (_, body) = self.call("GET", &format!("hold{query}"))?;
        Ok(json::string(&body, "state").unwrap_or_default().to_owned())
    }

    pub fn finish(&self, result: &str) -> Result<(), Failure> {
        self.call("POST", &format!("finish?result={result}")).map(|_| ())
    }

    /// One request, one answer: the status and the body.
    fn call(&self, method: &str, path: &str) -> Result<(u16, String), Failure> {
        let mut stream = TcpStream::connect(&self.authority)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let request = format!(
            "{method} {}/_runner/{path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n",
            self.prefix, self.authority, self.secret
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) =
            answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof).map_err(io::Error::from)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        match status {
            200..300 => Ok((status, body.to_owned())),
            404 => Err(Failure::RegistrationGone),
            _ => Err(Failure::Refused(status)),
        }
    }
}
