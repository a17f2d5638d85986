//! STS over the query protocol, on the same address: AssumeRole and GetCallerIdentity.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use uuid::Uuid;

use super::Inner;
use super::operation::Operation;
use super::server::Call;
use super::wire::{Answer, Refusal};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
/// The bounds of `DurationSeconds`, and its default.
const SHORTEST: u64 = 900;
const LONGEST: u64 = 43_200;
const HOUR: u64 = 3_600;

pub(super) fn handle(inner: &Inner, call: &Call) -> Answer {
    let mut state = inner.lock();
    let (now, region) = (state.clock.now(), state.config.region.clone());
    let principal = match state.access.check(call.signature.as_ref(), call.operation, &region, now) {
        Ok(principal) => principal,
        Err(refusal) => return refuse(&refusal),
    };
    match call.operation {
        Operation::GetCallerIdentity => {
            let account = &state.config.account;
            let body =
                format!("<UserId>AIDASIMULATED</UserId><Account>{account}</Account><Arn>{principal}</Arn>");
            answer("GetCallerIdentity", &body)
        }
        _ => match assume_role(&call.form, &principal, &mut state, now) {
            Ok(body) => answer("AssumeRole", &body),
            Err(refusal) => refuse(&refusal),
        },
    }
}

fn assume_role(
    form: &HashMap<String, String>,
    principal: &str,
    state: &mut super::state::State,
    now: tokio::time::Instant,
) -> Result<String, Refusal> {
    let member = |name: &str| form.get(name).filter(|value| !value.is_empty());
    let missing = |name: &str| Refusal::front_door("ValidationError", format!("{name} must not be null"));
    let role = member("RoleArn").ok_or_else(|| missing("RoleArn"))?;
    let session = member("RoleSessionName").ok_or_else(|| missing("RoleSessionName"))?;
    let seconds = member("DurationSeconds").map_or(Some(HOUR), |text| text.parse().ok());
    let seconds = seconds
        .filter(|seconds| (SHORTEST..=LONGEST).contains(seconds))
        .ok_or_else(|| Refusal::front_door("ValidationError", "DurationSeconds is out of range"))?;
    let life = Duration::from_secs(seconds);
    let assumed = state.access.assume(role, session, life, now);
    let (credential, arn) = assumed.ok_or_else(|| {
        let message =
            format!("User: {principal} is not authorized to perform: sts:AssumeRole on resource: {role}");
        Refusal::front_door("AccessDenied", message)
    })?;
    #[allow(clippy::cast_possible_truncation)] // Whole seconds of this century.
    let expires = state.clock.epoch_seconds(now + life) as i64;
    let expiration = Timestamp::from_second(expires).unwrap_or_default();
    Ok(format!(
        "<AssumedRoleUser><AssumedRoleId>AROASIMULATED:{session}</AssumedRoleId><Arn>{arn}</Arn></AssumedRoleUser>\
         <Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
         <SessionToken>{}</SessionToken><Expiration>{expiration}</Expiration></Credentials>",
        credential.access_key,
        credential.secret_key,
        credential.session_token.unwrap_or_default(),
    ))
}

fn answer(operation: &str, body: &str) -> Answer {
    let id = Uuid::new_v4();
    Answer::xml(
        StatusCode::OK,
        format!(
            "<{operation}Response xmlns=\"{NAMESPACE}\"><{operation}Result>{body}</{operation}Result>\
             <ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{operation}Response>"
        ),
    )
}

/// Writes a refusal as STS does: as XML with status 403, under STS's own names of the exceptions.
fn refuse(refusal: &Refusal) -> Answer {
    let code = match refusal.code.as_str() {
        "UnrecognizedClientException" => "InvalidClientTokenId",
        "ExpiredTokenException" => "ExpiredToken",
        "AccessDeniedException" => "AccessDenied",
        "MissingAuthenticationTokenException" => "MissingAuthenticationToken",
        other => other,
    };
    let status = if code == "ValidationError" { StatusCode::BAD_REQUEST } else { StatusCode::FORBIDDEN };
    let body = format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{}</Message></Error>\
         <RequestId>{}</RequestId></ErrorResponse>",
        refusal.message.replace('&', "&amp;").replace('<', "&lt;"),
        Uuid::new_v4()
    );
    let mut answer = Answer::xml(status, body);
    answer.exception = Some(code.to_owned());
    answer
}
