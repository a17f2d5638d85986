//! The manifests in files.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::line::Check;

/// A manifest and where it is.
pub(super) struct Document {
    pub(super) file: String,
    pub(super) manifest: Value,
}

/// Reads all manifests of all files, those of a `List` one by one. A file that cannot be read is told of.
pub(super) fn read(paths: &[PathBuf]) -> (Vec<Document>, Vec<Check>) {
    let (mut documents, mut unread) = (Vec::new(), Vec::new());
    for path in paths {
        let mut refuse = |path: &Path, message: String| unread.push(failed(path, message));
        let files = match files_of(path) {
            Ok(files) if files.is_empty() => {
                refuse(path, "the folder has no .yaml, .yml or .json".to_owned());
                continue;
            }
            Ok(files) => files,
            Err(error) => {
                refuse(path, error.to_string());
                continue;
            }
        };
        for file in files {
            match manifests(&file) {
                Ok(manifests) => documents.extend(
                    manifests
                        .into_iter()
                        .flat_map(items)
                        .map(|manifest| Document { file: file.display().to_string(), manifest }),
                ),
                Err(message) => refuse(&file, message),
            }
        }
    }
    (documents, unread)
}

/// What an object is called in a line: its kind and its name.
pub(super) fn name_of(manifest: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, metadata) = (text(&manifest["kind"]), &manifest["metadata"]);
    let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
    let name = if namespace.is_empty() { name } else { format!("{namespace}/{name}") };
    format!("{kind} {name}").trim().to_owned()
}

fn failed(path: &Path, message: String) -> Check {
    let (object, field) = (String::new(), String::new());
    Check { file: path.display().to_string(), object, field, ok: false, message }
}

fn files_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = path.read_dir()?.collect::<io::Result<Vec<_>>>()?;
    let is_manifest = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        path.is_file() && ["yaml", "yml", "json"].contains(&extension)
    };
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).filter(is_manifest).collect();
    files.sort();
    Ok(files)
}

fn manifests(file: &Path) -> Result<Vec<Value>, String> {
    let text = match file.as_os_str() == "-" {
        true => io::read_to_string(io::stdin()),
        false => std::fs::read_to_string(file),
    };
    let text = text.map_err(|error| error.to_string())?;
    let found: Vec<Value> =
        serde_saphyr::from_multiple(&text).map_err(|error| error.without_snippet().to_string())?;
    let found: Vec<Value> = found.into_iter().filter(|manifest| !manifest.is_null()).collect();
    match found.iter().all(|manifest| manifest["kind"].is_string()) {
        true => Ok(found),
        false => Err("it has what is no manifest: there is no kind".to_owned()),
    }
}

fn items(manifest: Value) -> Vec<Value> {
    let is_list = manifest["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match manifest["items"].as_array() {
        Some(items) if is_list => items.clone(),
        _ => vec![manifest],
    }
}
