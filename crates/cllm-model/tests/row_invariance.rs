//! The law: the logits of a row are the same bits in any company.
//!
//! The reference for a row is always the same plain thing: the text it sees, run one
//! token a forward. Every other way of computing that row (prefill in any chunks, blocks,
//! trees, several sequences in one forward, one row or five hundred, any thread count)
//! has to give the same bits, on every instruction set and storage format.

use std::collections::HashMap;
use std::path::Path;

use cllm_decode::{Batch, CausalLm, KvCache, Output, Row, Token, Want};
use cllm_kernels::{Isa, Pool};
use cllm_model::weights::Checkpoint;
use cllm_model::{Compute, Llama};
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

/// Golden models with something of their own on the way from row to logits: grouped heads
/// and biases, QK norms, a sliding window, unrotated layers, interleaved rotary pairs.
const MODELS: [&str; 6] = [
    "llama-bias-f32",
    "mistral-window-f32",
    "qwen2-window-f32",
    "qwen3-f32",
    "smollm3-f32",
    "llama.Q4_0.gguf",
];

fn load(name: &str, compute: Compute, isa: Isa, threads: usize) -> Llama {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/models");
    let checkpoint = Checkpoint::open(&goldens.join(name)).unwrap();
    let config = checkpoint.config().unwrap();
    Llama::load(&checkpoint, config, compute, isa, Pool::new(threads).unwrap(), None).unwrap()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|v| v.to_bits()).collect()
}

/// The reference: the logits after a text, computed one token a forward on one thread.
struct Oracle {
    lm: Llama,
    known: HashMap<Vec<Token>, Vec<u32>>,
}

impl Oracle {
    fn logits(&mut self, text: &[Token]) -> Vec<u32> {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        let mut cache = self.lm.new_cache();
        let (mut batch, mut output) = (Batch::new(), Output::new());
        for (i, &token) in text.iter().enumerate() {
            batch.clear();
            batch.push_causal(0, i, [token], |_| Want::Logits);
            self.lm.forward(&batch, &mut [&mut cache], &mut output).unwrap();
            cache.keep(&[0]);
            self.known.insert(text[..=i].to_vec(), bits(output.logits(0)));
        }
        self.known[text].clone()
    }
}

/// Random choices for one model; the seed is fixed, so a failure repeats.
struct Dice(TestRng);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    fn text(&mut self, len: usize, vocab: usize) -> Vec<Token> {
        (0..len).map(|_| self.below(vocab) as Token).collect()
    }
}

/// Runs `text` in random chunks, checking the logits of every row; returns rows checked.
fn check_chunks(lm: &mut Llama, oracle: &mut Oracle, dice: &mut Dice, text: &[Token]) -> usize {
    let mut cache = lm.new_cache();
    let (mut batch, mut output) = (Batch::new(), Output::new());
    while cache.len() < text.len() {
        let start = cache.len();
        let chunk = 1 + dice.below(text.len() - start);
        batch.clear();
        let tokens = text[start..start + chunk].iter().copied();
        batch.push_causal(0, start, tokens, |_| Want::Logits);
        lm.forward(&batch, &mut [&mut cache], &mut output).unwrap();
        cache.keep(&(0..chunk).collect::<Vec<_>>());
        for row in 0..chunk {
            assert_eq!(bits(output.logits(row)), oracle.logits(&text[..=start + row]));
        }
    }
    text.len()
}

/// One forward with a random tree of rows for each of several sequences, their rows
/// interleaved; each row continues the cache or an earlier row. Returns rows checked.
fn check_trees(lm: &mut Llama, oracle: &mut Oracle, dice: &mut Dice, rows: usize) -> usize {
    let vocab = lm.vocab_size();
    let sequences = 1 + dice.below(4);
    let (mut batch, mut output) = (Batch::new(), Output::new());
    let mut caches = Vec::new();
    let mut texts = Vec::new();
    for _ in 0..sequences {
        let len = dice.below(20);
        let text = dice.text(len, vocab);
        let mut cache = lm.new_cache();
        if !text.is_empty() {
            batch.clear();
            batch.push_causal(0, 0, text.iter().copied(), |_| Want::Nothing);
            lm.forward(&batch, &mut [&mut cache], &mut output).unwrap();
            cache.keep(&(0..text.len()).collect::<Vec<_>>());
        }
        caches.push(cache);
        texts.push(text);
    }

    batch.clear();
    // Of each row: its sequence, the earlier rows it sees, and the text it ends.
    let mut seen: Vec<(usize, Vec<usize>, Vec<Token>)> = Vec::new();
    for i in 0..rows {
        let sequence = dice.below(sequences);
        let own: Vec<usize> = (0..i).filter(|&j| seen[j].0 == sequence).collect();
        let parent = dice.below(own.len() + 1);
        let (prefix, mut peers, mut text) = if parent == own.len() {
            // A new branch, maybe from before the end of what is cached.
            let prefix = dice.below(texts[sequence].len() + 1);
            (prefix, Vec::new(), texts[sequence][..prefix].to_vec())
        } else {
            let (_, peers, text) = &seen[own[parent]];
            let prefix = batch.rows()[own[parent]].prefix;
            (prefix, [peers.as_slice(), &[own[parent]]].concat(), text.clone())
        };
        peers.sort_unstable();
        let token = dice.below(vocab) as Token;
        let want = if dice.below(3) == 0 { Want::Argmax } else { Want::Logits };
        let position = text.len();
        let ranges: Vec<_> = peers.iter().map(|&p| p..p + 1).collect();
        batch.push(Row { sequence, token, position, prefix, want, adapter: None }, &ranges);
        text.push(token);
        seen.push((sequence, peers, text));
    }
    let mut borrowed: Vec<_> = caches.iter_mut().collect();
    lm.forward(&batch, &mut borrowed, &mut output).unwrap();
    for (i, (_, _, text)) in seen.iter().enumerate() {
        let want = oracle.logits(text);
        if batch.rows()[i].want == Want::Logits {
            assert_eq!(bits(output.logits(i)), want, "row {i} of {rows}");
        }
        let logits: Vec<f32> = want.iter().map(|&b| f32::from_bits(b)).collect();
        assert_eq!(Some(output.argmax(i)), cllm_decode::lm::argmax(&logits), "row {i}");
    }
    rows
}

#[test]
#[expect(clippy::print_stdout, reason = "the count of cases, shown with --nocapture")]
fn logits_do_not_depend_on_the_company() {
    let (mut rows, mut forwards) = (0, 0);
    for name in MODELS {
        for compute in [Compute::F32, Compute::Bf16, Compute::W8, Compute::W4] {
            // One oracle for all instruction sets: they must agree with one another too.
            let lm = load(name, compute, Isa::PORTABLE, 1);
            let mut oracle = Oracle { lm, known: HashMap::new() };
            for isa in Isa::available() {
                let mut dice = Dice(TestRng::deterministic_rng(RngAlgorithm::ChaCha));
                for threads in [1, 2, 3] {
                    let mut lm = load(name, compute, isa, threads);
                    let vocab = lm.vocab_size();
                    for _ in 0..4 {
                        let text = dice.text(40, vocab);
                        rows += check_chunks(&mut lm, &mut oracle, &mut dice, &text);
                        let size = 1 + dice.below(40);
                        rows += check_trees(&mut lm, &mut oracle, &mut dice, size);
                        forwards += 2;
                    }
                }
            }
        }
    }
    println!("{rows} rows of {forwards} random layouts have the bits of one-row forwards");
}

#[test]
fn five_hundred_rows_equal_one_at_a_time() {
    for name in ["llama-bias-f32", "mistral-window-f32"] {
        let best = *Isa::available().last().unwrap();
        let mut oracle = Oracle { lm: load(name, Compute::F32, best, 1), known: HashMap::new() };
        let mut dice = Dice(TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let mut lm = load(name, Compute::F32, best, 2);
        check_trees(&mut lm, &mut oracle, &mut dice, 500);
    }
}

#[test]
fn a_failed_forward_leaves_the_cache_as_it_was() {
    let mut lm = load("llama-bias-f32", Compute::F32, Isa::PORTABLE, 1);
    let mut cache = lm.new_cache();
    let (mut batch, mut output) = (Batch::new(), Output::new());
    batch.push_causal(0, 0, [1, 2, 3], |_| Want::Logits);
    lm.forward(&batch, &mut [&mut cache], &mut output).unwrap();
    cache.keep(&[0, 1]);

    let outside = lm.vocab_size() as Token;
    let mut bad = Batch::new();
    bad.push_causal(0, 2, [1, outside], |_| Want::Logits);
    assert!(lm.forward(&bad, &mut [&mut cache], &mut output).is_err());
    assert_eq!(cache.len(), 2);

    let mut again = Batch::new();
    again.push_causal(0, 2, [3], |_| Want::Logits);
    let mut first = Output::new();
    lm.forward(&batch, &mut [&mut lm.new_cache()], &mut first).unwrap();
    lm.forward(&again, &mut [&mut cache], &mut output).unwrap();
    assert_eq!(bits(output.logits(0)), bits(first.logits(2)));
}
