//! The simulated GitHub as a program: `sim-github --port 8480`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use testkit::github::{Model, SimGithub};
use tokio::signal::unix::{SignalKind, signal};

/// A simulated GitHub that speaks the scale-set service's wire protocol. Control it below /_control/.
#[derive(Parser)]
struct Options {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// How jobs are handed to scale sets.
    #[arg(long, value_enum, default_value = "broker")]
    model: ModelName,
    /// A personal access token to accept. May be repeated.
    #[arg(long)]
    token: Vec<String>,
    /// The GitHub App's id or client id.
    #[arg(long, requires_all = ["installation_id", "app_key"])]
    app: Option<String>,
    /// The App's installation.
    #[arg(long)]
    installation_id: Option<i64>,
    /// File with the App's RSA key, public or private, in PEM form.
    #[arg(long)]
    app_key: Option<PathBuf>,
    /// A runner group beside Default. May be repeated.
    #[arg(long)]
    runner_group: Vec<String>,
    /// Base of the URLs handed to clients.
    #[arg(long)]
    public_url: Option<String>,
    /// Base of the URLs in JIT configurations.
    #[arg(long)]
    runner_url: Option<String>,
    /// How long a poll is held, in milliseconds.
    #[arg(long, default_value_t = 50_000)]
    long_poll_ms: u64,
    /// After how long an unclaimed assignment is canceled, in milliseconds.
    #[arg(long, default_value_t = 300_000)]
    unclaimed_ms: u64,
    /// After how long a silent runner's job fails, in milliseconds.
    #[arg(long, default_value_t = 600_000)]
    silence_ms: u64,
    /// How long a registration lingers after its job, in milliseconds.
    #[arg(long)]
    linger_ms: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModelName {
    Broker,
    Ghes,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let mut terminated = signal(SignalKind::terminate())?;
    let github = start(options).await?;
    println!("{}", github.url());
    tokio::select! {
        _ = terminated.recv() => {}
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    Ok(())
}

async fn start(options: Options) -> Result<SimGithub, Box<dyn std::error::Error>> {
    let mut builder = SimGithub::builder()
        .bind(SocketAddr::new(options.bind, options.port))
        .model(match options.model {
            ModelName::Broker => Model::Broker,
            ModelName::Ghes => Model::Ghes,
        })
        .long_poll(Duration::from_millis(options.long_poll_ms))
        .unclaimed_after(Duration::from_millis(options.unclaimed_ms))
        .silence(Duration::from_millis(options.silence_ms));
    for token in options.token {
        builder = builder.token(token);
    }
    for group in options.runner_group {
        builder = builder.runner_group(group);
    }
    if let (Some(app), Some(id), Some(key)) = (options.app, options.installation_id, options.app_key) {
        builder = builder.app(app, id, &std::fs::read_to_string(key)?)?;
    }
    if let Some(url) = options.public_url {
        builder = builder.public_url(url);
    }
    if let Some(url) = options.runner_url {
        builder = builder.runner_url(url);
    }
    if let Some(linger) = options.linger_ms {
        builder = builder.linger(Duration::from_millis(linger));
    }
    Ok(builder.start().await?)
}
