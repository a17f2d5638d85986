//! What a Mac is to be like, and its start.

use std::io;
use std::path::{Path, PathBuf};

use tokio::net::UnixDatagram;
use tokio::process::Command;

use super::super::home::Home;
use super::super::registry::{Image, Registry};
use super::super::scenario::Scenario;
use super::process::Process;
use super::ssh::Ssh;
use super::{Mac, fill_path};

/// The image that a Mac finds in its registry when its builder names no other: macOS with the fake runner.
pub const IMAGE: &str = "ghcr.io/acme/macos:latest";

/// Why a Mac did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A program is missing.
    #[error("{program} is missing: {install}")]
    Missing {
        /// The program.
        program: &'static str,
        /// The command that installs it.
        install: &'static str,
    },
    /// The system refused.
    #[error("the Mac's files or processes cannot be made")]
    Io(#[from] io::Error),
    /// sshd did not listen.
    #[error("sshd does not start: {0}")]
    Sshd(String),
}

/// Builds a [`Mac`].
#[derive(Debug, Clone)]
#[must_use]
pub struct MacBuilder {
    scenario: Scenario,
    images: Vec<(String, Image)>,
    tart: Option<PathBuf>,
    runner: Option<PathBuf>,
    sshd: bool,
}

impl Default for MacBuilder {
    fn default() -> Self {
        Self { scenario: Scenario::default(), images: Vec::new(), tart: None, runner: None, sshd: true }
    }
}

impl MacBuilder {
    /// Changes what the Mac is like.
    pub fn scenario(mut self, change: impl FnOnce(&mut Scenario)) -> Self {
        change(&mut self.scenario);
        self
    }

    /// Puts an image into the registry. The fake runner is put into each of macOS.
    pub fn image(mut self, name: impl Into<String>, image: Image) -> Self {
        self.images.push((name.into(), image));
        self
    }

    /// The stand-in. Default: the one beside the test.
    pub fn tart(mut self, program: impl Into<PathBuf>) -> Self {
        self.tart = Some(program.into());
        self
    }

    /// The fake runner. Default: the one beside the test.
    pub fn runner(mut self, program: impl Into<PathBuf>) -> Self {
        self.runner = Some(program.into());
        self
    }

    /// Without sshd, for a controller on the Mac itself: what it starts runs beside it, with [`Mac::tart_home`] in its
    /// environment.
    pub fn local(mut self) -> Self {
        self.sshd = false;
        self
    }

    /// Makes and starts the Mac.
    ///
    /// # Errors
    ///
    /// When a program is missing or the system refuses; the error names what to install.
    pub async fn start(self) -> Result<Mac, StartError> {
        let tart = match &self.tart {
            Some(path) => path.clone(),
            None => beside_the_test("tart", "cargo build -p testkit --bin tart").await?,
        };
        let runner = match &self.runner {
            Some(path) => path.clone(),
            None => beside_the_test("fake-runner", "cargo build -p fake-runner").await?,
        };
        let dir =
            std::env::temp_dir().join(format!("mac-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]));
        let home = Home::open(&dir.join("home").join(".tart"))?;
        let events = UnixDatagram::bind(home.sim.path("events.sock"))?;
        let mut mac = Mac { home, tart, ssh: None, process: None, events, dir };
        mac.home.sim.set_scenario(&self.scenario)?;
        fill_path(&mac.path(), &mac.tart)?;
        let images =
            if self.images.is_empty() { vec![(IMAGE.to_owned(), Image::default())] } else { self.images };
        let registry = Registry::of(&mac.home.sim);
        for (name, image) in images {
            let image = with_runner(image, &runner)?;
            registry.push(&name, &image).map_err(|failure| io::Error::other(failure.to_string()))?;
        }
        if self.sshd {
            let mut process = Process::start(&mac.tart).await?;
            mac.ssh = Some(Ssh::start(mac.dir.join("ssh"), &mac.environment(), &mut process).await?);
            mac.process = Some(process);
        }
        Ok(mac)
    }
}

/// As GitHub's own script: the JIT configuration from its argument or the environment.
const RUN_SH: &str = r#"#!/bin/bash
cd "$(dirname "$0")" || exit 1
if [ "${1-}" = --jitconfig ]; then
  export ACTIONS_RUNNER_INPUT_JITCONFIG=$2
fi
exec ./fake-runner
"#;

fn with_runner(mut image: Image, runner: &Path) -> io::Result<Image> {
    if image.os == super::super::Os::Darwin {
        let files = [("run.sh", RUN_SH.as_bytes().to_vec()), ("fake-runner", std::fs::read(runner)?)];
        for (name, text) in files {
            image.files.entry(format!("admin/actions-runner/{name}")).or_insert((text, true));
        }
    }
    Ok(image)
}

/// A program of this workspace in the folder above the test's own, made if it is not there.
async fn beside_the_test(program: &'static str, make: &'static str) -> Result<PathBuf, StartError> {
    let test = std::env::current_exe()?;
    let folder = test.ancestors().find(|folder| folder.join("deps").is_dir());
    let path = folder.unwrap_or(Path::new("")).join(program);
    let missing = StartError::Missing { program, install: make };
    if !path.exists() && (program == "tart" || !made(make).await? || !path.exists()) {
        return Err(missing);
    }
    Ok(path)
}

async fn made(command: &str) -> io::Result<bool> {
    let mut words = command.split_whitespace();
    let mut make = Command::new(words.next().unwrap_or_default());
    Ok(make.args(words).arg("--quiet").status().await?.success())
}
