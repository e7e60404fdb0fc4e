//! stdlib: clocks and sleeps; nothing that depends on how long anything takes at most.

use super::{Done, say};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// All of them.
pub fn all() -> Done {
    let start = Instant::now();
    for ms in [0, 1, 5] {
        let before = Instant::now();
        std::thread::sleep(Duration::from_millis(ms));
        say(format_args!("slept at least {ms} ms: {}", before.elapsed() >= Duration::from_millis(ms)));
    }
    let mut last = Instant::now();
    let forward = (0..1000).all(|_| {
        let now = Instant::now();
        std::mem::replace(&mut last, now) <= now
    });
    say(format_args!("never back: {forward}"));
    let others: Vec<Instant> = (0..4).filter_map(|_| std::thread::spawn(Instant::now).join().ok()).collect();
    say(format_args!("the same on all CPUs: {}", others.iter().all(|t| *t >= start) && others.is_sorted()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    say(format_args!("the day is set: {}", now > Duration::from_secs(1_500_000_000)));
    Ok(())
}
