//! A Mac's sshd: its keys, its configuration, and what a client needs.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Output;

use tokio::process::Command;

use super::Mac;
use super::builder::StartError;
use super::init::{Order, Report};
use super::process::Process;

/// Where Debian, and most others, have it.
const SSHD: &str = "/usr/sbin/sshd";
/// How often another port is tried where one was taken in between.
const PORTS: usize = 5;

/// The files of a Mac's sshd.
#[derive(Debug)]
pub(super) struct Ssh {
    dir: PathBuf,
    user: String,
    port: u16,
}

impl Ssh {
    /// Makes keys and a configuration, and starts sshd on a port of its own.
    pub async fn start(
        dir: PathBuf,
        environment: &[String],
        process: &mut Process,
    ) -> Result<Self, StartError> {
        if !Path::new(SSHD).exists() {
            return Err(StartError::Missing {
                program: SSHD,
                install: "apt-get install -y --no-install-recommends openssh-server",
            });
        }
        fs::create_dir_all(&dir)?;
        let user = run(Command::new("id").arg("-un")).await?;
        let user = String::from_utf8_lossy(&user.stdout).trim().to_owned();
        let mut ssh = Self { dir, user, port: 0 };
        ssh.make_key("host").await?;
        ssh.make_key("user").await?;
        let mut tried = 0;
        loop {
            ssh.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            ssh.write_config(environment)?;
            tried += 1;
            match ssh.serve(process).await {
                Err(StartError::Sshd(_)) if tried < PORTS => {}
                other => return other.map(|()| ssh),
            }
        }
    }

    /// Starts sshd and waits until it listens.
    pub async fn serve(&self, process: &mut Process) -> Result<(), StartError> {
        let config = self.dir.join("config").display().to_string();
        let order = Order::Sshd([SSHD, "-D", "-e", "-f", &config].map(str::to_owned).into());
        let listens = format!("Server listening on 127.0.0.1 port {}.", self.port);
        let is_end =
            |line: &str| line.starts_with(&listens) || line.contains("annot") || line.contains("atal");
        let report =
            process.order(&order, |report| matches!(report, Report::Log(line) if is_end(line))).await?;
        match report {
            Report::Log(line) if !line.starts_with(&listens) => Err(StartError::Sshd(line)),
            _ => Ok(()),
        }
    }

    async fn make_key(&self, name: &str) -> io::Result<()> {
        let path = self.dir.join(name);
        for old in [path.clone(), path.with_extension("pub")] {
            super::super::home::gone_or(fs::remove_file(old))?;
        }
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(path))
            .await
            .map(drop)
    }

    fn write_config(&self, environment: &[String]) -> io::Result<()> {
        let dir = self.dir.display();
        let port = self.port;
        let environment = environment.join(" ");
        let text = format!(
            "Port {port}\n\
             ListenAddress 127.0.0.1\n\
             HostKey {dir}/host\n\
             AuthorizedKeysFile {dir}/user.pub\n\
             PidFile none\n\
             UsePAM no\n\
             StrictModes no\n\
             PasswordAuthentication no\n\
             PermitRootLogin prohibit-password\n\
             PrintMotd no\n\
             PrintLastLog no\n\
             SetEnv {environment}\n"
        );
        fs::write(self.dir.join("config"), text)
    }
}

async fn run(command: &mut Command) -> io::Result<Output> {
    let output = command.output().await?;
    if output.status.success() {
        return Ok(output);
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// What a client of the Mac's sshd needs, and what can become of it. A Mac without sshd fails each of these, or has empty
/// texts.
impl Mac {
    /// As `hosts[].endpoint` in the API; `local` where there is no sshd.
    pub fn endpoint(&self) -> String {
        self.ssh
            .as_ref()
            .map_or_else(|| "local".to_owned(), |ssh| format!("ssh://{}@127.0.0.1:{}", ssh.user, ssh.port))
    }

    /// The port of sshd.
    pub fn port(&self) -> u16 {
        self.ssh.as_ref().map_or(0, |ssh| ssh.port)
    }

    /// The private key that sshd accepts, in OpenSSH's form.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn private_key(&self) -> io::Result<String> {
        fs::read_to_string(self.sshd()?.dir.join("user"))
    }

    /// The host's key as a line of `known_hosts`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn known_hosts(&self) -> io::Result<String> {
        let ssh = self.sshd()?;
        let key = fs::read_to_string(ssh.dir.join("host.pub"))?;
        let mut words = key.split_whitespace();
        let key = [words.next().unwrap_or_default(), words.next().unwrap_or_default()].join(" ");
        Ok(format!("[127.0.0.1]:{} {key}\n", ssh.port))
    }

    /// Runs a command line through sshd with the system's own client.
    ///
    /// # Errors
    ///
    /// When the client cannot be started.
    pub async fn ssh(&self, line: &str) -> io::Result<Output> {
        self.ssh_command(line)?.output().await
    }

    /// The same, not started yet.
    ///
    /// # Errors
    ///
    /// When the Mac has no sshd.
    pub fn ssh_command(&self, line: &str) -> io::Result<Command> {
        let ssh = self.sshd()?;
        let known_hosts = ssh.dir.join("known_hosts");
        fs::write(&known_hosts, self.known_hosts()?)?;
        let mut command = Command::new("ssh");
        command.args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "LogLevel=ERROR",
        ]);
        command.arg("-o").arg(format!("UserKnownHostsFile={}", known_hosts.display()));
        command.arg("-i").arg(ssh.dir.join("user")).args(["-p", &ssh.port.to_string()]);
        command.arg(format!("{}@127.0.0.1", ssh.user)).arg(line).kill_on_drop(true);
        Ok(command)
    }

    /// Ends sshd and its connections. What was started through them goes on.
    ///
    /// # Errors
    ///
    /// When the Mac has none, or is off.
    pub async fn kill_sshd(&mut self) -> io::Result<()> {
        self.order(Order::KillSshd).await
    }

    /// Starts sshd again, on its old port.
    ///
    /// # Errors
    ///
    /// When the Mac has none or is off, or sshd does not start.
    pub async fn start_sshd(&mut self) -> Result<(), StartError> {
        let (Some(ssh), Some(process)) = (&self.ssh, &mut self.process) else {
            return Err(io::Error::from(io::ErrorKind::NotConnected).into());
        };
        ssh.serve(process).await
    }

    /// Lets sshd and its connections answer no more, without closing anything: a network that swallows all.
    ///
    /// # Errors
    ///
    /// When the Mac has none, or is off.
    pub async fn freeze_sshd(&mut self) -> io::Result<()> {
        self.order(Order::FreezeSshd).await
    }

    /// Lets them answer again.
    ///
    /// # Errors
    ///
    /// When the Mac has none, or is off.
    pub async fn thaw_sshd(&mut self) -> io::Result<()> {
        self.order(Order::ThawSshd).await
    }

    /// Gives sshd another host key, as a Mac has that was installed anew, or one that only pretends. Connections end.
    ///
    /// # Errors
    ///
    /// When the key cannot be made, or sshd does not start.
    pub async fn change_host_key(&mut self) -> Result<(), StartError> {
        self.kill_sshd().await?;
        self.sshd()?.make_key("host").await?;
        self.start_sshd().await
    }

    async fn order(&mut self, order: Order) -> io::Result<()> {
        let process = self.process.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        process.order(&order, |report| *report == Report::Done).await.map(drop)
    }

    fn sshd(&self) -> io::Result<&Ssh> {
        self.ssh.as_ref().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}
