use std::time::Duration;

use super::*;

fn script(text: &'static str) -> Script {
    Script::new("a test", text, Duration::from_secs(30))
}

fn here() -> Remote {
    Remote::new(&Endpoint::Local, None).unwrap()
}

#[tokio::test]
async fn a_script_gets_its_arguments_and_its_input_and_says_how_it_ended() {
    let script = script("cat; printf '%s|' \"$@\"; echo wrong >&2; exit 7");
    let output = here().run(&script.arg("a b").arg("$(id)").input("secret\n")).await.unwrap();
    assert_eq!((output.code, output.text().as_str()), (Some(7), "secret\na b|$(id)|"));
    assert_eq!(output.errors(), "wrong");
}

#[tokio::test]
async fn a_script_that_is_too_slow_is_ended_with_all_that_it_started() {
    let folder = std::env::temp_dir().join(format!("paddock-remote-{}", std::process::id()));
    let text = "sleep 600 & echo $! >\"$1\"; wait";
    let slow = Script::new("sleeping", text, Duration::from_millis(300)).arg(folder.display().to_string());
    let failure = here().run(&slow).await.unwrap_err();
    assert_eq!(failure, Failure::TimedOut { what: "sleeping", seconds: 0 });
    let pid = std::fs::read_to_string(&folder).unwrap();
    std::fs::remove_file(&folder).unwrap();
    let gone = || {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !gone() {
        assert!(std::time::Instant::now() < deadline, "the child of the script lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_a_script_reads_is_not_printed() {
    let script = script("true").input("planted-secret");
    assert!(!format!("{script:?} {:?}", script.line()).contains("planted-secret"));
}
