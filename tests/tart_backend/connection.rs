//! Commands over one SSH connection, as a real sshd takes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use paddock::backend::remote::{Endpoint, Failure, Part, Remote, Script};
use testkit::tart::Mac;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use crate::stage::{PATIENCE, login, mac};

fn script(text: &'static str) -> Script {
    Script::new("a test", text, PATIENCE)
}

/// A Mac, and the connection to it.
async fn connected() -> (Mac, Remote) {
    let mac = mac("exit 0").await;
    let remote = Remote::new(&Endpoint::parse(&mac.endpoint()).unwrap(), login(&mac)).unwrap();
    remote.connect().await.unwrap();
    (mac, remote)
}

/// sshd fails the eleventh at once.
#[tokio::test]
async fn a_hundred_commands_at_once_are_all_answered_in_full() {
    let (_mac, remote) = connected().await;
    let remote = Arc::new(remote);
    let mut watched = Vec::new();
    let watching = script("echo watching; sleep 1");
    let mut take = |part: Part| watched.push(part);
    let watch = remote.watch(&watching, PATIENCE, &mut take);
    let commands = (0..100).map(|number: u32| {
        let remote = remote.clone();
        async move {
            let text = "cat; seq 1 20000; echo \"$1\" >&2; exit 3";
            let output =
                remote.run(&script(text).arg(number.to_string()).input(vec![b'x'; 100_000])).await.unwrap();
            assert_eq!((output.code, output.errors()), (Some(3), number.to_string()));
            assert!(output.text().starts_with("xxx") && output.text().ends_with("\n20000\n"));
        }
    });
    let begun = Instant::now();
    let (watched_to_its_end, _) = tokio::join!(watch, join_all(commands));
    watched_to_its_end.unwrap();
    println!("a hundred commands took {:?}", begun.elapsed());
    let begun = Instant::now();
    for _ in 0..20 {
        remote.run(&script("true")).await.unwrap();
    }
    println!("one command takes {:?}", begun.elapsed() / 20);
    assert_eq!(watched.last(), Some(&Part::Exit(Some(0))));
}

#[tokio::test]
async fn a_command_that_is_too_slow_or_silent_or_given_up_is_ended_on_the_host() {
    let (mac, remote) = connected().await;
    let note = mac.tart_home().join("pid");
    let sleeps = || {
        let _ = std::fs::remove_file(&note);
        Script::new("sleeping", "sleep 600 & echo $! >\"$1\"; wait", Duration::from_secs(2))
            .arg(note.display().to_string())
    };
    let gone = async || {
        let pid = std::fs::read_to_string(&note).unwrap();
        let begun = Instant::now();
        loop {
            let alive = remote.run(&script("kill -0 \"$1\" 2>/dev/null").arg(pid.trim())).await.unwrap();
            if alive.code != Some(0) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "it lives on");
        }
    };
    let late = remote.run(&sleeps()).await.unwrap_err();
    assert_eq!(late, Failure::TimedOut { what: "sleeping", seconds: 2 });
    gone().await;
    let mut nothing = |_| {};
    let silent = remote.run_with(&sleeps(), Duration::from_secs(1), &mut nothing).await.unwrap_err();
    assert_eq!(silent, Failure::Silent { what: "sleeping", seconds: 1 });
    gone().await;
    let slow = sleeps();
    let given_up = remote.run(&slow);
    assert!(tokio::time::timeout(Duration::from_secs(1), given_up).await.is_err());
    gone().await;
}

#[tokio::test]
async fn a_connection_that_is_lost_fails_what_runs_on_it() {
    let (mut mac, remote) = connected().await;
    let script = script("sleep 600");
    let lost = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        mac.kill_sshd().await.unwrap();
    };
    let (failed, ()) = tokio::join!(remote.run(&script), lost);
    assert!(matches!(failed, Err(Failure::Disconnected(_))), "{failed:?}");
    assert!(remote.run(&script).await.is_err() && remote.connect().await.is_err());
    mac.start_sshd().await.unwrap();
    remote.connect().await.unwrap();
}

/// As a fleet of Docker hosts will need it.
#[tokio::test]
async fn a_socket_on_the_host_is_reached_over_the_same_connection() {
    let (mac, remote) = connected().await;
    let path = mac.tart_home().join("some.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 5];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"hello");
        stream.write_all(b"answer").await.unwrap();
    };
    let ask = async {
        let mut stream = remote.open_socket(&path.display().to_string()).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
    };
    tokio::join!(serve, ask);
    assert!(remote.open_socket("/nowhere/d.sock").await.is_err());
}
