//! `exec`: a command gets JSON, and its exit code says what becomes of the message: 0 is done, 75 and all others are tried
//! again, 65 is rejected.

use serde_json::Value;

use super::outside::CommandLine;
use super::plan::ExecStep;
use super::run::{Done, Runner};
use super::scope::Scope;
use super::trouble::Trouble;
use crate::codes;
use crate::failure::{Failure, FailureKind, Said};

/// `EX_DATAERR` of sysexits.h: the data is wrong.
const REJECT: i32 = 65;
/// `EX_TEMPFAIL`: it may work another time.
const RETRY: i32 = 75;
/// As much of stderr as is kept of a command that failed.
const TOLD_BYTES_MAX: usize = 2 << 10;

impl Runner<'_> {
    /// Runs the command, and makes what it wrote the value.
    pub async fn exec(self, step: &ExecStep, scope: &Scope<'_>) -> Result<Done, Trouble> {
        let stdin = scope.one(&step.stdin).await?.to_string();
        let mut arguments = Vec::with_capacity(step.args.len());
        for text in &step.args {
            let argument = scope.text(text)?;
            if argument.contains('\0') {
                let what = format!("an argument of `{}` holds a zero byte", step.command);
                let failure = Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, what);
                return Err(Trouble::of_input(failure, scope.repeats_text(text)));
            }
            arguments.push(argument);
        }
        let command = CommandLine {
            program: step.command.clone(),
            arguments,
            environment: step.environment.clone(),
            stdin: stdin.into(),
            output_bytes_max: step.output_bytes_max,
        };
        let end = self.outside.commands.run(&command).await.map_err(|failure| {
            // The arguments are more than the system passes on.
            if failure.code == codes::INVALID_VALUE {
                let repeats = step.args.iter().all(|text| scope.repeats_text(text));
                return Trouble::of_input(failure, repeats);
            }
            failure.into()
        })?;
        let note = format!("{}: exit code {}", step.command, end.code);
        if end.code == 0 {
            return Ok(Done::value(value(&end.stdout)).note(note));
        }
        let told = &end.stderr[..end.stderr.len().min(TOLD_BYTES_MAX)];
        let mut detail = format!("exit code {}", end.code);
        if !told.is_empty() {
            detail.push_str(": ");
            detail.push_str(String::from_utf8_lossy(told).trim_end());
        }
        let answer = (!end.stderr.is_empty()).then(|| Said::beginning(&end.stderr));
        let said = Said { status: None, exit_code: Some(end.code), answer };
        let failure = |kind| {
            Failure::new(kind, codes::COMMAND_FAILED, format!("run `{}`", step.command))
                .detail(detail.clone())
                .said(said.clone())
        };
        Err(match end.code {
            REJECT => Trouble::reject(failure(FailureKind::Invalid)),
            RETRY => failure(FailureKind::Throttled).into(),
            _ => failure(FailureKind::Refused).into(),
        })
    }
}

/// JSON where it is; nothing is null; otherwise text without the line break at its end.
fn value(stdout: &[u8]) -> Value {
    let text = String::from_utf8_lossy(stdout);
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Value::Null;
    }
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}
