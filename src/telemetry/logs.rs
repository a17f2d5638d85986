//! Logs: what is written, and how.

use std::fmt;
use std::io::IsTerminal;

use serde_json::{Map, Value};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{FilterExt, Targets};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, the fields of the spans and of the event side by side.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level cannot be used: name another.
    #[error("`{0}` is neither a log level nor a filter such as `info,paddock::github=debug`")]
    Level(String),
    /// It was set up before.
    #[error("logging is set up already")]
    AlreadySet,
}

/// Sets up logging to standard error for the whole process.
///
/// `level` is a level (`off`, `error`, `warn`, `info`, `debug`, `trace`) for Paddock itself, and dependencies are then
/// heard from `warn` on; or it is a whole filter in the syntax of [`EnvFilter`]. Dependencies are never heard below
/// `info`: several print what they send.
///
/// # Errors
/// [`LogError::Level`] for a level that is none, [`LogError::AlreadySet`] the second time.
pub fn init(format: LogFormat, level: &str) -> Result<(), LogError> {
    let subscriber = subscriber(format, filter(level)?, std::io::stderr);
    subscriber.try_init().map_err(|_| LogError::AlreadySet)
}

fn subscriber<W>(
    format: LogFormat,
    filter: impl Filter<Registry> + Send + Sync + 'static,
    writer: W,
) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.fmt_fields(JsonFields::new()).event_format(FlatJson).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter))
}

fn filter(level: &str) -> Result<impl Filter<Registry> + Send + Sync + 'static, LogError> {
    let refused = || LogError::Level(level.to_owned());
    let directives = match level.parse::<LevelFilter>() {
        Ok(paddock) if !level.is_empty() => format!("{},paddock={paddock}", paddock.min(LevelFilter::WARN)),
        _ if level.contains(['=', ',', '[']) => level.to_owned(),
        // A lone word would be taken for a target, and a misspelt level would silence everything.
        _ => return Err(refused()),
    };
    let wanted = EnvFilter::try_new(directives).map_err(|_| refused())?;
    Ok(wanted.and(ceiling()))
}

/// What is never written, whatever the level. Below `info`, dependencies print what they send and receive: `bollard`
/// each body, thus the environment of a container with the JIT configuration in it; `reqwest` can print headers. And
/// kube's client warns of an answer that it cannot read with the whole of it, which may be a Secret.
fn ceiling() -> Targets {
    Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("paddock", LevelFilter::TRACE)
        .with_target("kube_client::client", LevelFilter::ERROR)
}

/// One JSON object a line, flat: where names meet, the inner span's field hides the outer's, and the event's hides both.
struct FlatJson;

impl<S> FormatEvent<S, JsonFields> for FlatJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        for span in context.event_scope().into_iter().flat_map(|s| s.from_root()) {
            if let Some(fields) = span.extensions().get::<FormattedFields<JsonFields>>() {
                line.extend(object(fields)?);
            }
        }
        let mut fields = String::new();
        context.format_fields(Writer::new(&mut fields), event)?;
        line.extend(object(&fields)?);
        // What comes by way of the `log` crate has its origin in fields.
        let target = line.remove("log.target");
        line.retain(|field, _| !field.starts_with("log."));
        let target = target.unwrap_or_else(|| event.metadata().target().into());
        line.insert("target".to_owned(), target);
        line.insert("level".to_owned(), event.metadata().level().as_str().into());
        line.insert("timestamp".to_owned(), jiff::Timestamp::now().to_string().into());
        writeln!(writer, "{}", Value::Object(line))
    }
}

fn object(fields: &str) -> Result<Map<String, Value>, fmt::Error> {
    if fields.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(fields).map_err(|_| fmt::Error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use axum::Json;
    use bollard::models::ContainerCreateBody;
    use bollard::query_parameters::CreateContainerOptions;
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::json;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        fn objects(&self) -> Vec<Value> {
            let text = self.text();
            text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
        }
    }

    /// What is written under a filter while `work` is done on this thread.
    fn lines(filter: impl Filter<Registry> + Send + Sync + 'static, work: impl FnOnce()) -> Lines {
        let lines = Lines::default();
        let writer = lines.clone();
        let _guard = subscriber(LogFormat::Json, filter, move || writer.clone()).set_default();
        work();
        lines
    }

    const SECRETS: [&str; 4] = ["planted-token", "planted-jit", "planted-secret", "planted-kube-token"];

    /// Sends and receives secrets by way of each client that Paddock has, on this thread alone.
    fn traffic() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let unreadable = json!({"metadata": {"name": 1}, "data": {"token": "planted-secret"}, "Id": "c"});
            let router = axum::Router::new().fallback(async move || Json(unreadable));
            tokio::spawn(async move { axum::serve(listener, router).await });

            let github = reqwest::Client::builder().connection_verbose(true).build().unwrap();
            let request = github.post(&url).bearer_auth("planted-token").body("planted-jit");
            request.send().await.unwrap().bytes().await.unwrap();

            let docker = bollard::Docker::connect_with_http(&url, 5, bollard::API_DEFAULT_VERSION).unwrap();
            let container = ContainerCreateBody {
                env: Some(vec!["ACTIONS_RUNNER_INPUT_JITCONFIG=planted-jit".to_owned()]),
                ..ContainerCreateBody::default()
            };
            let _ = docker.create_container(None::<CreateContainerOptions>, container).await;

            let mut config = kube::Config::new(url.parse().unwrap());
            config.auth_info = serde_json::from_value(json!({"token": "planted-kube-token"})).unwrap();
            let secrets = kube::Api::<Secret>::default_namespaced(kube::Client::try_from(config).unwrap());
            secrets.get("github").await.unwrap_err();
        });
        tracing::trace!(target: "paddock::github", "the end");
    }

    /// The traffic is one that leaks: else the next test would show nothing.
    #[test]
    fn dependencies_print_secrets_when_they_are_let() {
        let text = lines(EnvFilter::new("trace"), traffic).text();
        for secret in ["planted-token", "planted-jit", "planted-secret"] {
            assert!(text.contains(secret), "`{secret}` does not leak any more:\n{text}");
        }
    }

    #[test]
    fn no_level_lets_dependencies_print_secrets() {
        let levels = [
            "info",
            "trace",
            "trace,paddock=trace",
            "trace,bollard=trace,bollard::docker=trace,kube_client::client=trace,reqwest=trace",
            "[HTTP]=trace,trace",
        ];
        for level in levels {
            let text = lines(filter(level).unwrap(), traffic).text();
            for secret in SECRETS {
                assert!(!text.contains(secret), "`{secret}` at {level}:\n{text}");
            }
            assert_eq!(text.contains("the end"), level != "info", "{level}:\n{text}");
        }
    }

    #[test]
    fn a_level_is_paddocks_own_and_a_filter_is_for_all() {
        let events = || {
            tracing::debug!(target: "paddock::plan", "own");
            tracing::info!(target: "kube_runtime", "theirs");
            tracing::warn!(target: "kube_runtime", "warning");
        };
        let heard = |level| {
            let objects = lines(filter(level).unwrap(), events).objects();
            let messages = objects.iter().map(|o| o["message"].as_str().unwrap().to_owned());
            messages.collect::<Vec<_>>()
        };
        assert_eq!(heard("debug"), ["own", "warning"]);
        assert_eq!(heard("INFO"), ["warning"]);
        assert_eq!(heard("error"), Vec::<String>::new());
        assert_eq!(heard("info,paddock::plan=debug"), ["own", "theirs", "warning"]);
        for wrong in ["verbose", "", "paddock=loud"] {
            assert!(matches!(filter(wrong), Err(LogError::Level(_))), "{wrong}");
        }
    }

    #[test]
    fn json_is_one_flat_object_a_line() {
        let work = || {
            let outer = tracing::info_span!(target: "paddock", "set", set = "ci/linux", phase = "old");
            let _outer = outer.enter();
            let _inner =
                tracing::info_span!(target: "paddock", "start", runner = "linux-1", slot = 3).entered();
            tracing::info!(target: "paddock", phase = "new", "two\nlines");
        };
        let lines = lines(filter("info").unwrap(), work);
        let [line] = lines.objects().try_into().unwrap();
        let Value::Object(mut line) = line else { panic!("{line}") };
        let timestamp = line.remove("timestamp").unwrap();
        timestamp.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let expected = json!({
            "level": "INFO", "target": "paddock", "message": "two\nlines",
            "set": "ci/linux", "phase": "new", "runner": "linux-1", "slot": 3,
        });
        assert_eq!(Value::Object(line), expected);
    }

    #[test]
    fn what_comes_from_the_log_crate_keeps_its_target() {
        let objects = lines(EnvFilter::new("bollard=trace"), traffic).objects();
        assert!(objects.iter().any(|o| o["target"] == "bollard::docker"), "{objects:#?}");
        assert!(objects.iter().all(|o| o.get("log.file").is_none()));
    }
}
