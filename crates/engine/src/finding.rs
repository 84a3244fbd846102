//! What a check found: one fault or remark, with its place and its remedy.

use serde::Serialize;

use crate::codes::Code;
use crate::failure::Failure;
use crate::redact::scrub;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It will fail.
    Error,
    /// It works and may hurt.
    Warning,
    /// Worth knowing.
    Note,
}

/// One thing that a check found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which fault it is.
    pub code: Code,
    /// The part of the configuration it is about, such as `syncs.customers.queue`; a person sees file and line.
    pub subject: String,
    /// Where in a template it is, if it is in one.
    pub within: Option<Within>,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What the other side said.
    pub detail: Option<String>,
    /// The way out.
    pub remedy: Option<String>,
}

/// A place in a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Within {
    /// The template's name: the place in the configuration it was made with, or the name of a partial.
    pub template: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

/// A text without what came from variables.
fn clean(text: impl Into<String>) -> String {
    scrub(text.into()).into_owned()
}

impl Finding {
    /// An error about a part of the configuration.
    pub fn error(code: Code, subject: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding {
            severity: Severity::Error,
            code,
            subject: subject.into(),
            within: None,
            message: clean(message),
            detail: None,
            remedy: None,
        }
    }

    /// A warning about a part of the configuration.
    pub fn warning(code: Code, subject: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding { severity: Severity::Warning, ..Finding::error(code, subject, message) }
    }

    /// A failure, as a finding about a part of the configuration.
    pub fn from_failure(subject: impl Into<String>, failure: &Failure) -> Finding {
        Finding {
            severity: Severity::Error,
            code: failure.code,
            subject: subject.into(),
            within: None,
            message: failure.what.clone(),
            detail: failure.detail.clone(),
            remedy: failure.remedy.clone(),
        }
    }

    /// With the place in a template.
    #[must_use]
    pub fn within(mut self, within: Within) -> Finding {
        self.within = Some(within);
        self
    }

    /// With what the other side said.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Finding {
        self.detail = Some(clean(detail));
        self
    }

    /// With the way out.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Finding {
        self.remedy = Some(clean(remedy));
        self
    }
}
