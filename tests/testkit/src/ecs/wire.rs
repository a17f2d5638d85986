//! What goes out: answers and refusals in the form of awsJson1.1.

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// An answer, ready to be sent.
pub(super) struct Answer {
    pub status: StatusCode,
    pub content_type: &'static str,
    pub body: Vec<u8>,
    /// The name of the exception, for the request log.
    pub exception: Option<String>,
}

pub(super) const AWS_JSON: &str = "application/x-amz-json-1.1";

impl Answer {
    pub fn ok(body: &Value) -> Self {
        Self::aws_json(StatusCode::OK, body)
    }

    fn aws_json(status: StatusCode, body: &Value) -> Self {
        Self { status, content_type: AWS_JSON, body: body.to_string().into_bytes(), exception: None }
    }

    /// Plain JSON, for the control API.
    pub fn json(status: StatusCode, body: &Value) -> Self {
        Self { content_type: "application/json", ..Self::aws_json(status, body) }
    }

    pub fn xml(status: StatusCode, body: String) -> Self {
        Self { status, content_type: "text/xml", body: body.into_bytes(), exception: None }
    }

    pub fn empty(status: StatusCode) -> Self {
        Self { status, content_type: "application/json", body: Vec::new(), exception: None }
    }
}

/// An exception: the request is refused.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub code: String,
    pub message: String,
    /// The field `resourceIds` of a ConflictException.
    pub resource_ids: Vec<String>,
    /// Refused at the service's front door: such errors carry their namespace and spell `Message` with a capital.
    pub at_front_door: bool,
}

impl Refusal {
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: code.to_owned(),
            message: message.into(),
            resource_ids: Vec::new(),
            at_front_door: false,
        }
    }

    pub fn front_door(code: &str, message: impl Into<String>) -> Self {
        Self { at_front_door: true, ..Self::new(code, message) }
    }

    pub fn client(message: impl Into<String>) -> Self {
        Self::new("ClientException", message)
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterException", message)
    }

    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let mut body = if refusal.at_front_door {
            json!({ "__type": format!("com.amazon.coral.service#{}", refusal.code), "Message": refusal.message })
        } else {
            json!({ "__type": refusal.code, "message": refusal.message })
        };
        if !refusal.resource_ids.is_empty() {
            body["resourceIds"] = json!(refusal.resource_ids);
        }
        let mut answer = Self::aws_json(refusal.status, &body);
        answer.exception = Some(refusal.code);
        answer
    }
}

/// Reads the members of a request; one of another type is refused as AWS refuses it.
pub(super) fn read<T: DeserializeOwned>(body: &Value) -> Result<T, Refusal> {
    T::deserialize(body).map_err(|e| Refusal::front_door("SerializationException", e.to_string()))
}

/// An element of `failures`.
pub(super) fn failure(arn: Option<&str>, reason: &str, detail: Option<&str>) -> Value {
    let mut failure = json!({ "reason": reason });
    if let Some(arn) = arn {
        failure["arn"] = json!(arn);
    }
    if let Some(detail) = detail {
        failure["detail"] = json!(detail);
    }
    failure
}
