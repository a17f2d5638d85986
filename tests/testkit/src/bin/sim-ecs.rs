//! The simulated ECS as a program: `sim-ecs --port 8490`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use testkit::ecs::{ClusterSpec, Credential, Delays, Lag, SimEcs};
use tokio::signal::unix::{SignalKind, signal};

/// A simulated ECS that speaks the JSON protocol of the AWS SDKs. Control it below /_control/.
#[derive(Parser)]
struct Options {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The region that signatures have to name.
    #[arg(long, default_value = "eu-west-1")]
    region: String,
    /// The account's number.
    #[arg(long, default_value = "123456789012")]
    account: String,
    /// An access key to accept. May be repeated.
    #[arg(long)]
    access_key: Vec<String>,
    /// A role that may be assumed; none: any. May be repeated.
    #[arg(long)]
    role: Vec<String>,
    /// A cluster on Fargate and Fargate Spot. May be repeated.
    #[arg(long)]
    cluster: Vec<String>,
    /// A subnet that exists; none: every id that begins with `subnet-`. May be repeated.
    #[arg(long)]
    subnet: Vec<String>,
    /// How long a task stays in each state, in milliseconds; without it, as long as on Fargate.
    #[arg(long)]
    delay_ms: Option<u64>,
    /// How late lists and descriptions are, in milliseconds.
    #[arg(long, default_value_t = 1_000)]
    lag_ms: u64,
    /// After how long a container that was told to stop is killed, in milliseconds.
    #[arg(long, default_value_t = 30_000)]
    stop_timeout_ms: u64,
    /// How long the notice of a Spot interruption is, in milliseconds.
    #[arg(long, default_value_t = 120_000)]
    spot_notice_ms: u64,
    /// Lift the limits on requests.
    #[arg(long)]
    no_throttling: bool,
    /// The program that every task runs, such as fake-runner.
    #[arg(long)]
    runner: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let mut terminated = signal(SignalKind::terminate())?;
    let ecs = start(options).await?;
    println!("{}", ecs.url());
    tokio::select! {
        _ = terminated.recv() => {}
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    Ok(())
}

async fn start(options: Options) -> Result<SimEcs, testkit::ecs::StartError> {
    let mut builder = SimEcs::builder()
        .bind(SocketAddr::new(options.bind, options.port))
        .region(options.region)
        .account(options.account)
        .lag(Lag::both(Duration::from_millis(options.lag_ms)))
        .stop_timeout(Duration::from_millis(options.stop_timeout_ms))
        .spot_notice(Duration::from_millis(options.spot_notice_ms));
    for key in options.access_key {
        builder = builder.credential(Credential::new(key));
    }
    for role in options.role {
        builder = builder.role(role);
    }
    for cluster in options.cluster {
        builder = builder.cluster(ClusterSpec::new(cluster));
    }
    for subnet in options.subnet {
        builder = builder.subnet(subnet);
    }
    if let Some(delay) = options.delay_ms {
        builder = builder.delays(Delays::each(Duration::from_millis(delay)));
    }
    if options.no_throttling {
        builder = builder.without_throttling();
    }
    if let Some(runner) = options.runner {
        builder = builder.runner(runner);
    }
    builder.start().await
}
