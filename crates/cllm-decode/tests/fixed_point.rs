//! Every schedule finds the solution, in the rounds the theory allows.

use std::num::NonZeroUsize;

use cllm_decode::fake::{AnswerSystem, Fake, Kind};
use cllm_decode::fixed_point::{Schedule, Solution, TriangularSystem, solve};
use cllm_decode::{CausalLm, Draft, Jacobi, Recorder, Request, Sequence, Token, stream};
use proptest::prelude::*;

/// `L x = b` with L lower triangular: `x_i = (b_i - sum_{j<i} L_ij x_j) / L_ii`.
#[derive(Debug, Clone)]
struct LowerTriangular {
    /// Row i holds `L_i0 .. L_ii`.
    rows: Vec<Vec<f64>>,
    b: Vec<f64>,
}

impl TriangularSystem for LowerTriangular {
    type Value = f64;

    fn evaluate(&self, before: &[f64]) -> f64 {
        let i = before.len();
        let known: f64 = self.rows[i].iter().zip(before).map(|(l, x)| l * x).sum();
        (self.b[i] - known) / self.rows[i][i]
    }
}

impl LowerTriangular {
    /// Forward substitution.
    fn solution(&self) -> Vec<f64> {
        let mut x = Vec::new();
        for _ in 0..self.b.len() {
            x.push(self.evaluate(&x));
        }
        x
    }
}

fn size(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).expect("sizes are at least 1")
}

/// Solves by every schedule and checks solution and counts.
fn check<S: TriangularSystem<Value: std::fmt::Debug>>(
    system: &S,
    initial: &[S::Value],
    expected: &[S::Value],
    part: usize,
) -> Result<(), TestCaseError> {
    let n = initial.len();
    let run = |schedule| solve(system, initial.to_vec(), schedule);
    let right = |solution: &Solution<S::Value>| {
        prop_assert_eq!(&solution.x[..], expected);
        Ok(())
    };

    let jacobi = run(Schedule::Jacobi);
    right(&jacobi)?;
    prop_assert!(jacobi.iterations <= n);
    prop_assert!(jacobi.evaluations <= n * (n + 1) / 2);
    prop_assert_eq!(jacobi.depth, jacobi.iterations);

    let gs = run(Schedule::GaussSeidel);
    right(&gs)?;
    prop_assert_eq!((gs.iterations, gs.evaluations, gs.depth), (n, n, n));

    let gs_jacobi = run(Schedule::GsJacobi { block: size(part) });
    right(&gs_jacobi)?;
    prop_assert!(gs_jacobi.iterations <= n);
    prop_assert!(gs_jacobi.iterations >= n.div_ceil(part));
    prop_assert!(gs_jacobi.evaluations <= n * (part + 1).div_ceil(2).max(1) + n);
    prop_assert_eq!(gs_jacobi.depth, gs_jacobi.iterations);

    let jacobi_gs = run(Schedule::JacobiGs { blocks: size(part) });
    right(&jacobi_gs)?;
    prop_assert!(jacobi_gs.iterations <= part.min(n));
    prop_assert!(jacobi_gs.depth <= n);

    // The schedules meet at their ends.
    prop_assert_eq!(&run(Schedule::GsJacobi { block: size(1) }), &gs);
    prop_assert_eq!(&run(Schedule::GsJacobi { block: size(n.max(1)) }), &jacobi);
    prop_assert_eq!(&run(Schedule::JacobiGs { blocks: size(n.max(1)) }), &jacobi);
    let one = run(Schedule::JacobiGs { blocks: size(1) });
    prop_assert_eq!((one.iterations, one.evaluations, one.depth), (n.min(1), n, n));

    // From the solution itself one round proves all.
    let proven = solve(system, expected.to_vec(), Schedule::Jacobi);
    prop_assert_eq!((proven.iterations, proven.evaluations), (n.min(1), n));
    Ok(())
}

prop_compose! {
    /// Sparse, so that some unknowns settle early.
    fn linear_systems()(n in 0..24usize)(
        rows in (0..n).map(|i| {
            (prop::collection::vec(prop_oneof![2 => Just(0.0), 1 => -2.0..2.0f64], i), 0.5..2.0f64)
                .prop_map(|(mut row, diagonal)| { row.push(diagonal); row })
        }).collect::<Vec<_>>(),
        b in prop::collection::vec(-4.0..4.0f64, n),
    ) -> LowerTriangular {
        LowerTriangular { rows, b }
    }
}

prop_compose! {
    fn fakes()(
        vocab in 1..12u32, seed in any::<u64>(), which in 0..5usize, k in 1..6usize,
    ) -> Fake {
        let kind = match which {
            0 => Kind::ContextHash(seed),
            1 => Kind::Markov { order: k, seed },
            2 => Kind::Cycle(vocab),
            3 => Kind::Copy(k),
            _ => Kind::Half { token: 0, seed },
        };
        Fake::new(kind, vocab as usize, 1000)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn linear(system in linear_systems(), guess in -4.0..4.0f64, part in 1..10usize) {
        let expected = system.solution();
        check(&system, &vec![guess; expected.len()], &expected, part)?;
    }

    #[test]
    fn answers(
        fake in fakes(),
        prompt in prop::collection::vec(any::<u32>(), 1..8),
        initial in prop::collection::vec(any::<u32>(), 0..24),
        part in 1..10usize,
    ) {
        let within = |tokens: Vec<u32>| -> Vec<Token> {
            tokens.into_iter().map(|token| token % fake.vocab as u32).collect()
        };
        let (prompt, initial) = (within(prompt), within(initial));
        let mut text = prompt.clone();
        for _ in &initial {
            text.push(fake.next(&text));
        }
        let system = AnswerSystem { fake: &fake, prompt: &prompt };
        check(&system, &initial, &text[prompt.len()..], part)?;
    }

    /// With a window over the whole answer, the decoder is the Jacobi schedule, forward by
    /// forward and row by row: it carries every update over and confirms nothing.
    #[test]
    fn the_decoder_is_the_jacobi_schedule(
        fake in fakes(),
        prompt in prop::collection::vec(any::<u32>(), 1..8),
        len in 1..24usize,
        draft in prop::sample::select(Draft::ALL.to_vec()),
        seed in any::<u64>(),
    ) {
        let prompt: Vec<Token> = prompt.into_iter().map(|t| t % fake.vocab as u32).collect();
        let request = Request { prompt, max_new_tokens: 1 + len, ..Request::default() };
        let mut lm = fake.clone();
        let mut sequence = Sequence::new(lm.new_cache());
        let mut decoder = Jacobi::new(len, draft, seed).expect("len > 0");
        let mut trace = Recorder::default();
        let answer =
            stream::generate(&mut lm, &mut sequence, &mut decoder, &request, &mut trace, 512)
                .expect("a sound request");

        let after_prefill = [&request.prompt[..], &answer.tokens[..1]].concat();
        let system = AnswerSystem { fake: &fake, prompt: &after_prefill };
        // No row reads the last unknown, so its guess is nobody's.
        let mut initial = trace.iterations[1].draft.clone();
        initial.push(0);
        let solution = solve(&system, initial, Schedule::Jacobi);
        prop_assert_eq!(&solution.x[..], &answer.tokens[1..]);
        // The solver compares the last unknown too, but by then the rest has settled.
        prop_assert_eq!(solution.iterations, answer.stats.decode_forwards);
        prop_assert_eq!(solution.evaluations, answer.stats.decode_rows);
    }
}
