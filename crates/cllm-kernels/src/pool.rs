//! A persistent pool of threads for work measured in microseconds.
//!
//! A forward of a small model is some two hundred parallel steps of five to a hundred
//! microseconds. Starting threads, or sleeping and waking them, would cost more than the
//! work, so workers spin for a short while after each step, and then park: a machine
//! that does something else between two tokens is not kept busy.
//!
//! A step is cut into pieces that threads take from counters, the caller among them:
//! either all from one ([`Pool::run`]), or each first from its own share of neighbouring
//! pieces, so that it reads memory in one run, and then from those of others
//! ([`Pool::run_near`]). The caller waits only for workers that have *entered* the step: one that the system has
//! not scheduled in time finds the step closed, and costs nothing. So a core that is
//! taken away costs its share of the speed and not a time slice at every step, which is
//! what a barrier of all threads would pay.
//!
//! Which thread computes a piece never matters to its result.

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::shared::Shared;

/// How often a waiting worker looks before it parks: some 50 microseconds, longer than the
/// gap between two steps of a forward, far shorter than a time slice.
const SPINS: usize = 2_000;

/// How many ranges per thread a step is cut into: few enough for counting to stay cheap,
/// enough for threads to end at about the same time.
const PIECES_PER_THREAD: usize = 6;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// Which of a pool's threads this is; the caller, like any other thread, is 0.
pub(crate) fn current() -> usize {
    CURRENT.get()
}

/// One step, shared with the workers while it is open.
struct Step<'a> {
    job: &'a (dyn Fn(usize) + Sync),
    pieces: usize,
    /// Who takes what: one share for all threads, or one for each.
    shares: &'a [Share],
    panicked: AtomicBool,
}

/// The pieces of one thread, or of all: the next one to be taken. On a cache line of its
/// own, because a thread counts here for every piece.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Share {
    next: AtomicUsize,
}

impl Step<'_> {
    /// Takes pieces until there are none: first those of the share that belongs to
    /// `thread`, then those of the following ones.
    fn work(&self, thread: usize) {
        let count = self.shares.len();
        for i in 0..count {
            let share = (thread + i) % count;
            let end = self.pieces * (share + 1) / count;
            let next = &self.shares[share].next;
            // A look first: taking in vain would disturb whoever works there.
            while next.load(Ordering::Relaxed) < end {
                let piece = next.fetch_add(1, Ordering::Relaxed);
                if piece >= end {
                    break;
                }
                (self.job)(piece);
            }
        }
    }
}

/// In `State::gate`: the step is open.
const OPEN: u64 = 1;
/// In `State::gate`: one worker inside the step, in 15 bits.
const INSIDE: u64 = 2;
/// In `State::gate`: one step, in the upper 48 bits.
const GENERATION: u64 = 1 << 16;

struct State {
    /// Generation of the step, workers inside it, and whether it is open.
    gate: AtomicU64,
    /// The step, valid for those inside the gate.
    step: AtomicPtr<()>,
    stop: AtomicBool,
    /// Workers that are parked or about to.
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data, so a panic under it leaves nothing broken.
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Threads that wait for steps to run. Dropping it ends them.
pub struct Pool {
    state: Arc<State>,
    workers: Vec<JoinHandle<()>>,
    /// One per thread.
    shares: Vec<Share>,
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
            pool.shares.push(Share::default());
        }
        Ok(pool)
    }

    /// The caller's thread alone: nothing to start, nothing that can fail.
    pub fn single() -> Self {
        let state = State {
            gate: AtomicU64::new(0),
            step: AtomicPtr::new(std::ptr::null_mut()),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        };
        Self { state: Arc::new(state), workers: Vec::new(), shares: vec![Share::default()] }
    }

    /// As many threads as this process may use: cores, CPU affinity and cgroup quota.
    pub fn default_threads() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// Number of threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `job(i)` once for every `i` in `0..pieces`, on any thread, and returns when all
    /// have finished. Pieces are begun in ascending order: the last ones should be small.
    ///
    /// # Panics
    /// If `job` panics; the other pieces may then be left undone.
    pub fn run(&mut self, pieces: usize, job: &(dyn Fn(usize) + Sync)) {
        self.step(pieces, 1, job);
    }

    /// As [`Pool::run`], but neighbouring pieces go to the same thread while it can keep up,
    /// and the same pieces to the same thread from step to step.
    pub fn run_near(&mut self, pieces: usize, job: &(dyn Fn(usize) + Sync)) {
        self.step(pieces, self.threads(), job);
    }

    fn step(&mut self, pieces: usize, shares: usize, job: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || pieces <= 1 {
            return (0..pieces).for_each(job);
        }
        for (i, share) in self.shares[..shares].iter_mut().enumerate() {
            *share.next.get_mut() = pieces * i / shares;
        }
        let shares = &self.shares[..shares];
        let step = Step { job, pieces, shares, panicked: AtomicBool::new(false) };
        let state = &*self.state;
        state.step.store(std::ptr::from_ref(&step).cast_mut().cast(), Ordering::Relaxed);
        let gate = state.gate.load(Ordering::Relaxed);
        // Sequentially consistent, as is a sleeper's announcement: one of the two sees the
        // other, so no worker sleeps through a step that nobody wakes it for.
        state.gate.store(gate + GENERATION + OPEN, Ordering::SeqCst);
        if state.sleepers.load(Ordering::SeqCst) > 0 {
            drop(state.lock());
            state.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| step.work(0)));
        // Nobody enters from here on; whoever is inside may still use the step.
        state.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while !state.gate.load(Ordering::Acquire).is_multiple_of(GENERATION) {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                // A worker lost its core in the middle of a piece: let it have this one.
                std::thread::yield_now();
            }
        }
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(
            !step.panicked.load(Ordering::Relaxed),
            "a worker thread panicked; its message is above"
        );
    }

    /// Splits `0..len` into ranges that begin on multiples of `grain` and calls `job` on
    /// each; a few ranges per thread.
    pub fn run_ranges(&mut self, len: usize, grain: usize, job: &(dyn Fn(Range<usize>) + Sync)) {
        let ranges = self.ranges(len, grain);
        self.run_near(ranges.len(), &|i| job(ranges.get(i)));
    }

    /// How [`Pool::run_ranges`] would split `0..len`.
    pub fn ranges(&self, len: usize, grain: usize) -> Ranges {
        let grains = len.div_ceil(grain);
        let pieces = match self.threads() {
            1 => 1,
            threads => threads * PIECES_PER_THREAD,
        };
        Ranges { total: len, grain, grains, len: pieces.min(grains) }
    }

    /// Cuts `data` into pieces of `chunk` elements (the last may be shorter) and calls
    /// `job(i, piece)` on each.
    pub fn for_each_chunk<T: Send>(
        &mut self,
        data: &mut [T],
        chunk: usize,
        job: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        let len = data.len();
        let shared = Shared::new(data);
        self.run(len.div_ceil(chunk), &|i| {
            let start = i * chunk;
            // SAFETY: each piece is taken once, and pieces are disjoint.
            #[expect(unsafe_code, reason = "threads write pieces of their own")]
            job(i, unsafe { shared.slice(start, chunk.min(len - start)) });
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        drop(self.state.lock());
        self.state.wake.notify_all();
        for worker in self.workers.drain(..) {
            // Workers catch the panics of their jobs, so there is nothing to report.
            let _ = worker.join();
        }
    }
}

/// A split of `0..len` into nearly equal ranges.
#[derive(Debug, Clone, Copy)]
pub struct Ranges {
    /// Length of what is split.
    total: usize,
    grain: usize,
    grains: usize,
    /// Number of ranges.
    len: usize,
}

impl Ranges {
    /// Number of ranges; none is empty.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Range `i`; they ascend.
    pub fn get(&self, i: usize) -> Range<usize> {
        let edge = |i: usize| (self.grains * i / self.len * self.grain).min(self.total);
        edge(i)..edge(i + 1)
    }
}

/// The life of a worker.
fn work(state: &State, thread: usize) {
    CURRENT.set(thread);
    let mut seen = 0;
    while let Some(generation) = enter(state, seen) {
        seen = generation;
        // SAFETY: `run` stored the pointer before it opened the gate, and waits for this
        // worker to leave before the step goes out of scope.
        #[expect(unsafe_code, reason = "uses the step lent by Pool::run")]
        let step = unsafe { &*state.step.load(Ordering::Relaxed).cast::<Step<'_>>() };
        if catch_unwind(AssertUnwindSafe(|| step.work(thread))).is_err() {
            step.panicked.store(true, Ordering::Relaxed);
        }
        state.gate.fetch_sub(INSIDE, Ordering::Release);
    }
}

/// Enters the next open step after generation `seen` and returns its generation; spins,
/// then parks. `None` when the pool ends.
fn enter(state: &State, seen: u64) -> Option<u64> {
    for _ in 0..SPINS {
        if let Some(generation) = try_enter(state, seen) {
            return Some(generation);
        }
        std::hint::spin_loop();
    }
    let mut guard = state.lock();
    state.sleepers.fetch_add(1, Ordering::SeqCst);
    let entered = loop {
        if state.stop.load(Ordering::SeqCst) {
            break None;
        }
        if let Some(generation) = try_enter(state, seen) {
            break Some(generation);
        }
        guard = state.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
    };
    state.sleepers.fetch_sub(1, Ordering::SeqCst);
    entered
}

/// Enters the step if it is open and not the one just left.
fn try_enter(state: &State, seen: u64) -> Option<u64> {
    let gate = state.gate.load(Ordering::SeqCst);
    let generation = gate / GENERATION;
    let open = gate & OPEN != 0 && generation != seen;
    let inside = gate + INSIDE;
    // Acquire pairs with the store that opened the gate: the step is visible inside.
    let entered = open
        && state.gate.compare_exchange(gate, inside, Ordering::Acquire, Ordering::Relaxed).is_ok();
    entered.then_some(generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_runs_once_per_step() {
        for threads in [1, 2, 3, 5] {
            let mut pool = Pool::new(threads).unwrap();
            for pieces in [0, 1, 2, 7, 100] {
                let counts: Vec<_> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                for round in 0..300 {
                    let count = |i: usize| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                    };
                    match round % 2 {
                        0 => pool.run(pieces, &count),
                        _ => pool.run_near(pieces, &count),
                    }
                }
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 300));
            }
        }
    }

    #[test]
    fn ranges_cover_everything_once_and_begin_on_grains() {
        let mut pool = Pool::new(3).unwrap();
        for (len, grain) in [(0, 4), (1, 4), (7, 4), (8, 4), (100, 16), (1000, 1)] {
            let hits: Vec<_> = (0..len).map(|_| AtomicUsize::new(0)).collect();
            pool.run_ranges(len, grain, &|range| {
                assert!(range.start.is_multiple_of(grain) && !range.is_empty());
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
    fn parked_workers_wake_up() {
        let mut pool = Pool::new(2).unwrap();
        for _ in 0..20 {
            // Longer than a worker spins; the step then needs both threads to end.
            std::thread::sleep(std::time::Duration::from_millis(2));
            let arrived = AtomicUsize::new(0);
            pool.run(2, &|_| {
                arrived.fetch_add(1, Ordering::SeqCst);
                while arrived.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
            });
        }
    }

    #[test]
    fn a_panic_on_any_thread_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = Pool::new(2).unwrap();
        for bad in 0..4 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(4, &|i| assert_ne!(i, bad, "wanted by the test"));
            }));
            assert!(result.is_err());
        }
        let ran = AtomicUsize::new(0);
        pool.run(4, &|_| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.load(Ordering::Relaxed), 4);
    }
}
