//! Parts that a test starts for itself: a second Docker engine, an image registry.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use bollard::query_parameters::{
    CreateImageOptionsBuilder, ImportImageOptions, PushImageOptionsBuilder, RemoveImageOptionsBuilder,
    TagImageOptionsBuilder,
};
use bollard::{Docker, body_full};
use futures::{StreamExt, TryStreamExt};
use harness::door::{self, Door};
use harness::{Authority, engine, found, found_blocking};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::stage::{IMAGE, PATIENCE, connect};

/// A folder that goes with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        // The path of an engine's longest socket below it may have 104 bytes.
        let path = std::env::temp_dir().join(format!("{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that is asked to end with the test, and waited for, so that it clears up behind it.
struct Process(Child);

impl Process {
    fn start(command: &mut Command, how: &str) -> Self {
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn();
        Process(started.unwrap_or_else(|error| panic!("{command:?}: {error}: {how}")))
    }

    fn terminate(&mut self) {
        let Some(id) = self.0.id() else { return };
        let _ = std::process::Command::new("kill").arg(id.to_string()).status();
        found_blocking(PATIENCE, || (!matches!(self.0.try_wait(), Ok(None))).then_some(()));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// A Docker engine beside the machine's own, with all that is its in a folder. It has the runners' image.
pub struct Engine {
    process: Option<Process>,
    endpoint: String,
    tls: Vec<String>,
    door: Option<Door>,
    folder: Folder,
}

/// Mounts a file system of its own, on a loop device, where an engine in that folder has its data. It goes with the engine.
fn mount_disk(folder: &Path, megabytes: u64, options: &str) {
    let (file, at) = (folder.join("disk"), folder.join("data"));
    std::fs::create_dir_all(&at).unwrap();
    std::fs::File::create(&file).unwrap().set_len(megabytes << 20).unwrap();
    let run = |command: &mut std::process::Command| {
        let done = command.output().unwrap();
        assert!(done.status.success(), "{command:?}: {done:?}: a test needs a loop device, as root");
    };
    run(std::process::Command::new("mkfs.ext4").args(["-q", "-m0"]).arg(&file));
    run(std::process::Command::new("mount").arg(format!("-oloop,{options}")).arg(&file).arg(&at));
}

impl Engine {
    pub async fn start(name: &str) -> Self {
        Engine::start_in(Folder::new(name)).await
    }

    /// One with a disk of its own for its data, of so many megabytes and mounted with these options.
    pub async fn on_disk(name: &str, megabytes: u64, options: &str) -> Self {
        let folder = Folder::new(name);
        mount_disk(folder.path(), megabytes, options);
        Engine::start_in(folder).await
    }

    async fn start_in(folder: Folder) -> Self {
        engine::configure(folder.path());
        let endpoint = format!("unix://{}", folder.path().join("d.sock").display());
        let mut engine = Engine { process: None, endpoint, tls: Vec::new(), door: None, folder };
        engine.up().await;
        engine.load_image().await;
        engine
    }

    /// One that has addresses for one network.
    pub async fn with_room_for_one_network(name: &str) -> Self {
        let mut engine = Engine::start(name).await;
        engine.down();
        let file = engine.folder.path().join("daemon.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        config["default-address-pools"] = json!([{"base": "10.213.0.0/24", "size": 24}]);
        std::fs::write(file, config.to_string()).unwrap();
        engine.up().await;
        engine
    }

    /// One that listens with TLS as well, for whomever an authority certified.
    pub async fn with_tls(name: &str, authority: &Authority) -> Self {
        let mut engine = Engine::start(name).await;
        engine.down();
        engine.tls = door::arguments(engine.folder.path(), authority);
        engine.door = Some(Door::open().await);
        engine.up().await;
        engine
    }

    /// Where it listens with TLS.
    pub fn tls_endpoint(&self) -> String {
        self.door.as_ref().expect("an engine with TLS").endpoint()
    }

    /// Where its socket is.
    pub fn socket(&self) -> &Path {
        Path::new(self.endpoint.trim_start_matches("unix://"))
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Starts it, with what it had before.
    pub async fn up(&mut self) {
        let file = |name: &str| self.folder.path().join(name);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(file("log")).unwrap();
        let mut command = engine::in_own_network();
        command
            .env("TMPDIR", self.folder.path())
            .args(engine::arguments(self.folder.path(), &self.endpoint))
            .args(&self.tls)
            .stderr(log);
        let process = Process::start(&mut command, "a test needs to start an engine, as root");
        if let (Some(door), Some(id)) = (&self.door, process.0.id()) {
            door.lead_to(id);
        }
        self.process = Some(process);
        let answers = found(PATIENCE, async || connect_once(&self.endpoint).await).await;
        let log = || std::fs::read_to_string(file("log")).unwrap_or_default();
        assert!(answers.is_some(), "dockerd does not start: {}", log());
    }

    /// Ends it.
    pub fn down(&mut self) {
        self.process = None;
    }

    async fn load_image(&self) {
        self.load(IMAGE).await;
    }

    /// Gives it an image of the machine's own engine.
    pub async fn load(&self, image: &str) {
        load(&self.endpoint, image).await;
    }
}

/// Gives an engine an image of the machine's own.
async fn load(endpoint: &str, image: &str) {
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    let from = connect(&host).await;
    let image: Vec<_> = from.export_image(image).try_collect().await.unwrap_or_else(|error| {
        panic!("{image}: {error}: run `make image`");
    });
    let to = connect(endpoint).await;
    let image = futures::stream::iter(image.into_iter().map(Ok::<_, std::io::Error>));
    to.import_image_stream(ImportImageOptions::default(), image, None).try_collect::<Vec<_>>().await.unwrap();
}

/// Podman, with all that is its in a folder, by its socket that speaks Docker's API. It has the runners' image.
pub struct Podman {
    _process: Process,
    endpoint: String,
    folder: Folder,
}

impl Podman {
    pub async fn start(name: &str) -> Self {
        // The path of its runroot may have 50 characters, and that of the run's own folder has them already.
        let folder = Folder(PathBuf::from(format!("/tmp/{}-{name}", std::process::id())));
        std::fs::create_dir(folder.path()).unwrap();
        let file = |name: &str| folder.path().join(name).display().to_string();
        // Its own limits of open files and processes are more than it may set where it is in a container itself.
        let own = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
             [engine]\ninit_path = \"/usr/bin/docker-init\"\nevents_logger = \"file\"\nlock_type = \"file\"\n\
             [network]\nnetwork_config_dir = \"{}\"\n",
            file("networks"),
        );
        std::fs::write(file("containers.conf"), own).unwrap();
        let endpoint = format!("unix://{}", file("p.sock"));
        let mut command = Command::new("podman");
        command
            .env("CONTAINERS_CONF", file("containers.conf"))
            .args(["--root", &file("store"), "--runroot", &file("run"), "--tmpdir", &file("tmp")])
            .args([
                "--storage-driver=vfs",
                "--cgroup-manager=cgroupfs",
                "system",
                "service",
                "--time=0",
                &endpoint,
            ])
            .stderr(std::fs::File::create(file("log")).unwrap());
        let process = Process::start(&mut command, "a test needs to start Podman, as root");
        let answers = found(PATIENCE, async || connect_once(&endpoint).await).await;
        assert!(
            answers.is_some(),
            "Podman does not start: {}",
            std::fs::read_to_string(file("log")).unwrap()
        );
        load(&endpoint, IMAGE).await;
        Podman { _process: process, endpoint, folder }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        engine::unmount_below(self.folder.path());
    }
}

async fn connect_once(endpoint: &str) -> Option<String> {
    let docker = Docker::connect_with_unix(endpoint, 5, bollard::API_DEFAULT_VERSION).ok()?;
    docker.ping().await.ok()
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.down();
        engine::unmount_below(self.folder.path());
    }
}

/// Who may pull from a private registry. In the login as engines take it, the password gives the characters in which
/// the two alphabets of base64 differ.
pub const USER: &str = "ci";
pub const PASSWORD: &str = "planted-secret>>>???";
/// Another with the same password.
pub const OTHER_USER: &str = "other";
/// The password as `htpasswd -B` writes it.
const HASHED: &str = "$2b$05$h6Rildf9i8MTMlFCHo8G5.vxc8/JgqeCtwz9EBYSwfswmaMdpWR2.";

/// An image registry on a port of its own.
pub struct Registry {
    _process: Process,
    _folder: Folder,
    address: String,
    docker: Docker,
}

impl Registry {
    /// Anyone may push and pull.
    pub async fn open(docker: &Docker, name: &str) -> Self {
        Registry::start(docker, name, false).await
    }

    /// Only [`USER`] may.
    pub async fn private(docker: &Docker, name: &str) -> Self {
        Registry::start(docker, name, true).await
    }

    async fn start(docker: &Docker, name: &str, private: bool) -> Self {
        let folder = Folder::new(name);
        let address = free_address();
        let file = |name: &str| folder.path().join(name);
        let mut config = serde_json::json!({
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": file("data")}},
            "http": {"addr": address},
        });
        if private {
            let users = [USER, OTHER_USER].map(|user| format!("{user}:{HASHED}\n")).concat();
            std::fs::write(file("htpasswd"), users).unwrap();
            config["auth"] = serde_json::json!({"htpasswd": {"realm": "test", "path": file("htpasswd")}});
        }
        std::fs::write(file("config.yml"), config.to_string()).unwrap();
        let log = std::fs::File::create(file("log")).unwrap();
        let mut command = Command::new(program());
        command.arg("serve").arg(file("config.yml")).stderr(log);
        let process = Process::start(&mut command, "run `make test` once");
        let connected = found(PATIENCE, async || tokio::net::TcpStream::connect(&address).await.ok()).await;
        let log = || std::fs::read_to_string(file("log")).unwrap_or_default();
        assert!(connected.is_some(), "the registry does not start: {}", log());
        Registry { _process: process, _folder: folder, address, docker: docker.clone() }
    }

    /// An image's name in this registry.
    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    /// Puts an image into the registry: the runners' own with a label, so that each is different. It is not left on
    /// the engine. Returns the image's id.
    pub async fn push(&self, reference: &str, label: &str) -> String {
        let (repository, tag) = reference.rsplit_once(':').unwrap();
        let id = self.build(repository, tag, label).await;
        let login = bollard::auth::DockerCredentials {
            username: Some(USER.to_owned()),
            password: Some(PASSWORD.to_owned()),
            ..Default::default()
        };
        // bollard writes the login in the plain alphabet of base64, which the engine would not read.
        let docker = self.docker.clone().with_request_modifier(|mut request| {
            if let Some(header) = request.headers_mut().get_mut("x-registry-auth") {
                let safe = header.to_str().unwrap().replace('+', "-").replace('/', "_");
                *header = safe.parse().unwrap();
            }
            request
        });
        let options = PushImageOptionsBuilder::new().tag(tag).build();
        let pushed: Vec<_> =
            docker.push_image(repository, Some(options), Some(login)).try_collect().await.unwrap();
        assert!(pushed.iter().all(|line| line.error_detail.is_none()), "{pushed:?}");
        remove_image(&self.docker, reference).await;
        id
    }

    /// Makes an image on the engine.
    pub async fn build(&self, repository: &str, tag: &str, label: &str) -> String {
        build(&self.docker, repository, tag, label).await
    }
}

/// Makes an image on the engine out of the runners' own, told apart by a label. Returns its id.
pub async fn build(docker: &Docker, repository: &str, tag: &str, label: &str) -> String {
    let files = docker.create_container(
        None,
        bollard::models::ContainerCreateBody { image: Some(IMAGE.to_owned()), ..Default::default() },
    );
    let container = files.await.unwrap_or_else(|error| panic!("{IMAGE}: {error}: run `make image`")).id;
    let files: Vec<_> = docker.export_container(&container).try_collect().await.unwrap();
    crate::stage::remove(docker, &container).await;
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(repository)
        .tag(tag)
        .changes(vec![format!("LABEL test={label}"), "ENV PATH=/bin".to_owned()])
        .build();
    let body = body_full(files.concat().into());
    let lines: Vec<_> = docker.create_image(Some(options), Some(body), None).collect().await;
    assert!(lines.iter().all(Result::is_ok), "{lines:?}");
    image_id(docker, &format!("{repository}:{tag}")).await.unwrap()
}

/// Gives an image a further name.
pub async fn tag(docker: &Docker, image: &str, repository: &str, tag: &str) {
    let options = TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
    docker.tag_image(image, Some(options)).await.unwrap();
}

/// An image's id on the engine, if it is there.
pub async fn image_id(docker: &Docker, reference: &str) -> Option<String> {
    docker.inspect_image(reference).await.ok()?.id
}

pub async fn remove_image(docker: &Docker, reference: &str) {
    let options = RemoveImageOptionsBuilder::new().force(true).build();
    let _ = docker.remove_image(reference, Some(options), None).await;
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// The registry's program, from the PATH or where `make test` once puts it.
fn program() -> PathBuf {
    let cached = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/bin/docker-registry");
    if cached.exists() { cached } else { PathBuf::from("docker-registry") }
}
