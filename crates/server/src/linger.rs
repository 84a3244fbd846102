//! The end of a connection, so that the last answer arrives.
//!
//! A client that is still sending when its answer comes, and whose connection is closed, gets a reset in place of the answer. So our half
//! is closed, and what the client still sends is read and discarded: for up to [`LINGER_MAX`], and [`IDLE_MAX`] without a byte. Clients
//! may send as much as they like in that time.
//!
//! The number of such connections is bounded. Beyond the bound of a source, the oldest of that source ends at once; beyond the bound of
//! all, the oldest of the source that has the most.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long a client is waited for in all.
const LINGER_MAX: Duration = Duration::from_secs(30);
/// How long a client that sends nothing is waited for.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// The same while the process ends.
const LINGER_AT_END: Duration = Duration::from_secs(5);
const IDLE_AT_END: Duration = Duration::from_millis(500);
/// Connections at once.
const LINGERING_MAX: usize = 1024;
/// The same of one source, loopback aside.
const OF_SOURCE_MAX: usize = 128;
/// What is read at once, in bytes.
const PIECE_BYTES: usize = 8 << 10;

/// The connections that linger.
#[derive(Default)]
pub(super) struct Lingering(Mutex<State>);

#[derive(Default)]
struct State {
    sources: HashMap<IpAddr, VecDeque<(u64, CancellationToken)>>,
    count: usize,
    next: u64,
}

/// A connection that lingers.
struct Place {
    lingering: Arc<Lingering>,
    source: IpAddr,
    number: u64,
    /// Room is needed for others.
    cut: CancellationToken,
}

impl Lingering {
    fn enter(self: Arc<Self>, source: IpAddr) -> Place {
        let of_source_max = if source.is_loopback() { LINGERING_MAX } else { OF_SOURCE_MAX };
        let cut = CancellationToken::new();
        let mut state = self.state();
        if state.sources.get(&source).is_some_and(|places| places.len() >= of_source_max) {
            state.cut_oldest(source);
        } else if state.count >= LINGERING_MAX
            && let Some((most, _)) = state.sources.iter().max_by_key(|(_, places)| places.len())
        {
            let most = *most;
            state.cut_oldest(most);
        }
        let number = state.next;
        state.next += 1;
        state.count += 1;
        state.sources.entry(source).or_default().push_back((number, cut.clone()));
        drop(state);
        Place { lingering: self, source, number, cut }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cut_oldest(&mut self, source: IpAddr) {
        let number = self.sources.get(&source).and_then(|places| places.front()).map(|(number, _)| *number);
        if let Some((_, cut)) = number.and_then(|number| self.remove(source, number)) {
            cut.cancel();
        }
    }

    fn remove(&mut self, source: IpAddr, number: u64) -> Option<(u64, CancellationToken)> {
        let places = self.sources.get_mut(&source)?;
        let at = places.iter().position(|(other, _)| *other == number)?;
        let removed = places.remove(at);
        if places.is_empty() {
            self.sources.remove(&source);
        }
        self.count -= 1;
        removed
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lingering.state().remove(self.source, self.number);
    }
}

/// Ends a connection of a source.
pub(super) async fn close<I>(
    io: &mut I,
    source: IpAddr,
    lingering: &Arc<Lingering>,
    ended: &CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin,
{
    if !matches!(timeout(IDLE_MAX, io.shutdown()).await, Ok(Ok(()))) {
        return;
    }
    let place = lingering.clone().enter(source);
    let (mut ends, mut idle) = (Instant::now() + LINGER_MAX, IDLE_MAX);
    let mut buffer = vec![0; PIECE_BYTES];
    let mut ending = false;
    let mut last = Instant::now();
    loop {
        tokio::select! {
            read = timeout_at(ends.min(last + idle), io.read(&mut buffer)) => match read {
                Ok(Ok(1..)) => last = Instant::now(),
                Ok(Ok(0) | Err(_)) | Err(_) => return,
            },
            () = place.cut.cancelled() => return,
            () = ended.cancelled(), if !ending => {
                ending = true;
                idle = IDLE_AT_END;
                ends = ends.min(Instant::now() + LINGER_AT_END);
                last = Instant::now();
            }
        }
        // Bytes that are always there would let no timeout pass.
        if Instant::now() >= ends {
            return;
        }
        // A client that sends without a pause must not keep the others of this thread waiting.
        tokio::task::consume_budget().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};
    use tokio::task::JoinSet;

    use super::*;

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn closes(
        lingering: &Arc<Lingering>,
        source: IpAddr,
        ended: &CancellationToken,
        into: &mut JoinSet<()>,
    ) -> DuplexStream {
        let (mut ours, theirs) = duplex(1 << 10);
        let (lingering, ended) = (lingering.clone(), ended.clone());
        into.spawn(async move { close(&mut ours, source, &lingering, &ended).await });
        theirs
    }

    /// Sends a byte in each interval until the connection is closed; for how long.
    async fn sends(mut client: DuplexStream, interval: Duration) -> Duration {
        let begun = Instant::now();
        while client.write_all(b"x").await.is_ok() {
            tokio::time::sleep(interval).await;
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_waited_for_while_it_sends_but_not_for_ever() {
        let (lingering, ended, mut tasks) = (Arc::default(), CancellationToken::new(), JoinSet::new());
        let second = Duration::from_secs(1);
        for (interval, least, most) in [(second, 30, 31), (4 * second, 30, 33), (6 * second, 5, 7)] {
            let lasted = sends(closes(&lingering, SOURCE, &ended, &mut tasks), interval).await;
            assert!(lasted >= least * second && lasted <= most * second, "{interval:?}: {lasted:?}");
        }
        // One that has sent all and closes is not waited for.
        let begun = Instant::now();
        let client = closes(&lingering, SOURCE, &ended, &mut tasks);
        tokio::task::yield_now().await;
        drop(client);
        while tasks.join_next().await.is_some() {}
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(lingering.state().count, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_process_shortens_it() {
        let (lingering, ended, mut tasks) = (Arc::default(), CancellationToken::new(), JoinSet::new());
        let idle = closes(&lingering, SOURCE, &ended, &mut tasks);
        let sending = closes(&lingering, SOURCE, &ended, &mut tasks);
        let ends = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            ended.cancel();
        };
        let (lasted, ()) = tokio::join!(sends(sending, Duration::from_millis(100)), ends);
        assert!(lasted >= Duration::from_secs(6) && lasted < Duration::from_secs(7), "{lasted:?}");
        drop(idle);
        while tasks.join_next().await.is_some() {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_has_too_many_loses_its_own() {
        let (lingering, ended, mut tasks) = (Arc::default(), CancellationToken::new(), JoinSet::new());
        let mut other = closes(&lingering, OTHER, &ended, &mut tasks);
        tokio::task::yield_now().await;
        let many: Vec<_> =
            (0..3 * OF_SOURCE_MAX).map(|_| closes(&lingering, SOURCE, &ended, &mut tasks)).collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(lingering.state().sources[&SOURCE].len(), OF_SOURCE_MAX);
        assert!(other.write_all(b"x").await.is_ok(), "the other goes on");
        // Many sources, and one with the most.
        let address = |number: usize| IpAddr::V4((0x0a00_0000 + number as u32).into());
        let more: Vec<_> = (0..2 * LINGERING_MAX)
            .map(|number| closes(&lingering, address(number / 8), &ended, &mut tasks))
            .collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(lingering.state().count, LINGERING_MAX);
        assert!(other.write_all(b"x").await.is_ok(), "the other goes on");
        drop((many, more, other));
        while tasks.join_next().await.is_some() {}
    }
}
