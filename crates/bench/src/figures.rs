//! Times, memory, medians.

use std::time::Duration;

/// The median of times.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The most memory this process has had, in MiB, as the system counts it.
pub fn peak_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Forgets the peak so far.
pub fn reset_peak_memory() {
    // Where the system does not let us, the peak is of the whole process, which is no less.
    std::fs::write("/proc/self/clear_refs", "5").ok();
}

/// Seconds of processor time this process has used, user and system.
pub fn cpu_seconds() -> f64 {
    cpu_seconds_of(std::process::id())
}

/// Seconds of processor time a process has used, user and system.
pub fn cpu_seconds_of(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    // utime and stime, in hundredths of a second on every Linux.
    (ticks(11) + ticks(12)) / 100.0
}

/// So many a second.
pub fn rate(number: u64, time: Duration) -> f64 {
    number as f64 / time.as_secs_f64().max(1e-9)
}
