//! What SQS and the way to it answer, as failures of a kind and a code.

use std::error::Error;
use std::fmt::Write as _;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::operation::RequestId as _;
use warren_engine::codes::{self, Code};
use warren_engine::failure::{Failure, FailureKind};

use super::connection::no_credentials;

/// A request that failed.
#[derive(Debug)]
pub(crate) struct Fault {
    /// How.
    pub(crate) failure: Failure,
    /// Whether it certainly had no effect.
    pub(crate) certain: bool,
    /// SQS's name for it, without a prefix.
    pub(crate) name: String,
}

/// What became of a request that failed. `what` was tried.
pub(crate) fn fault<E>(what: impl Into<String>, error: &SdkError<E, HttpResponse>) -> Fault
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let what = what.into();
    if let Some(credentials) = find::<CredentialsError>(error) {
        let failure = no_credentials(credentials);
        return Fault { failure: Failure { what, ..failure }, certain: true, name: String::new() };
    }
    let away = |certain: bool, code: Code, detail: String| {
        let failure = Failure::new(FailureKind::Disconnected, code, what.clone()).detail(detail);
        Fault { failure, certain, name: String::new() }
    };
    match error {
        SdkError::ServiceError(context) => {
            let name = short_name(context.err().code().unwrap_or_default()).to_owned();
            let status = context.raw().status().as_u16();
            let message = context.err().message().unwrap_or_default();
            let (kind, code) = meaning(&name, status);
            let mut detail = match (name.as_str(), message) {
                ("", "") => format!("status {status}"),
                ("", message) => message.to_owned(),
                (name, "") => name.to_owned(),
                (name, message) => format!("{name}: {message}"),
            };
            if let Some(id) = context.err().meta().request_id() {
                write!(detail, " (request {id})").ok(); // writing to a string cannot fail
            }
            let mut failure = Failure::new(kind, code, what).detail(detail);
            failure.remedy = remedy(code).map(str::to_owned);
            // An error of the server's own may have come after the message was stored.
            let certain = !(code == codes::PROTOCOL_ERROR && status >= 500);
            Fault { failure, certain, name }
        }
        SdkError::TimeoutError(_) => {
            let failure = Failure::new(FailureKind::Timeout, codes::PUBLISH_TIMEOUT, what)
                .detail("SQS did not answer in time")
                .remedy("raise `publish_timeout` if SQS is only slow");
            Fault { failure, certain: false, name: String::new() }
        }
        SdkError::DispatchFailure(dispatch) => {
            let connector = dispatch.as_connector_error();
            let said = with_causes(error);
            let never_sent = find::<hyper_util::client::legacy::Error>(error)
                .is_some_and(hyper_util::client::legacy::Error::is_connect)
                || connector.is_some_and(aws_sdk_sqs::error::ConnectorError::is_user);
            if never_sent {
                if said.contains("ertificate") {
                    let failure = Failure::new(FailureKind::Refused, codes::TLS_FAILED, what).detail(said);
                    return Fault { failure, certain: true, name: String::new() };
                }
                return away(true, codes::BROKER_UNREACHABLE, said);
            }
            away(false, codes::CONNECTION_LOST, said)
        }
        SdkError::ResponseError(_) => away(false, codes::PROTOCOL_ERROR, with_causes(error)),
        // It was never sent.
        error => {
            let failure =
                Failure::new(FailureKind::Invalid, codes::PROTOCOL_ERROR, what).detail(with_causes(error));
            Fault { failure, certain: true, name: String::new() }
        }
    }
}

/// What SQS means by an error's name.
pub(crate) fn meaning(name: &str, status: u16) -> (FailureKind, Code) {
    match short_name(name) {
        "QueueDoesNotExist" | "NonExistentQueue" | "QueueDeletedRecently" | "InvalidAddress" => {
            (FailureKind::NotFound, codes::NO_SUCH_QUEUE)
        }
        "RequestThrottled"
        | "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "SlowDown"
        | "KmsThrottled"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "OverLimit" => (FailureKind::Throttled, codes::BROKER_THROTTLED),
        "AccessDenied"
        | "AccessDeniedException"
        | "UnauthorizedOperation"
        | "AuthorizationError"
        | "KmsAccessDenied"
        | "KmsDisabled"
        | "KmsInvalidKeyUsage"
        | "KmsInvalidState"
        | "KmsNotFound"
        | "KmsOptInRequired" => (FailureKind::Refused, codes::ACCESS_REFUSED),
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidAccessKeyId"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignature"
        | "OptInRequired"
        | "InvalidSecurity"
        | "RequestExpired" => (FailureKind::Refused, codes::BROKER_REFUSED_LOGIN),
        "InvalidMessageContents" => (FailureKind::Invalid, codes::INVALID_CHARACTERS),
        "BatchRequestTooLong" => (FailureKind::Invalid, codes::MESSAGE_TOO_LARGE),
        _ => match status {
            429 | 503 => (FailureKind::Throttled, codes::BROKER_THROTTLED),
            403 => (FailureKind::Refused, codes::ACCESS_REFUSED),
            500.. => (FailureKind::Unavailable, codes::PROTOCOL_ERROR),
            _ => (FailureKind::Invalid, codes::BROKER_REFUSED_MESSAGE),
        },
    }
}

fn remedy(code: Code) -> Option<&'static str> {
    if code == codes::NO_SUCH_QUEUE {
        Some("create the queue, or correct its name, region or account")
    } else if code == codes::ACCESS_REFUSED {
        Some(
            "allow it in the policy of the user or role, and in that of the queue and its key; `warren check` names what is missing",
        )
    } else if code == codes::BROKER_REFUSED_LOGIN {
        Some("see that the key is the right one, is active, and that this machine's clock is right")
    } else {
        None
    }
}

/// `AWS.SimpleQueueService.NonExistentQueue` and `com.amazonaws.sqs#QueueDoesNotExist` by their last part.
pub(crate) fn short_name(name: &str) -> &str {
    let name = name.rsplit('#').next().unwrap_or(name);
    name.rsplit('.').next().unwrap_or(name)
}

/// An error and what caused it, in one line.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

fn find<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_meaning() {
        for (name, status, kind, code) in [
            ("AWS.SimpleQueueService.NonExistentQueue", 400, FailureKind::NotFound, codes::NO_SUCH_QUEUE),
            ("com.amazonaws.sqs#QueueDoesNotExist", 400, FailureKind::NotFound, codes::NO_SUCH_QUEUE),
            ("RequestThrottled", 400, FailureKind::Throttled, codes::BROKER_THROTTLED),
            ("AccessDeniedException", 403, FailureKind::Refused, codes::ACCESS_REFUSED),
            ("InvalidClientTokenId", 403, FailureKind::Refused, codes::BROKER_REFUSED_LOGIN),
            ("InternalFailure", 500, FailureKind::Unavailable, codes::PROTOCOL_ERROR),
            ("", 503, FailureKind::Throttled, codes::BROKER_THROTTLED),
            ("InvalidParameterValue", 400, FailureKind::Invalid, codes::BROKER_REFUSED_MESSAGE),
        ] {
            assert_eq!(meaning(name, status), (kind, code), "{name}");
        }
    }
}
