//! How fast this machine reads memory: the ceiling of single-row decoding, which reads
//! every weight once a token.
//!
//! Each thread sums its own buffer of plain integers again and again for a fixed time.
//! The buffers together are far larger than any cache, so the sums run at the speed of
//! memory. A short test: good to some ten percent.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes all threads read together; several times the largest caches.
const BYTES: usize = 256 << 20;
/// How long to measure.
const TIME: Duration = Duration::from_millis(300);

/// Bytes read per second by `threads` threads, at least 1.
pub(crate) fn measure(threads: usize) -> f64 {
    measure_for(threads.max(1), BYTES, TIME)
}

fn measure_for(threads: usize, bytes: usize, time: Duration) -> f64 {
    let words = bytes / 8 / threads;
    let ready = Barrier::new(threads);
    let read = || {
        // Written, so that every page is real memory and not a shared page of zeros.
        let buffer = vec![1u64; words];
        ready.wait();
        let started = Instant::now();
        let mut passes = 0u64;
        while passes == 0 || started.elapsed() < time {
            let sum = black_box(&buffer).iter().fold(0u64, |sum, word| sum.wrapping_add(*word));
            black_box(sum);
            passes += 1;
        }
        passes as f64 * (words * 8) as f64 / started.elapsed().as_secs_f64()
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..threads).map(|_| scope.spawn(read)).collect();
        readers.into_iter().map(|reader| reader.join().unwrap_or(0.0)).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_reads_its_buffer_at_least_once() {
        for threads in [1, 3] {
            let speed = measure_for(threads, 1 << 16, Duration::ZERO);
            assert!(speed.is_finite() && speed > 0.0);
        }
    }
}
