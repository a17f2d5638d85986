//! The grammar of the command line, and what every command works with.

use clap::{ArgAction, Parser, ValueEnum};

use super::super::home::Home;
use super::super::scenario::{Effect, Scenario};

/// The stand-in says that it is this version.
pub(super) const VERSION: &str = "2.35.0";

#[derive(Parser)]
#[command(name = "tart", version = VERSION, disable_version_flag = true, disable_help_subcommand = true)]
#[command(rename_all = "lowercase")]
pub(super) enum Command {
    Clone(CloneArgs),
    Run(RunArgs),
    Set(SetArgs),
    Get(GetArgs),
    List(ListArgs),
    Login(LoginArgs),
    Ip(IpArgs),
    Pull(PullArgs),
    Prune(PruneArgs),
    Rename {
        name: String,
        new_name: String,
    },
    Stop(StopArgs),
    Suspend {
        name: String,
    },
    Delete {
        #[arg(required = true)]
        names: Vec<String>,
    },
    Fqn {
        name: String,
    },
}

#[derive(clap::Args)]
pub(super) struct CloneArgs {
    pub source: String,
    pub new_name: String,
    #[arg(long)]
    pub insecure: bool,
    #[arg(long, default_value_t = 4)]
    pub concurrency: u32,
    #[arg(long)]
    pub deduplicate: bool,
    #[arg(long)]
    pub stacked: bool,
    #[arg(long)]
    pub overwrite: bool,
    #[arg(long, default_value_t = 100)]
    pub prune_limit: u64,
}

/// Of the options those that a fleet has a use for. They change nothing here, apart from `--suspendable`.
#[derive(clap::Args)]
pub(super) struct RunArgs {
    pub name: String,
    #[arg(long)]
    pub no_graphics: bool,
    #[arg(long)]
    pub no_audio: bool,
    #[arg(long)]
    pub no_clipboard: bool,
    #[arg(long)]
    pub nested: bool,
    #[arg(long)]
    pub suspendable: bool,
    #[arg(long)]
    pub net_softnet: bool,
    #[arg(long)]
    pub net_softnet_allow: Option<String>,
    #[arg(long)]
    pub net_softnet_block: Option<String>,
    #[arg(long)]
    pub net_softnet_expose: Option<String>,
    #[arg(long, action = ArgAction::Append)]
    pub net_bridged: Vec<String>,
    #[arg(long)]
    pub net_host: bool,
    #[arg(long, action = ArgAction::Append)]
    pub dir: Vec<String>,
    #[arg(long, action = ArgAction::Append)]
    pub disk: Vec<String>,
    #[arg(long, default_value = "")]
    pub root_disk_opts: String,
}

#[derive(clap::Args)]
pub(super) struct SetArgs {
    pub name: String,
    #[arg(long)]
    pub cpu: Option<u32>,
    #[arg(long)]
    pub memory: Option<u64>,
    #[arg(long)]
    pub disk_size: Option<u16>,
    #[arg(long)]
    pub random_mac: bool,
    #[arg(long)]
    pub random_serial: bool,
    #[arg(long)]
    pub display: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

#[derive(clap::Args)]
pub(super) struct GetArgs {
    pub name: String,
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

#[derive(clap::Args)]
pub(super) struct ListArgs {
    #[arg(long)]
    pub source: Option<String>,
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(clap::Args)]
pub(super) struct LoginArgs {
    pub host: String,
    #[arg(long)]
    pub username: Option<String>,
    #[arg(long)]
    pub password_stdin: bool,
    #[arg(long)]
    pub insecure: bool,
    #[arg(long)]
    pub no_validate: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Resolver {
    Dhcp,
    Arp,
    Agent,
}

#[derive(clap::Args)]
pub(super) struct IpArgs {
    pub name: String,
    #[arg(long, default_value_t = 0)]
    pub wait: u16,
    #[arg(long, value_enum, default_value = "dhcp")]
    pub resolver: Resolver,
}

#[derive(clap::Args)]
pub(super) struct PullArgs {
    pub remote_name: String,
    #[arg(long)]
    pub insecure: bool,
    #[arg(long, default_value_t = 4)]
    pub concurrency: u32,
    #[arg(long)]
    pub deduplicate: bool,
}

#[derive(clap::Args)]
pub(super) struct PruneArgs {
    #[arg(long, default_value = "caches")]
    pub entries: String,
    #[arg(long)]
    pub older_than: Option<u32>,
    #[arg(long)]
    pub cache_budget: Option<u64>,
    #[arg(long)]
    pub space_budget: Option<u64>,
    #[arg(long)]
    pub gc: bool,
}

#[derive(clap::Args)]
pub(super) struct StopArgs {
    pub name: String,
    #[arg(short, long, default_value_t = 30)]
    pub timeout: u64,
}

/// What a command works with.
pub(super) struct Context {
    pub home: Home,
    pub scenario: Scenario,
    /// What it has to suffer beyond what all commands suffer alike.
    pub effects: Vec<Effect>,
}
