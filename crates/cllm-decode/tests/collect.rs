//! Wide collection gives the trajectories of the block-by-block way, whatever the width,
//! the company, the blocks and the drafts; and both are Jacobi iterations by definition.

mod common;

use cllm_decode::collect::{Collected, Collector, Job, Settings, Sink, States};
use cllm_decode::fake::{Fake, FakeCache, Kind};
use cllm_decode::naive::Memory;
use cllm_decode::{
    CausalLm, Draft, Finish, Jacobi, LmError, Phase, Recorder, Request, Sequence, Token, ar,
    counter, naive, stream,
};
use common::kinds;
use proptest::prelude::*;

/// Keeps everything, but turns down the prompts in `unwanted`.
#[derive(Default)]
struct Keep {
    unwanted: Vec<u64>,
    answered: Vec<(u64, Option<Finish>)>,
    collected: Vec<Collected>,
}

impl Sink for Keep {
    fn answered(&mut self, id: u64, _answer: &[Token], finish: Option<Finish>) -> bool {
        self.answered.push((id, finish));
        !self.unwanted.contains(&id)
    }

    fn collected(&mut self, collected: Collected) {
        self.collected.push(collected);
    }
}

#[derive(Debug, Clone)]
struct Case {
    fake: Fake,
    settings: Settings,
    jobs: Vec<Job>,
    unwanted: Vec<u64>,
}

prop_compose! {
    fn jobs(vocab: Token)(
        prompt in prop::collection::vec(0..vocab, 1..20),
        max_new_tokens in prop_oneof![0..8usize, 8..60usize, Just(usize::MAX)],
        stop_tokens in prop::collection::vec(0..vocab, 0..3),
        given in prop::option::weighted(0.3, prop::collection::vec(0..vocab, 0..30)),
    ) -> (Request, Option<Vec<Token>>) {
        (Request { prompt, max_new_tokens, stop_tokens, ..Request::default() }, given)
    }
}

prop_compose! {
    fn cases()(vocab in prop_oneof![1..4u32, 4..40u32])(
        kind in kinds(vocab),
        context in 50..100usize,
        block in prop_oneof![1..9usize, 9..40usize],
        draft in prop::sample::select(Draft::ALL.to_vec()),
        seed in any::<u64>(),
        rows in prop_oneof![0..20usize, 20..200usize],
        prompts in 0..9usize,
        jobs in prop::collection::vec(jobs(vocab), 0..8),
        unwanted in prop::collection::vec(0..8u64, 0..2),
        vocab in Just(vocab as usize),
    ) -> Case {
        let fake = Fake::new(kind, vocab, context);
        let settings = Settings { block, states: States::Blocks, draft, seed, rows, prompts };
        let job = |(id, (request, given))| Job { id: id as u64, request, given };
        Case { fake, settings, jobs: jobs.into_iter().enumerate().map(job).collect(), unwanted }
    }
}

/// Runs all jobs and returns what came, by id.
fn wide(case: &Case) -> Result<Keep, LmError> {
    let mut fake = case.fake.clone();
    let mut sink = Keep { unwanted: case.unwanted.clone(), ..Keep::default() };
    let mut collector = Collector::<FakeCache>::new(case.settings)?;
    let mut jobs = case.jobs.iter().cloned().peekable();
    while jobs.peek().is_some() || !collector.is_idle() {
        while collector.has_room() {
            let Some(job) = jobs.next() else { break };
            collector.push(&fake, job)?;
        }
        collector.step(&mut fake, &mut sink)?;
    }
    sink.collected.sort_by_key(|collected| collected.id);
    Ok(sink)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn wide_is_block_by_block(case in cases()) {
        let sink = wide(&case).unwrap();
        let wanted: Vec<&Job> =
            case.jobs.iter().filter(|job| !case.unwanted.contains(&job.id)).collect();
        prop_assert_eq!(sink.answered.len(), case.jobs.len());
        prop_assert_eq!(sink.collected.len(), wanted.len());
        let mut fake = case.fake.clone();
        for (job, collected) in wanted.into_iter().zip(&sink.collected) {
            for memory in [Memory::Text, Memory::Nothing] {
                let naive = naive::collect(&mut fake, &case.settings, job, memory).unwrap();
                prop_assert_eq!(collected, &naive);
            }
        }
    }

    #[test]
    fn trajectories_are_jacobi_iterations_that_end_with_the_answer(case in cases()) {
        let mut fake = case.fake.clone();
        for Collected { id, prompt, answer, trajectories, measures } in wide(&case).unwrap().collected {
            let job = &case.jobs[id as usize];
            match &job.given {
                Some(given) => prop_assert_eq!(&answer, given),
                None => {
                    let mut sequence = Sequence::new(fake.new_cache());
                    let greedy =
                        ar::generate(&mut fake, &mut sequence, &job.request, &mut (), 64).unwrap();
                    prop_assert_eq!(&answer, &greedy.tokens);
                }
            }
            let fixed: Vec<_> =
                trajectories.iter().flat_map(|t| t.fixed_point().to_vec()).collect();
            prop_assert_eq!(&fixed, &answer);
            prop_assert_eq!(measures.tokens, answer.len());
            for t in &trajectories {
                let (y, k) = (t.fixed_point(), t.convergence_iteration());
                prop_assert!(k <= y.len());
                prop_assert!(t.first_wrong().is_sorted_by(|a, b| a < b));
                let before = [&prompt[..], &answer[..t.start()]].concat();
                let states: Vec<_> = t.states().collect();
                prop_assert_eq!(states.len(), k + 1);
                prop_assert_eq!(&states[k][..], y);
                for pair in states.windows(2) {
                    prop_assert!(pair[0] != y, "y* comes once, at the end");
                    for i in 0..y.len() {
                        let right = job.given.is_some() && pair[0][..i] == y[..i];
                        let next = [&before[..], &pair[0][..i]].concat();
                        let expected = if right { y[i] } else { fake.next(&next) };
                        prop_assert_eq!(pair[1][i], expected);
                    }
                }
                for (state, augmented) in states.iter().zip(t.augmented(case.settings.seed)) {
                    let wrong = (0..y.len()).find(|&i| state[i] != y[i]).unwrap();
                    prop_assert_eq!(&augmented[..=wrong], &state[..=wrong]);
                    let from_either = |i: usize| [state[i], y[i]].contains(&augmented[i]);
                    prop_assert!((0..y.len()).all(from_either));
                }
                let m = t.measures();
                prop_assert!(m.forwards >= 1 && m.forwards <= m.tokens);
                prop_assert!(m.forwards - m.iterations <= 1);
                prop_assert!(m.fast_forwarded < m.tokens && m.stationary < m.tokens);
            }
        }
    }

    /// The states of windows are those that a lone Jacobi decode goes through.
    #[test]
    fn windows_are_what_the_decoder_saw(mut case in cases()) {
        case.settings.states = States::Window;
        let Settings { block, draft, seed, .. } = case.settings;
        let mut fake = case.fake.clone();
        let collected = wide(&case).unwrap().collected;
        for Collected { id, answer, trajectories, measures, .. } in collected {
            let job = &case.jobs[id as usize];
            if job.given.is_some() {
                continue;
            }
            let mut decoder = Jacobi::new(block, draft, counter::hash(seed, id)).unwrap();
            let (mut recorder, mut sequence) =
                (Recorder::default(), Sequence::new(fake.new_cache()));
            let alone = stream::generate(
                &mut fake, &mut sequence, &mut decoder, &job.request, &mut recorder, 64,
            ).unwrap();
            prop_assert_eq!(&answer, &alone.tokens);
            let mut stored = trajectories.iter();
            let (mut forwards, mut beyond) = (0, 0);
            for seen in recorder.iterations.iter().filter(|i| i.phase == Phase::Decode) {
                forwards += 1;
                beyond += seen.settled - 1;
                // The guesses with a row that predicts a token of the answer.
                let end = answer.len().min(seen.start + seen.draft.len() + 1);
                let read = end - seen.start - 1;
                if seen.draft[..read] == answer[seen.start..end - 1] {
                    continue;
                }
                let t = stored.next().unwrap();
                prop_assert_eq!(t.start(), seen.start);
                prop_assert_eq!(t.fixed_point(), &answer[seen.start..end]);
                let states: Vec<_> = t.states().collect();
                prop_assert_eq!(states.len(), 2);
                prop_assert_eq!(&states[0][..read], &seen.draft[..read]);
            }
            prop_assert!(stored.next().is_none());
            prop_assert_eq!((measures.forwards, measures.fast_forwarded), (forwards, beyond));
            prop_assert!(measures.stationary <= answer.len());
        }
    }

    /// Nothing of what a model would say after a stop token is anywhere.
    #[test]
    fn blocks_end_with_the_stop_token(case in cases()) {
        let sink = wide(&case).unwrap();
        for (id, finish) in &sink.answered {
            let Some(collected) = sink.collected.iter().find(|c| c.id == *id) else { continue };
            let stops = &case.jobs[*id as usize].request.stop_tokens;
            if let Some(finish) = finish {
                let at = collected.answer.iter().position(|token| stops.contains(token));
                let last = collected.answer.len().checked_sub(1);
                prop_assert_eq!(at.is_some(), *finish == Finish::StopToken);
                prop_assert!(at.is_none() || at == last);
            }
            let states = collected.trajectories.iter().flat_map(|t| t.states());
            prop_assert!(states.map(|s| s.len()).all(|len| len <= case.settings.block));
        }
    }
}

#[test]
fn a_failed_forward_and_a_bad_job_are_errors() {
    let (states, draft) = (States::Blocks, Draft::Context);
    let settings = Settings { block: 4, states, draft, seed: 0, rows: 64, prompts: 4 };
    let zero = Settings { block: 0, ..settings };
    assert_eq!(Collector::<FakeCache>::new(zero).unwrap_err(), LmError::EmptyBlock);
    let mut fake = Fake { nan_at: Some(9), ..Fake::new(Kind::Constant(1), 5, 20) };
    let mut collector = Collector::new(settings).unwrap();
    let request = |prompt: &[Token]| Request {
        prompt: prompt.to_vec(),
        max_new_tokens: 12,
        ..Request::default()
    };
    let push = |collector: &mut Collector<FakeCache>, prompt: &[Token], given| {
        collector.push(&fake, Job { id: 0, request: request(prompt), given })
    };
    assert_eq!(push(&mut collector, &[], None), Err(LmError::EmptyPrompt));
    let unknown = LmError::UnknownToken { token: 5, vocab: 5 };
    assert_eq!(push(&mut collector, &[1], Some(vec![5])), Err(unknown));
    let full = LmError::ContextFull { position: 20, context: 20 };
    assert_eq!(push(&mut collector, &[1], Some(vec![1; 20])), Err(full));
    push(&mut collector, &[1, 2], None).unwrap();
    let mut sink = Keep::default();
    let error = (0..20).find_map(|_| collector.step(&mut fake, &mut sink).err());
    assert_eq!(error, Some(LmError::NotFinite { position: 9 }));
}
