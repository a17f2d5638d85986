//! The command line.

use clap::{Parser, Subcommand};
use std::{error::Error, io::Write};

/// Fleets of ephemeral GitHub Actions runners, declared in Kubernetes.
#[derive(Parser)]
#[command(name = "paddock", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the CustomResourceDefinition of RunnerScaleSet as YAML.
    Crd,
}

fn main() -> Result<(), Box<dyn Error>> {
    match Cli::parse().command {
        Command::Crd => std::io::stdout().write_all(paddock::api::crd_yaml()?.as_bytes())?,
    }
    Ok(())
}
