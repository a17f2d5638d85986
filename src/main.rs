//! The command line.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use paddock::api::OperatorPolicy;
use paddock::cause;
use paddock::check;
use paddock::controller::{self, Cluster, Options, PolicyError};
use paddock::convert::{self, Source};
use paddock::doctor::{self, ExtraHost, Finding};
use paddock::runner::runner_name;
use paddock::telemetry::{self, LogFormat, Ports};
use paddock::terminal::{self, Row};
use paddock::top;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a controller may take to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Fleets of ephemeral GitHub Actions runners, declared in Kubernetes.
#[derive(Parser)]
#[command(name = "paddock", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller.
    Run(Box<Run>),
    /// Print the CustomResourceDefinition of RunnerScaleSet as YAML.
    Crd,
    /// Convert the configuration of runscaler, ecs-arc or actions-runner-controller into manifests, on standard output.
    Convert {
        /// Whose configuration it is.
        #[arg(value_enum)]
        from: Source,
        /// The file. A dash reads standard input.
        file: PathBuf,
    },
    /// Judge manifests as the API server and the controller would, before they are applied.
    Check(Box<Check>),
    /// Look for what is orphaned, stuck or lacking, over the cluster, the hosts and GitHub.
    Doctor(Box<Doctor>),
    /// Show scale sets, hosts and runners in tables, again and again on a terminal. Installed as kubectl-paddock too, it is
    /// `kubectl paddock top`.
    Top(Box<Top>),
    /// Print what a shell needs to complete this command line.
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Ask a controller once whether it is ready.
    Probe {
        /// Where it listens: host:port, or tcp://host:port as Kubernetes has it in the variables of a Service.
        address: String,
    },
}

#[derive(Args)]
struct Run {
    /// Watch this namespace only; may be given several times. Default: all.
    #[arg(long, env = "PADDOCK_WATCH_NAMESPACE", value_name = "NAMESPACE", value_delimiter = ',')]
    watch_namespace: Vec<String>,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "PADDOCK_LISTEN", default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where /metrics is served in place of there.
    #[arg(long, env = "PADDOCK_METRICS_LISTEN", value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// A file with the bearer token that /metrics asks for. Default: it is shown to everyone.
    #[arg(long, env = "PADDOCK_METRICS_TOKEN_FILE", value_name = "FILE")]
    metrics_token_file: Option<PathBuf>,
    /// Lead only while holding a Lease, so that several controllers may run.
    #[arg(long, env = "PADDOCK_LEADER_ELECT", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    leader_elect: bool,
    /// Where that Lease is. Default: the controller's own namespace.
    #[arg(long, env = "PADDOCK_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    lease_namespace: Option<String>,
    /// The id that marks what is ours on every backend. Default: the UID of the kube-system namespace.
    #[arg(long, env = "PADDOCK_CLUSTER_ID", value_name = "ID")]
    cluster_id: Option<String>,
    /// The file with the operator's policy, read again when it changes. Default: what docs/policy.md has.
    #[arg(long, env = "PADDOCK_POLICY", value_name = "FILE")]
    policy: Option<PathBuf>,
    /// How log lines look.
    #[arg(long, env = "PADDOCK_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// What is logged: a level, or a filter directive.
    #[arg(long, env = "PADDOCK_LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    log_level: String,
    #[command(flatten)]
    kube: Kube,
}

#[derive(Args)]
struct Check {
    /// A file with manifests; may be given several times. A folder stands for the files in it, a dash for standard input.
    #[arg(short, long, env = "PADDOCK_FILE", value_name = "FILE", required = true, num_args = 1..)]
    file: Vec<PathBuf>,
    /// Try GitHub, the hosts, the images and AWS too, as the controller would, with the Secrets of the cluster.
    #[arg(long, env = "PADDOCK_CONNECT")]
    connect: bool,
    /// The file with the operator's policy. Default: what docs/policy.md has.
    #[arg(long, env = "PADDOCK_POLICY", value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The namespace of manifests that name none. Default: that of the context, or `default`.
    #[arg(short, long, env = "PADDOCK_NAMESPACE", value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The id that marks what is ours on every backend. Default: the UID of the kube-system namespace.
    #[arg(long, env = "PADDOCK_CLUSTER_ID", value_name = "ID")]
    cluster_id: Option<String>,
    /// How the result is printed.
    #[arg(short, long, env = "PADDOCK_OUTPUT", default_value = "text")]
    output: Format,
    #[command(flatten)]
    kube: Kube,
}

#[derive(Args)]
struct Doctor {
    /// Remove orphans, each after asking.
    #[arg(long, env = "PADDOCK_FIX")]
    fix: bool,
    /// With --fix: do not ask.
    #[arg(long, env = "PADDOCK_YES", requires = "fix")]
    yes: bool,
    /// A host that no scale set names any more: ENDPOINT[,kind=docker|tart][,secret=NAMESPACE/NAME]; may be given several times.
    #[arg(long, env = "PADDOCK_HOST", value_name = "HOST")]
    host: Vec<ExtraHost>,
    /// Look at the scale sets of this namespace only; may be given several times. Default: all.
    #[arg(short, long, env = "PADDOCK_NAMESPACE", value_name = "NAMESPACE", value_delimiter = ',')]
    namespace: Vec<String>,
    /// Where the controller's Lease is. Default: looked for everywhere.
    #[arg(long, env = "PADDOCK_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    lease_namespace: Option<String>,
    /// The id that marks what is ours on every backend. Default: the UID of the kube-system namespace.
    #[arg(long, env = "PADDOCK_CLUSTER_ID", value_name = "ID")]
    cluster_id: Option<String>,
    /// The file with the operator's policy: what a spec may not have is not connected to. Default: what docs/policy.md has.
    #[arg(long, env = "PADDOCK_POLICY", value_name = "FILE")]
    policy: Option<PathBuf>,
    /// How the result is printed.
    #[arg(short, long, env = "PADDOCK_OUTPUT", default_value = "text")]
    output: Format,
    #[command(flatten)]
    kube: Kube,
}

#[derive(Args)]
struct Top {
    /// Show the scale sets of this namespace only; may be given several times. Default: all.
    #[arg(short, long, env = "PADDOCK_NAMESPACE", value_name = "NAMESPACE", value_delimiter = ',')]
    namespace: Vec<String>,
    /// How many seconds pass between two looks, on a terminal.
    #[arg(long, env = "PADDOCK_INTERVAL", default_value_t = 2, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// How it is printed: JSON is printed once.
    #[arg(short, long, env = "PADDOCK_OUTPUT", default_value = "text")]
    output: Format,
    #[command(flatten)]
    kube: Kube,
}

/// How a result is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for people.
    Text,
    /// JSON for machines.
    Json,
}

/// Which cluster.
#[derive(Args)]
struct Kube {
    /// The kubeconfig file. Default: in-cluster, else KUBECONFIG, else ~/.kube/config.
    #[arg(long, env = "PADDOCK_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig.
    #[arg(long, env = "PADDOCK_CONTEXT", value_name = "NAME")]
    context: Option<String>,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error)
            if error.use_stderr() && logs_json(arguments(), std::env::var("PADDOCK_LOG_FORMAT").ok()) =>
        {
            log_as_json(&error);
            return ExitCode::from(2);
        }
        Err(error) => error.exit(),
    };
    let done = match cli.command {
        Command::Run(options) => return run(*options),
        Command::Crd => print_crd(),
        Command::Convert { from, file } => print_manifests(from, &file),
        Command::Check(options) => return ended(check(*options)),
        Command::Doctor(options) => return ended(doctor(*options)),
        Command::Top(options) => top(&options),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "paddock", &mut std::io::stdout());
            Ok(())
        }
        Command::Probe { address } => probe(&address),
    };
    ended(done.map(|()| true))
}

/// The exit code of a command that was carried out, and found all to be well or not, or was not.
fn ended(done: Result<bool, Box<dyn Error>>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("paddock: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The command line, as far as it is text.
fn arguments() -> impl Iterator<Item = String> {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned())
}

/// Whether a command line is of a controller that logs JSON: asked where it cannot be parsed.
fn logs_json(arguments: impl IntoIterator<Item = String>, variable: Option<String>) -> bool {
    let arguments: Vec<String> = arguments.into_iter().collect();
    let given = arguments.iter().enumerate().rev().find_map(|(at, argument)| {
        match argument.strip_prefix("--log-format") {
            Some("") => arguments.get(at + 1).map(String::as_str),
            Some(value) => value.strip_prefix('='),
            None => None,
        }
    });
    arguments.get(1).is_some_and(|command| command == "run") && given.or(variable.as_deref()) == Some("json")
}

/// Logs why the controller cannot run, as a line of its log: whoever collects that reads nothing else.
fn log_as_json(error: &dyn std::fmt::Display) {
    // An error means that logging is set up already, in the same format.
    let _ = telemetry::init(LogFormat::Json, "info");
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    tracing::error!("{}", lines.join(" "));
}

fn print_crd() -> Result<(), Box<dyn Error>> {
    Ok(std::io::stdout().write_all(paddock::api::crd_yaml()?.as_bytes())?)
}

fn print_manifests(from: Source, file: &Path) -> Result<(), Box<dyn Error>> {
    let read = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let told = |error: &dyn Error| format!("{}: {error}", file.display());
    let text = read.map_err(|error| told(&error))?;
    let manifests =
        convert::convert(from, &text, |name| std::env::var(name).ok()).map_err(|error| told(&error))?;
    Ok(std::io::stdout().write_all(manifests.as_bytes())?)
}

/// `helm test` has this image and no other, which has no shell.
fn probe(address: &str) -> Result<(), Box<dyn Error>> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let url = format!("http://{}/readyz", address.strip_prefix("tcp://").unwrap_or(address));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().timeout(PROBE_TIMEOUT).build()?;
        client.get(&url).send().await?.error_for_status()?;
        println!("{url}: ready");
        Ok(())
    })
}

fn top(options: &Top) -> Result<(), Box<dyn Error>> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let cluster = Cluster::new(controller::client(kube_config(&options.kube).await?)?);
        loop {
            let sets = cluster.scale_sets(&options.namespace).await?;
            for (name, why) in &sets.unreadable {
                eprintln!("{name} cannot be read: {why}");
            }
            let shown = top::Top::of(&sets.objects);
            let drawn = || shown.drawn(jiff::Timestamp::now());
            match options.output {
                Format::Text if terminal::is_watched() => terminal::show_instead(&drawn())?,
                Format::Text => break print!("{}", drawn()),
                Format::Json => break println!("{:#}", json!(shown)),
            }
            tokio::time::sleep(Duration::from_secs(options.interval)).await;
        }
        Ok(())
    })
}

/// Answers whether all is well.
fn check(options: Check) -> Result<bool, Box<dyn Error>> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let checks = runtime.block_on(checks(&options));
    runtime.shutdown_background();
    let checks = checks?;
    let wrong = checks.iter().filter(|check| !check.ok).count();
    match options.output {
        Format::Json => println!("{:#}", json!({"checks": checks})),
        Format::Text => {
            let rows: Vec<Row> = checks.iter().map(row_of_check).collect();
            print!("{}", terminal::table(&["", "FILE", "OBJECT", "FIELD", "MESSAGE"], &rows));
            println!("{} checks, {wrong} failed", checks.len());
        }
    }
    Ok(wrong == 0)
}

fn row_of_check(check: &check::Check) -> Row {
    let mark = if check.ok { "ok" } else { "FAIL" };
    let columns = [mark, &check.file, &check.object, &check.field, &check.message];
    Row { good: check.ok, columns: columns.map(str::to_owned).to_vec() }
}

/// Answers whether nothing is found, or nothing is left.
fn doctor(options: Doctor) -> Result<bool, Box<dyn Error>> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let findings = runtime.block_on(findings(&options));
    runtime.shutdown_background();
    let findings = findings?;
    match options.output {
        Format::Json => println!("{:#}", json!({"findings": findings})),
        Format::Text if findings.is_empty() => println!("nothing is found"),
        Format::Text => {
            let rows: Vec<Row> = findings.iter().map(row_of_finding).collect();
            print!("{}", terminal::table(&["KIND", "WHERE", "SUBJECT", "MESSAGE", "REMEDY"], &rows));
        }
    }
    Ok(findings.is_empty())
}

fn row_of_finding(finding: &Finding) -> Row {
    let Finding { kind, place, subject, message, remedy, .. } = finding;
    let columns = vec![format!("{kind:?}"), place.clone(), subject.clone(), message.clone(), remedy.clone()];
    Row { good: false, columns }
}

async fn findings(options: &Doctor) -> Result<Vec<Finding>, Box<dyn Error>> {
    let cluster = Cluster::new(controller::client(kube_config(&options.kube).await?)?);
    let settings = doctor::Options {
        namespaces: options.namespace.clone(),
        lease_namespace: options.lease_namespace.clone(),
        policy: policy(options.policy.as_deref()).await?,
        cluster_id: options.cluster_id.clone(),
        hosts: options.host.clone(),
    };
    let mut doctor = doctor::Doctor::examine(&cluster, &settings, &terminal::progress).await?;
    terminal::progress("");
    if options.fix {
        doctor.fix(|orphan| options.yes || agrees_to(orphan)).await;
    }
    Ok(doctor.findings())
}

/// Asks whether an orphan is to be removed. No answer is no.
fn agrees_to(orphan: &Finding) -> bool {
    let Finding { kind, place, subject, message, .. } = orphan;
    let question = format!("{kind:?} {subject} on {place}: {message}. Remove it? [y/N] ");
    terminal::ask(&question).is_some_and(|answer| ["y", "yes"].contains(&answer.to_lowercase().as_str()))
}

async fn policy(file: Option<&Path>) -> Result<OperatorPolicy, PolicyError> {
    match file {
        Some(path) => controller::read_policy(path).await,
        None => Ok(OperatorPolicy::default()),
    }
}

async fn checks(options: &Check) -> Result<Vec<check::Check>, Box<dyn Error>> {
    let policy = policy(options.policy.as_deref()).await?;
    let cluster = match options.connect {
        true => Some(Cluster::new(controller::client(kube_config(&options.kube).await?)?)),
        false => None,
    };
    let default = cluster.as_ref().map_or("default", Cluster::default_namespace).to_owned();
    let settings = check::Options {
        policy,
        namespace: options.namespace.clone().unwrap_or(default),
        cluster: cluster.as_ref(),
        cluster_id: options.cluster_id.clone(),
    };
    let checks = check::check(&options.file, &settings, &terminal::progress).await;
    terminal::progress("");
    Ok(checks)
}

fn run(options: Run) -> ExitCode {
    let format = options.log_format;
    match run_controller(options) {
        Err(error) if format == LogFormat::Json => {
            log_as_json(&error);
            ExitCode::FAILURE
        }
        done => ended(done.map(|()| true)),
    }
}

fn run_controller(options: Run) -> Result<(), Box<dyn Error>> {
    // Two libraries bring TLS, and neither may choose for the other.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    telemetry::init(options.log_format, &options.log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(serve(options));
    // What still runs is waited for no longer: the next controller takes it up.
    runtime.shutdown_background();
    done
}

async fn serve(options: Run) -> Result<(), Box<dyn Error>> {
    let stopping = CancellationToken::new();
    stop_on_signal(stopping.clone())?;
    let ports = ports(&options).await?;
    let client = controller::client(kube_config(&options.kube).await?)?;
    let owner = std::env::var("HOSTNAME").unwrap_or_else(|_| runner_name("paddock"));
    let lease_namespace = options.lease_namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let lease_namespace = options.leader_elect.then_some(lease_namespace);
    let settings = Options {
        namespaces: options.watch_namespace,
        cluster_id: options.cluster_id,
        owner,
        lease_namespace,
        policy: options.policy,
    };
    Ok(controller::run(client, ports, settings, stopping).await?)
}

async fn ports(options: &Run) -> Result<Ports, String> {
    let bind = async |flag: &str, address| {
        TcpListener::bind(address)
            .await
            .map_err(|error| format!("{flag} {address}: {}", cause::innermost(&error)))
    };
    let metrics = match options.metrics_listen {
        Some(address) => Some(bind("--metrics-listen", address).await?),
        None => None,
    };
    Ok(Ports {
        health: bind("--listen", options.listen).await?,
        metrics,
        metrics_token: options.metrics_token_file.clone(),
    })
}

fn stop_on_signal(stopping: CancellationToken) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopping.cancel();
    });
    Ok(())
}

async fn kube_config(options: &Kube) -> Result<Config, Box<dyn Error>> {
    let choice = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    if let Some(path) = &options.kubeconfig {
        return Ok(Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &choice).await?);
    }
    if options.context.is_some() {
        return Ok(Config::from_kubeconfig(&choice).await?);
    }
    Ok(Config::infer().await?)
}
