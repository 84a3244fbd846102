//! The demo: a shop whose customers change, a sync that tells queues of it, a row that is rejected on purpose.

mod page;
mod shop;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::run::{RunRecord, RunState};
use warren_engine::sync::run::Ask;
use warren_store::state::{Order, OutcomeFilter};

use crate::assemble::{Assembly, Parts};
use crate::cli::explain::all;
use crate::cli::{Context, Stop, sync};
use crate::demo::shop::{CUSTOMERS, Shop};
use crate::exit::Exit;
use crate::report::figures::{count, counted};
use crate::report::note;
use warren_config as config;

/// How long a day of the shop takes while the page is watched.
const DAY: Duration = Duration::from_secs(2);

/// Runs the demo.
///
/// # Errors
/// The folder cannot be written, or a run could not be made.
pub async fn run(
    context: &Context,
    once: bool,
    folder: Option<PathBuf>,
    listen: SocketAddr,
) -> Result<Exit, Stop> {
    let folder = scratch(folder)?;
    let path = folder.join("warren.yaml");
    let text = include_str!("warren.yaml").replace("{folder}", &folder.display().to_string());
    std::fs::write(&path, text).map_err(|error| unwritable(&path, &error.to_string()))?;
    let shop_path = folder.join("shop.db");
    let mut shop = Shop::open(&shop_path).map_err(|error| unwritable(&shop_path, &error.to_string()))?;
    let project = config::load(&path)?;
    let assembly = Assembly::open(&project)?;
    let parts = assembly.sync("customers")?;

    context.say(&format!(
        "A shop with {} customers in SQLite, an embedded broker with four queues, and the sync between them,\nin {}\n",
        count(u64::from(CUSTOMERS)),
        folder.display()
    ));
    context.say("The first run tells the queues of every customer:");
    let mut runs = vec![step(context, &parts).await?];
    context.say("\nA day passes: customers come, change and leave, and every row gets a new time stamp, which is no change:");
    let busy = |error: rusqlite::Error| unwritable(&shop_path, &error.to_string());
    shop.day(40, 300, 20).and_then(|()| shop.touch_all()).map_err(busy)?;
    runs.push(step(context, &parts).await?);
    context.say(
        "\nAnother day. One customer moves to a region that no queue is for; only that row is rejected:",
    );
    shop.day(25, 100, 10).map_err(busy)?;
    let lost = shop.move_to_nowhere().map_err(busy)?;
    runs.push(step(context, &parts).await?);

    if runs.iter().any(|run| !matches!(run.state, RunState::Success | RunState::Warning)) {
        return Ok(Exit::Failed);
    }
    if !context.cancel.is_cancelled() {
        queues(context, &parts).await?;
        next(context, &path, lost);
    }
    if once {
        parts.ports.broker.close().await;
        return Ok(Exit::Done);
    }
    live(context, parts, shop, listen).await
}

async fn step(context: &Context, parts: &Parts) -> Result<RunRecord, Stop> {
    let record = sync::watched_run(context, parts, Ask::default()).await?;
    sync::tell(context, parts, &record).await?;
    Ok(record)
}

async fn queues(context: &Context, parts: &Parts) -> Result<(), Failure> {
    context.say("\nThe queues now hold:");
    for queue in parts.ports.broker.queues().await? {
        context.say(&format!("  {:<10} {:>6} messages", queue.name, count(queue.messages.unwrap_or(0))));
    }
    let filter = OutcomeFilter { limit: Some(1), order: Order::NewestFirst, ..OutcomeFilter::default() };
    let filter = OutcomeFilter { status: Some(warren_engine::run::RowStatus::Sent), ..filter };
    if let Some(recorded) = all(parts.state.as_ref(), filter).await?.first()
        && let Some(outbound) = &recorded.outcome.outbound
    {
        context.say(&format!("\nThe last message went to {}:", outbound.route));
        for text in String::from_utf8_lossy(&outbound.message.body).lines() {
            context.say(&format!("  {text}"));
        }
    }
    Ok(())
}

fn next(context: &Context, path: &Path, lost: u32) {
    let program = program();
    let file = path.display();
    context.say("\nTry next:");
    context.say(&format!("  {program} -c {file} explain {lost:<12}  why that customer was rejected"));
    context.say(&format!("  {program} -c {file} plan customers        what the next run would send"));
    context.say(&format!("  {program} -c {file} runs                  all that was done"));
}

/// The program as the person at the terminal can call it.
fn program() -> String {
    let Ok(program) = std::env::current_exe() else { return "warren".to_owned() };
    let here = std::env::current_dir().ok();
    let short = here.as_deref().and_then(|here| program.strip_prefix(here).ok());
    short.unwrap_or(&program).display().to_string()
}

/// Lets days pass until the person has seen enough.
async fn live(context: &Context, parts: Parts, mut shop: Shop, listen: SocketAddr) -> Result<Exit, Stop> {
    let parts = Arc::new(parts);
    let listener = match tokio::net::TcpListener::bind(listen).await {
        Ok(listener) => listener,
        Err(error) => {
            let what = format!("serve the page on {listen}");
            let failure =
                Failure::new(FailureKind::Refused, codes::INVALID_VALUE, what).detail(error.to_string());
            return Err(failure.remedy("name another address with `--listen`, or end with `--once`").into());
        }
    };
    let address = listener.local_addr().unwrap_or(listen);
    context.say(&format!("\nDays go on passing. Watch them at http://{address}/ (Ctrl-C ends)"));
    let served = axum::serve(listener, page::router(parts.clone()));
    let served = served.with_graceful_shutdown(context.cancel.clone().cancelled_owned());
    let days = async {
        let mut runs = 0u64;
        loop {
            // Either wait may be dropped: a day that did not begin is no loss.
            tokio::select! {
                () = tokio::time::sleep(DAY) => {}
                () = context.cancel.cancelled() => return Ok::<u64, Stop>(runs),
            }
            if let Err(error) = shop.day(3, 12, 2) {
                note(&format!("the shop is closed today: {error}"));
                continue;
            }
            let silent = warren_engine::sync::watch::Silent;
            warren_engine::sync::run::run(
                &parts.plan,
                &parts.ports,
                Ask::default(),
                &silent,
                &context.cancel,
            )
            .await?;
            runs += 1;
        }
    };
    // The page alone is of no use: when the days end, so does it.
    tokio::select! {
        runs = days => context.say(&format!("{} made while you watched", counted(runs?, "run"))),
        result = async { served.await } => {
            if let Err(error) = result {
                note(&format!("the page ended: {error}"));
            }
        }
    }
    parts.ports.broker.close().await;
    Ok(Exit::Done)
}

fn scratch(folder: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let made = match folder {
        Some(folder) => std::fs::create_dir_all(&folder).and_then(|()| folder.canonicalize()),
        None => tempfile::Builder::new().prefix("warren-demo-").tempdir().map(tempfile::TempDir::keep),
    };
    made.map_err(|error| unwritable(&std::env::temp_dir(), &error.to_string()))
}

fn unwritable(path: &Path, detail: &str) -> Failure {
    Failure::new(FailureKind::Internal, codes::STATE_UNWRITABLE, format!("write {}", path.display()))
        .detail(detail)
        .remedy("name a folder that can be written with `--folder DIR`")
}
