//! What a host answers when it is listed: the notes beside its VMs, and then what `tart list` says.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Deserialize;

use super::index::Vm;
use super::record::Record;
use crate::runner::Exit;
use crate::time::past;

/// The line between the two.
const LIST: &str = "list";

/// A host's whole answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    /// Ours, and strangers' that run.
    pub(super) vms: Vec<Vm>,
    /// The images and local VMs that a VM can be cloned from.
    pub(super) images: BTreeSet<String>,
}

/// An answer that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(super) enum Garbled {
    /// The script did not come to `tart list`.
    #[error("the answer has no list of VMs")]
    NoList,
    /// Tart's JSON is other than expected.
    #[error("what tart list prints is not understood: {0}")]
    Json(#[from] serde_json::Error),
}

/// A line of `tart list --format json`. Its keys changed over time: what is not needed is not read.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    name: String,
    source: String,
    #[serde(default)]
    running: bool,
    #[serde(default)]
    state: String,
}

impl Entry {
    fn is_local(&self) -> bool {
        self.source.eq_ignore_ascii_case("local")
    }

    fn runs(&self) -> bool {
        self.running || self.state.eq_ignore_ascii_case("running")
    }
}

impl Listed {
    /// Reads a host's answer.
    pub(super) fn read(text: &str) -> Result<Listed, Garbled> {
        let mut lines = text.lines();
        let mut notes: BTreeMap<String, Vm> = BTreeMap::new();
        let mut name = String::new();
        loop {
            let line = lines.next().ok_or(Garbled::NoList)?;
            if line == LIST {
                break;
            }
            let (kind, value) = line.split_once(' ').unwrap_or((line, ""));
            if kind == "vm" {
                value.clone_into(&mut name);
            }
            let vm = notes.entry(name.clone()).or_insert_with(|| unknown(&name));
            match kind {
                "record" => vm.record = serde_json::from_str(value).ok().map(of_the_past),
                "runner" => vm.runner = Some(value.to_owned()),
                "started" => vm.started = true,
                "exit" => vm.exit = Some(exit(value)),
                _ => {}
            }
        }
        // A folder of which the record is not written yet is nobody's.
        notes.retain(|_, vm| vm.record.is_some());
        let json: String = lines.collect::<Vec<_>>().join("\n");
        let mut listed = Listed::default();
        for entry in serde_json::from_str::<Vec<Entry>>(&json)? {
            if entry.is_local() {
                let runs = entry.runs();
                match notes.get_mut(&entry.name) {
                    Some(vm) => vm.running = runs,
                    None if runs => listed.vms.push(Vm { running: true, ..unknown(&entry.name) }),
                    None => {}
                }
            }
            listed.images.insert(entry.name);
        }
        listed.vms.extend(notes.into_values());
        Ok(listed)
    }
}

fn unknown(name: &str) -> Vm {
    Vm {
        name: name.to_owned(),
        record: None,
        runner: None,
        started: false,
        exit: None,
        running: false,
        down_since: None,
        unstarted: 0,
    }
}

fn of_the_past(record: Record) -> Record {
    Record { created_at: past(record.created_at), ..record }
}

/// `<exit code> <seconds since 1970>`, the code empty where nobody knows it.
fn exit(text: &str) -> Exit {
    let (code, second) = text.split_once(' ').unwrap_or((text, ""));
    let at = second.trim().parse().ok().and_then(|second| Timestamp::from_second(second).ok());
    Exit {
        code: code.parse().ok(),
        out_of_memory: false,
        at: past(at.unwrap_or(Timestamp::MAX)),
        ..Exit::default()
    }
}

/// The name under which `tart list` shows an image: a name without a tag stands for `latest`.
pub(super) fn listed_as(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    match image.contains('/') && !last.contains([':', '@']) {
        true => format!("{image}:latest"),
        false => image.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"cluster":"c","scaleSetUid":"u","scaleSet":"ci/macs","backend":"macs","templateHash":"h","place":1,"createdAt":"2026-11-01T00:00:00Z"}"#;

    #[test]
    fn notes_and_both_formats_of_the_list_come_together() {
        let text = format!(
            "vm paddock-a\nrecord {RECORD}\nrunner macs-1\nstarted 1764\nexit 7 1764000000\n\
             vm paddock-gone\nrecord {RECORD}\nvm paddock-half\nlist\n[\n\
             {{\"Source\":\"local\",\"Name\":\"paddock-a\",\"Running\":true,\"State\":\"running\",\"SizeOnDisk\":3}},\n\
             {{\"Source\":\"local\",\"Name\":\"golden\",\"Running\":false,\"Accessed\":\"x\"}},\n\
             {{\"Source\":\"local\",\"Name\":\"theirs\",\"State\":\"running\"}},\n\
             {{\"Source\":\"OCI\",\"Name\":\"ghcr.io\\/acme\\/macos:latest\",\"State\":\"stopped\"}}\n]\n"
        );
        let listed = Listed::read(&text).unwrap();
        let names: Vec<_> = listed.vms.iter().map(|vm| (vm.name.as_str(), vm.running)).collect();
        assert_eq!(names, [("theirs", true), ("paddock-a", true), ("paddock-gone", false)]);
        let exit = listed.vms[1].exit.clone().unwrap();
        assert_eq!((exit.code, exit.at.as_second()), (Some(7), 1_764_000_000));
        assert!(listed.vms[1].started && listed.vms[1].runner.as_deref() == Some("macs-1"));
        assert!(listed.images.contains(&listed_as("ghcr.io/acme/macos")) && listed.images.contains("golden"));
    }

    #[test]
    fn half_an_answer_is_none() {
        for text in ["", "vm paddock-a\n", "list\n", "list\n[{\"Name\":1}]"] {
            assert!(Listed::read(text).is_err(), "{text}");
        }
        assert_eq!(Listed::read("list\n[\n\n]\n").unwrap(), Listed::default());
    }

    #[test]
    fn an_end_of_which_nobody_knows_the_code_is_an_end() {
        assert_eq!(exit(" 1764000000").code, None);
        assert_eq!(exit("").code, None);
        assert!(exit("0 99999999999").at <= Timestamp::now());
    }

    #[test]
    fn fuzz_a_macs_answer_is_read_or_refused() {
        let list = r#"[{"Source": "local", "Name": "paddock-a-b", "State": "running", "Size": 50, "Disk": 50, "Running": true}]"#;
        let answer = format!("vm paddock-a-b\nrecord {{\"cluster\": \"c\"}}\n{LIST}\n{list}\n");
        let mut read = 0;
        testkit::fuzz::each(&[answer.as_str(), list], |input| {
            read += u32::from(Listed::read(&String::from_utf8_lossy(input)).is_ok());
        });
        assert!(read > 0);
    }
}
