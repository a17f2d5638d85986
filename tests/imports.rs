//! The files of `src/` import each other one way: no ring, no room that imports one above it, and Kubernetes nowhere but in
//! the controller and the types of the API.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};

/// What each room may import beside itself. `cause`, `rng` and `time` are everyone's.
const ROOMS: [(&str, &[&str]); 15] = [
    ("main", &["check", "controller", "convert", "doctor", "runner", "api", "telemetry", "terminal", "top"]),
    ("check", &["controller", "scale_set", "plan", "github", "backend", "runner", "api"]),
    ("doctor", &["controller", "reaper", "github", "backend", "runner", "api"]),
    ("top", &["api", "terminal"]),
    ("terminal", &[]),
    ("convert", &["api"]),
    ("controller", &["scale_set", "reaper", "plan", "github", "backend", "runner", "api", "telemetry"]),
    ("scale_set", &["plan", "github", "backend", "runner", "api", "telemetry"]),
    ("reaper", &["github", "backend", "runner", "api"]),
    ("telemetry", &["plan", "github", "backend", "runner", "api"]),
    ("plan", &["runner", "api"]),
    ("github", &["runner", "api"]),
    ("backend", &["runner", "api"]),
    ("runner", &["api"]),
    ("api", &[]),
];
const EVERYONES: [&str; 3] = ["cause", "rng", "time"];
/// The rooms that know Kubernetes.
const OF_KUBERNETES: [&str; 3] = ["main", "controller", "api"];

type ModulePath = Vec<String>;

/// A file and what it names of others.
#[derive(Default)]
struct Source {
    module: ModulePath,
    /// What its imports call the things that they bring in.
    imported: BTreeMap<String, ModulePath>,
    /// The paths that it uses, from the crate's root where they lead into this crate.
    used: BTreeSet<ModulePath>,
}

/// All files, by module.
struct Crate(BTreeMap<ModulePath, Source>);

impl Crate {
    fn read() -> Crate {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        find(&root, &mut files);
        let module = |file: &PathBuf| -> ModulePath {
            let relative = file.strip_prefix(&root).unwrap().with_extension("");
            let mut parts: ModulePath =
                relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
                parts.pop();
            }
            parts
        };
        let modules: BTreeSet<ModulePath> = files.iter().map(module).collect();
        let read = |file: &PathBuf| {
            let text = fs::read_to_string(file).unwrap();
            let module = module(file);
            let mut reader =
                Reader { modules: &modules, source: Source { module: module.clone(), ..Source::default() } };
            reader.visit_file(&syn::parse_file(&text).unwrap());
            (module, reader.source)
        };
        Crate(files.iter().map(read).collect())
    }

    /// The file that has what a path names, by way of all that is imported on the way.
    fn home(&self, path: &ModulePath) -> Option<&ModulePath> {
        let mut path = path.clone();
        for _ in 0..10 {
            let known = (0..=path.len()).rev().find(|&length| self.0.contains_key(&path[..length]))?;
            let (module, source) = self.0.get_key_value(&path[..known])?;
            let imported = path.get(known).and_then(|name| source.imported.get(name));
            match imported {
                Some(elsewhere) if self.0.keys().any(|m| !m.is_empty() && elsewhere.starts_with(&m[..1])) => {
                    path = elsewhere.iter().chain(&path[known + 1..]).cloned().collect();
                }
                _ => return Some(module),
            }
        }
        None
    }

    /// Which files import which.
    fn imports(&self) -> BTreeMap<&ModulePath, BTreeSet<&ModulePath>> {
        let of = |(module, source): (&'_ ModulePath, &Source)| -> BTreeSet<&ModulePath> {
            let homes = source.used.iter().filter_map(|path| self.home(path));
            homes.filter(|home| *home != module && !home.is_empty()).collect()
        };
        self.0.iter().map(|(module, source)| (module, of((module, source)))).collect()
    }
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") && !is_of_tests(&path) {
            files.push(path);
        }
    }
}

fn is_of_tests(path: &Path) -> bool {
    path.iter().any(|part| part == "tests") || path.file_stem().unwrap().to_str().unwrap().ends_with("tests")
}

struct Reader<'a> {
    modules: &'a BTreeSet<ModulePath>,
    source: Source,
}

impl Reader<'_> {
    /// A path from the crate's root; none for what leads into another crate.
    fn absolute(&self, path: &[String]) -> Option<ModulePath> {
        let module = &self.source.module;
        let (first, rest) = path.split_first()?;
        let base = match first.as_str() {
            "crate" | "paddock" => Vec::new(),
            "self" => module.clone(),
            "super" => module[..module.len().checked_sub(1)?].to_vec(),
            name => {
                let child: ModulePath = module.iter().cloned().chain([name.to_owned()]).collect();
                return self
                    .modules
                    .contains(&child)
                    .then(|| child.into_iter().chain(rest.to_vec()).collect());
            }
        };
        let mut base = base;
        let mut rest = rest;
        while rest.first().is_some_and(|part| part == "super") {
            base.pop();
            rest = &rest[1..];
        }
        Some(base.into_iter().chain(rest.to_vec()).collect())
    }

    fn import(&mut self, tree: &UseTree, mut before: Vec<String>, exported: bool) {
        let (name, path) = match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                return self.import(&path.tree, before, exported);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.import(tree, before.clone(), exported));
            }
            UseTree::Glob(_) => (None, before),
            UseTree::Name(name) if name.ident == "self" => (before.last().cloned(), before),
            UseTree::Name(name) => {
                before.push(name.ident.to_string());
                (Some(name.ident.to_string()), before)
            }
            UseTree::Rename(rename) => {
                before.push(rename.ident.to_string());
                (Some(rename.rename.to_string()), before)
            }
        };
        let absolute = self.absolute(&path);
        if let (Some(name), Some(absolute)) = (name, &absolute) {
            self.source.imported.insert(name, absolute.clone());
        }
        // What is passed on is not used here.
        if !exported {
            self.source.used.insert(absolute.unwrap_or(vec!["another crate".to_owned(), path[0].clone()]));
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    let says_test = |a: &Attribute| {
        a.path().is_ident("cfg") && a.parse_args::<syn::Path>().is_ok_and(|p| p.is_ident("test"))
    };
    attributes.iter().any(says_test)
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Mod(module) if is_test(&module.attrs) => {}
            Item::Use(item) if is_test(&item.attrs) => {}
            Item::Use(item) => {
                self.import(&item.tree, Vec::new(), !matches!(item.vis, Visibility::Inherited));
            }
            item => visit::visit_item(self, item),
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if parts.len() > 1 {
            let absolute = self.absolute(&parts);
            self.source.used.insert(absolute.unwrap_or(vec!["another crate".to_owned(), parts[0].clone()]));
        }
        visit::visit_path(self, path);
    }
}

/// The files that each file reaches by its imports.
fn reached<'a>(
    imports: &BTreeMap<&'a ModulePath, BTreeSet<&'a ModulePath>>,
    from: &'a ModulePath,
) -> BTreeSet<&'a ModulePath> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from];
    while let Some(module) = next.pop() {
        next.extend(imports[module].iter().copied().filter(|to| reached.insert(*to)));
    }
    reached
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    let sources = Crate::read();
    let imports = sources.imports();
    assert!(
        imports.len() > 80 && imports.values().map(BTreeSet::len).sum::<usize>() > 200,
        "too little is seen"
    );
    let in_a_ring: Vec<&ModulePath> =
        imports.keys().copied().filter(|module| reached(&imports, module).contains(module)).collect();
    assert!(in_a_ring.is_empty(), "these import each other in a ring: {in_a_ring:?}");
}

#[test]
fn no_room_imports_one_above_it() {
    let rooms: BTreeMap<&str, &[&str]> = ROOMS.into_iter().collect();
    let sources = Crate::read();
    for (module, imported) in sources.imports() {
        let Some(room) = module.first().filter(|room| !EVERYONES.contains(&room.as_str())) else { continue };
        let allowed = rooms.get(room.as_str()).unwrap_or_else(|| panic!("the room {room} is not known here"));
        for file in imported {
            let other = file[0].as_str();
            let may = other == room || EVERYONES.contains(&other) || allowed.contains(&other);
            assert!(may, "src/{} imports src/{}", module.join("/"), file.join("/"));
        }
    }
}

#[test]
fn kubernetes_is_known_to_the_controller_alone() {
    for (module, source) in Crate::read().0 {
        let Some(room) = module.first() else { continue };
        let knows = source.used.iter().any(|path| path[0] == "another crate" && path[1] == "kube");
        assert!(!knows || OF_KUBERNETES.contains(&room.as_str()), "src/{} imports kube", module.join("/"));
    }
}
