//! A persistent pool of threads for work measured in microseconds.
//!
//! A forward of a small model is some two hundred parallel steps of ten to a hundred
//! microseconds. Starting threads, or sleeping and waking them, would cost more than the
//! work, so workers spin for a short while after each step, and then park: a machine
//! that does something else between two tokens is not kept busy. The caller is thread 0
//! and works too.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::shared::Shared;

/// How often a waiting thread looks before it parks: about 50 microseconds, longer than
/// the gap between two steps of a forward, far shorter than a time slice.
const SPINS: usize = 2_000;

/// One step: called with each thread's index.
type Job = *const (dyn Fn(usize) + Sync);

/// A raw pointer that may cross threads; see the SAFETY comments at its uses.
struct JobSlot(Option<Job>);

// SAFETY: the pointee is Sync, and `Pool::run` keeps it alive until no worker uses it.
#[expect(unsafe_code, reason = "a borrowed closure is handed to other threads")]
unsafe impl Send for JobSlot {}

struct State {
    job: Mutex<JobSlot>,
    /// Counts steps; a change means that a new job is in the slot.
    step: AtomicUsize,
    /// Workers that have not finished the current step.
    running: AtomicUsize,
    wake: Condvar,
    done: Condvar,
    panicked: AtomicBool,
    stop: AtomicBool,
}

impl State {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            job: Mutex::new(JobSlot(None)),
            step: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            wake: Condvar::new(),
            done: Condvar::new(),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, JobSlot> {
        // A job never runs under this lock, so a poisoned lock still holds valid data.
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Threads that wait for steps to run. Dropping it ends them.
pub struct Pool {
    state: Arc<State>,
    workers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller's included; 0 counts as 1.
    ///
    /// # Errors
    /// If the system refuses to start a thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let mut pool = Self::single();
        for index in 1..threads.max(1) {
            let state = Arc::clone(&pool.state);
            let name = format!("cllm-{index}");
            let worker = std::thread::Builder::new().name(name).spawn(move || work(&state, index));
            // On failure `pool` is dropped here, which ends the workers already started.
            pool.workers.push(worker?);
        }
        Ok(pool)
    }

    /// The caller's thread alone: nothing to start, nothing that can fail.
    pub fn single() -> Self {
        Self { state: State::new(), workers: Vec::new() }
    }

    /// As many threads as this process may use: cores, CPU affinity and cgroup quota.
    pub fn default_threads() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job(i)` once for every thread index i, each on its own thread, and returns
    /// when all have finished.
    ///
    /// # Panics
    /// If `job` panics on any thread.
    pub fn run(&mut self, job: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            return job(0);
        }
        let state = &*self.state;
        // SAFETY: only the lifetime changes. Workers use the pointer between the store
        // below and their decrement of `running`; `Finish` waits for the last decrement
        // before this function returns or unwinds, so the borrow outlives every use.
        #[expect(unsafe_code, reason = "lends a closure to the workers for one step")]
        let job_ptr: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        {
            let mut slot = state.lock();
            slot.0 = Some(job_ptr);
            state.running.store(self.workers.len(), Ordering::Relaxed);
            state.step.fetch_add(1, Ordering::Release);
        }
        // Notifying without sleepers is one atomic load.
        state.wake.notify_all();
        let finish = Finish(state);
        job(0);
        drop(finish);
        assert!(
            !state.panicked.swap(false, Ordering::Relaxed),
            "a worker thread panicked; its message is above"
        );
    }

    /// Splits `0..len` into one contiguous range per thread, in multiples of `grain`
    /// (but for the end), and calls `job` on each that is not empty.
    pub fn run_ranges(
        &mut self,
        len: usize,
        grain: usize,
        job: &(dyn Fn(std::ops::Range<usize>) + Sync),
    ) {
        let threads = self.threads();
        let grains = len.div_ceil(grain);
        if grains <= 1 || threads == 1 {
            if len > 0 {
                job(0..len);
            }
            return;
        }
        self.run(&|i| {
            let start = grains * i / threads * grain;
            let end = (grains * (i + 1) / threads * grain).min(len);
            if start < end {
                job(start..end);
            }
        });
    }

    /// Cuts `data` into pieces of `chunk` elements (the last may be shorter) and calls
    /// `job(i, piece)` on each. Threads take the next piece when they are free, so pieces
    /// may differ in cost.
    pub fn for_each_chunk<T: Send>(
        &mut self,
        data: &mut [T],
        chunk: usize,
        job: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        let (len, pieces) = (data.len(), data.len().div_ceil(chunk));
        if pieces <= 1 || self.threads() == 1 {
            return data.chunks_mut(chunk).enumerate().for_each(|(i, piece)| job(i, piece));
        }
        let shared = Shared::new(data);
        let next = AtomicUsize::new(0);
        self.run(&|_| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= pieces {
                    break;
                }
                let start = i * chunk;
                // SAFETY: the counter gives each piece to one thread, and pieces are disjoint.
                #[expect(unsafe_code, reason = "threads write pieces of their own")]
                job(i, unsafe { shared.slice(start, chunk.min(len - start)) });
            }
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let _slot = self.state.lock();
            self.state.stop.store(true, Ordering::Release);
        }
        self.state.wake.notify_all();
        for worker in self.workers.drain(..) {
            // Workers catch the panics of their jobs, so there is nothing to report.
            let _ = worker.join();
        }
    }
}

/// Waits, when dropped, for all workers to finish the step; also while unwinding.
struct Finish<'a>(&'a State);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        for _ in 0..SPINS {
            if self.0.running.load(Ordering::Acquire) == 0 {
                return;
            }
            std::hint::spin_loop();
        }
        let mut slot = self.0.lock();
        while self.0.running.load(Ordering::Acquire) != 0 {
            slot = self.0.done.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The life of a worker.
fn work(state: &State, index: usize) {
    let mut seen = 0;
    while let Some(job) = next_job(state, &mut seen) {
        // SAFETY: `Pool::run` waits for this worker's decrement of `running` below, so
        // what the pointer borrows is alive.
        #[expect(unsafe_code, reason = "uses the closure lent by Pool::run")]
        let job = unsafe { &*job };
        if catch_unwind(AssertUnwindSafe(|| job(index))).is_err() {
            state.panicked.store(true, Ordering::Relaxed);
        }
        if state.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Taking the lock orders this after the caller's check, so it cannot miss it.
            drop(state.lock());
            state.done.notify_one();
        }
    }
}

/// Waits for a step after `seen`: spins, then parks. `None` when the pool ends.
fn next_job(state: &State, seen: &mut usize) -> Option<Job> {
    for _ in 0..SPINS {
        if state.step.load(Ordering::Acquire) != *seen {
            break;
        }
        std::hint::spin_loop();
    }
    let mut slot = state.lock();
    loop {
        if state.stop.load(Ordering::Acquire) {
            return None;
        }
        let step = state.step.load(Ordering::Acquire);
        if step != *seen {
            *seen = step;
            return slot.0;
        }
        slot = state.wake.wait(slot).unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_runs_once_per_step() {
        for threads in [1, 2, 3, 5] {
            let mut pool = Pool::new(threads).unwrap();
            let counts: Vec<_> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..1_000 {
                pool.run(&|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1_000));
        }
    }

    #[test]
    fn ranges_cover_everything_once_and_end_on_grains() {
        let mut pool = Pool::new(3).unwrap();
        for (len, grain) in [(0, 4), (1, 4), (7, 4), (8, 4), (100, 16), (101, 1)] {
            let hits: Vec<_> = (0..len).map(|_| AtomicUsize::new(0)).collect();
            pool.run_ranges(len, grain, &|range| {
                assert!(range.start.is_multiple_of(grain));
                for i in range {
                    hits[i].fetch_add(1, Ordering::Relaxed);
                }
            });
            assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1), "{len} {grain}");
        }
    }

    #[test]
    fn chunks_are_visited_once_with_their_index() {
        let mut pool = Pool::new(3).unwrap();
        for (len, chunk) in [(0, 3), (2, 3), (3, 3), (100, 7)] {
            let mut data = vec![0usize; len];
            pool.for_each_chunk(&mut data, chunk, &|i, piece| {
                piece.iter_mut().for_each(|v| *v += i + 1);
            });
            let want: Vec<_> = (0..len).map(|i| i / chunk + 1).collect();
            assert_eq!(data, want);
        }
    }

    #[test]
    fn a_panic_in_a_worker_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = Pool::new(2).unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(&|i| assert_ne!(i, 1, "wanted by the test"));
        }));
        assert!(result.is_err());
        let ran = AtomicUsize::new(0);
        pool.run(&|_| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.load(Ordering::Relaxed), 2);
    }
}
