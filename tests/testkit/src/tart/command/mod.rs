//! The command line: Tart's grammar, what every command does before and after its own work, and its exit code.

mod args;
mod exec;
mod files;
mod images;
mod look;
mod power;
mod run;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::{ContextKind, ErrorKind};

use super::calls::Logged;
use super::failure::Failure;
use super::home::Home;
use super::scenario::Effect;
use args::{Command, Context, VERSION};

/// Runs the stand-in with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    match args.first().map(String::as_str) {
        Some(super::guest::ROLE) => return super::guest::serve(),
        Some(super::host::ROLE) => return super::host::serve(),
        _ => {}
    }
    match logged(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn logged(args: &[String]) -> Result<(), Failure> {
    let home = Home::from_environment()?;
    let logged = Logged::begin(&home.sim, args)?;
    let result = parsed(home, args);
    logged.end(result.as_ref().map_or_else(Failure::code, |()| 0))?;
    result
}

fn parsed(home: Home, args: &[String]) -> Result<(), Failure> {
    let context =
        |effects| Ok::<_, Failure>(Context { scenario: home.sim.scenario()?, effects, home: home.clone() });
    // `exec` hands on what follows the name as it is, `--` too.
    if args.first().is_some_and(|arg| arg == "exec") {
        let exec = exec::Exec::parse(&args[1..])?;
        let effects = common(home.sim.suffer("exec", &[exec.name()])?)?;
        return exec.run(&context(effects)?);
    }
    let Some(command) = parse(args)? else { return Ok(()) };
    let names: Vec<&str> =
        args.iter().skip(1).filter(|arg| !arg.starts_with('-')).map(String::as_str).collect();
    let effects = common(home.sim.suffer(&args[0], &names)?)?;
    let after = effects.iter().find_map(|effect| match effect {
        Effect::FailsAfter { code, text } => Some(Failure::planted(*code, text)),
        _ => None,
    });
    if !matches!(command, Command::Clone(_) | Command::Pull(_)) {
        home.collect_garbage()?;
    }
    command.run(&context(effects)?)?;
    after.map_or(Ok(()), Err)
}

/// Suffers what comes before all work.
fn common(effects: Vec<Effect>) -> Result<Vec<Effect>, Failure> {
    for effect in &effects {
        match effect {
            Effect::Refused { code, text } => return Err(Failure::planted(*code, text)),
            Effect::Slow { ms } => std::thread::sleep(Duration::from_millis(*ms)),
            Effect::Hangs => loop {
                std::thread::park();
            },
            _ => {}
        }
    }
    Ok(effects)
}

/// Gives `None` where help or the version was asked for and printed.
fn parse(args: &[String]) -> Result<Option<Command>, Failure> {
    if args.first().is_some_and(|arg| arg == "--version") {
        println!("{VERSION}");
        return Ok(None);
    }
    match Command::try_parse_from(std::iter::once("tart").chain(args.iter().map(String::as_str))) {
        Ok(command) => Ok(Some(command)),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            print!("{error}");
            Ok(None)
        }
        Err(error) => Err(Failure::usage("<subcommand>", wording(&error))),
    }
}

/// The parser's complaint in the words of the one that Tart has.
fn wording(error: &clap::Error) -> String {
    let about = |kind| error.get(kind).map(|value| value.to_string()).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument => format!("Unknown option '{}'", about(ContextKind::InvalidArg)),
        ErrorKind::MissingRequiredArgument => {
            format!("Missing expected argument '{}'", about(ContextKind::InvalidArg).to_lowercase())
        }
        ErrorKind::InvalidSubcommand => {
            format!("Unexpected argument '{}'", about(ContextKind::InvalidSubcommand))
        }
        _ => format!(
            "The value '{}' is invalid for '{}'",
            about(ContextKind::InvalidValue),
            about(ContextKind::InvalidArg)
        ),
    }
}

impl Command {
    fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Clone(args) => files::clone(context, &args),
            Self::Run(args) => run::run(context, &args),
            Self::Set(args) => files::set(context, &args),
            Self::Get(args) => look::get(context, &args),
            Self::List(args) => look::list(context, &args),
            Self::Login(args) => images::login(context, &args),
            Self::Ip(args) => look::ip(context, &args),
            Self::Pull(args) => images::pull(context, &args),
            Self::Prune(args) => images::prune(context, &args),
            Self::Rename { name, new_name } => files::rename(context, &name, &new_name),
            Self::Stop(args) => power::stop(context, &args),
            Self::Suspend { name } => power::suspend(context, &name),
            Self::Delete { names } => names.iter().try_for_each(|name| files::delete(context, name)),
            Self::Fqn { name } => images::fqn(context, &name),
        }
    }
}
