//! `sql`: a statement with parameters, executed once, or once for each of several values, in one transaction.

use std::sync::Arc;

use serde_json::{Value, json};

use super::outside::SqlCall;
use super::plan::{Params, SqlStep};
use super::run::{Done, Runner, kind_of};
use super::scope::Scope;
use super::trouble::Trouble;
use crate::codes;
use crate::failure::{Failure, FailureKind};

impl Runner<'_> {
    /// Executes the statement; its rows and how many it affected become the value.
    pub async fn sql(self, step: &SqlStep, scope: &Scope<'_>) -> Result<Done, Trouble> {
        let mut sets = Vec::new();
        match &step.each {
            None => sets.push(parameters(&step.params, scope).await?),
            Some(each) => {
                let repeats = scope.repeats(each);
                for item in array("each", scope.one(each).await?, repeats)? {
                    let scope = scope.with(Arc::new(item), !repeats);
                    sets.push(parameters(&step.params, &scope).await?);
                }
            }
        }
        let Some(database) = self.outside.databases.get(&step.source) else {
            return Err(Failure::internal(format!(
                "execute on source `{}`, which is not there",
                step.source
            ))
            .into());
        };
        let times = sets.len();
        let call = SqlCall {
            statement: step.statement.clone(),
            parameters: sets,
            timeout: step.timeout,
            rows_max: step.rows_max,
        };
        let answer = database.execute(&call).await.map_err(|failure| {
            if failure.code != codes::INVALID_PARAMETER {
                return Trouble::from(failure);
            }
            let repeats = match &step.each {
                None => scope.repeats_params(&step.params),
                Some(each) => {
                    let item = scope.with(Arc::default(), false);
                    scope.repeats(each) && item.repeats_params(&step.params)
                }
            };
            Trouble::of_input(failure, repeats)
        })?;
        let note = format!(
            "{} × on {}: {} affected, {} rows",
            times,
            step.source,
            answer.affected,
            answer.rows.len()
        );
        Ok(Done::value(json!({ "rows": answer.rows, "affected": answer.affected })).note(note))
    }
}

async fn parameters(params: &Params, scope: &Scope<'_>) -> Result<Vec<Value>, Trouble> {
    match params {
        Params::Computed(expression) => {
            array("params", scope.one(expression).await?, scope.repeats(expression))
        }
        Params::Listed(expressions) => {
            let mut values = Vec::with_capacity(expressions.len());
            for expression in expressions {
                values.push(scope.one(expression).await?);
            }
            Ok(values)
        }
    }
}

fn array(key: &str, value: Value, repeats: bool) -> Result<Vec<Value>, Trouble> {
    match value {
        Value::Array(items) => Ok(items),
        other => {
            let what = format!("`{key}` yields {}, and an array is wanted", kind_of(&other));
            let failure = Failure::new(FailureKind::Invalid, codes::EXPRESSION_FAILED, what);
            Err(Trouble::of_input(failure, repeats))
        }
    }
}
