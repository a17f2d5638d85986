//! A stand-in for the GitHub Actions runner: it decodes its JIT configuration, connects to the simulated GitHub named in
//! it, takes one job, works for as long as the job lasts, reports, and exits with the code that the job names.
//!
//! Standard library only, so that it builds in seconds and links statically for an image made from scratch.
//!
//! | Variable | Effect |
//! | --- | --- |
//! | `ACTIONS_RUNNER_INPUT_JITCONFIG` | the JIT configuration; without it the exit code is 1 |
//! | `FAKE_RUNNER_EXIT` | exits with this code before it connects |
//! | `FAKE_RUNNER_BOOT_MS` | waits so long before it connects |
//! | `FAKE_RUNNER_NEVER_CONNECT` | any value: stays up, but never connects |
//! | `FAKE_RUNNER_LINGER_MS` | stays up for so long after its job |
//! | `FAKE_RUNNER_ALLOC_MB` | takes and touches so much memory when its job starts |
//!
//! It leaves signals alone, so TERM and INT end it, and its job fails at GitHub. The kernel spares a container's PID 1 that
//! does not handle them: there a shell has to be PID 1, which starts this program, passes signals on and waits.
//!
//! Exit codes: the job's own; 0 when its registration is removed while it waits, as the true one does; 1 when it cannot
//! start at all; 2 when it loses GitHub.

mod github;
mod json;

use std::process::ExitCode;
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, hint};

use github::{Failure, Github};

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(1 << 32);
/// Between two tries to reach GitHub, and how many of them.
const PAUSE: Duration = Duration::from_millis(500);
const TRIES: u32 = 60;

fn main() -> ExitCode {
    if let Some(code) = variable::<u8>("FAKE_RUNNER_EXIT") {
        return ExitCode::from(code);
    }
    let Some(jit) = env::var("ACTIONS_RUNNER_INPUT_JITCONFIG").ok().filter(|jit| !jit.is_empty()) else {
        eprintln!("ACTIONS_RUNNER_INPUT_JITCONFIG is not set");
        return ExitCode::from(1);
    };
    let Some(github) = Github::from_jit(&jit) else {
        eprintln!("ACTIONS_RUNNER_INPUT_JITCONFIG is not a JIT configuration");
        return ExitCode::from(1);
    };
    pause("FAKE_RUNNER_BOOT_MS");
    if env::var_os("FAKE_RUNNER_NEVER_CONNECT").is_some() {
        sleep(FOREVER);
    }
    let code = match run(&github) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_code()
        }
    };
    pause("FAKE_RUNNER_LINGER_MS");
    ExitCode::from(code)
}

/// One job, from connecting to the report. Gives the exit code.
fn run(github: &Github) -> Result<u8, Failure> {
    retry(|| github.connect())?;
    println!("\n√ Connected to GitHub\n\nListening for Jobs");
    let job = loop {
        match retry(|| github.next_job()) {
            Ok(Some(job)) => break job,
            Ok(None) => {}
            Err(Failure::RegistrationGone) => {
                println!("The runner registration has been deleted from the server.");
                return Ok(0);
            }
            Err(failure) => return Err(failure),
        }
    };
    println!("Running job: {}", job.name);
    let _memory = allocate();
    let result = match work(github, job.duration) {
        Work::Done => job.result.as_str(),
        Work::Canceled => "canceled",
    };
    match retry(|| github.finish(result)) {
        // GitHub holds the job to be over already.
        Ok(()) | Err(Failure::RegistrationGone) => {}
        Err(failure) => return Err(failure),
    }
    println!("Job {} completed with result: {result}", job.name);
    Ok(job.exit_code)
}

enum Work {
    Done,
    Canceled,
}

/// Works until the time is up or GitHub says otherwise. An open call to GitHub is the runner's sign of life.
fn work(github: &Github, duration: Option<Duration>) -> Work {
    let end = duration.map(|duration| Instant::now() + duration);
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Work::Done;
        }
        match github.hold(left) {
            Ok(state) if state == "canceled" => return Work::Canceled,
            Ok(state) if state == "finished" => return Work::Done,
            Ok(_) => {}
            Err(Failure::RegistrationGone) => return Work::Done,
            // Out of GitHub's sight the work goes on.
            Err(_) => sleep(left.map_or(PAUSE, |left| left.min(PAUSE))),
        }
    }
}

/// Tries again while GitHub cannot be reached.
fn retry<T>(call: impl Fn() -> Result<T, Failure>) -> Result<T, Failure> {
    for _ in 1..TRIES {
        match call() {
            Err(Failure::Unreachable(_)) => sleep(PAUSE),
            answer => return answer,
        }
    }
    call()
}

/// Takes memory and touches all of it: a way to be killed by a limit.
fn allocate() -> Vec<u8> {
    let megabytes: usize = variable("FAKE_RUNNER_ALLOC_MB").unwrap_or(0);
    hint::black_box(vec![1; megabytes << 20])
}

fn pause(name: &str) {
    if let Some(ms) = variable::<u64>(name) {
        sleep(Duration::from_millis(ms));
    }
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.trim().parse().ok()
}
