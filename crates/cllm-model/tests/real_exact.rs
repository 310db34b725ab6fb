//! The promise on the default model: every decoder gives autoregressive decoding's tokens,
//! greedy and sampled with a seed, alone and beside others. Not hermetic, so ignored by default:
//! `CLLM_TEST_MODEL=path/to/model.gguf cargo test --workspace --test real_exact -- --ignored --nocapture`

use std::path::PathBuf;

use cllm_decode::spec::Built;
use cllm_decode::{
    CausalLm, CostModel, Decoder, DecoderSpec, DraftModel, Driver, Request, Sampling, Sequence,
    Stream, Token, ar, stream,
};
use cllm_model::{Compute, Llama, LoadOptions, Model};

const PROMPTS: [&str; 3] = [
    "Natalia sold 48 clips in April and half as many in May. How many did she sell in all?",
    "def fibonacci(n):\n    \"\"\"The n-th Fibonacci number.\"\"\"\n",
    "The three primary colours are",
];

const DECODERS: [&str; 9] = [
    "jacobi:8",
    "jacobi:n=16,draft=last-token",
    "jacobi:n=8,draft=ngram",
    "jacobi-pool",
    "jacobi-pool:n=8,blocks=2",
    "lookahead:w=4,n=4,g=4",
    "prompt-lookup",
    "auto",
    "draft-model",
];

/// Rows of a prompt in one forward.
const CHUNK: usize = 64;

/// Greedy and plainly sampled.
fn samplings() -> [Sampling; 3] {
    [0.0, 0.7, 1.0].map(|temperature| Sampling { temperature, ..Sampling::default() })
}

/// With all filters and penalties at once.
fn filtered() -> Sampling {
    Sampling {
        temperature: 0.9,
        top_k: 60,
        top_p: 0.97,
        min_p: 0.001,
        typical_p: 0.98,
        repetition_penalty: 1.1,
        presence_penalty: 0.2,
        frequency_penalty: 0.1,
        logit_bias: vec![(28, -2.0)],
        ..Sampling::default()
    }
}

fn load(compute: Compute) -> Model {
    let path = std::env::var_os("CLLM_TEST_MODEL").expect("CLLM_TEST_MODEL names the model");
    let options = LoadOptions { compute, ..LoadOptions::default() };
    Model::load(&PathBuf::from(path), &options).expect("the default model loads")
}

/// Each prompt with each sampling, and one with filters, a seed each.
fn requests(model: &Model) -> Vec<Request> {
    let all = PROMPTS.iter().flat_map(|text| samplings().map(|sampling| (text, sampling)));
    let all = all.chain([(&PROMPTS[0], filtered())]);
    let request = |(i, (text, sampling)): (usize, (&&str, Sampling))| Request {
        prompt: model.tokenizer.encode(text, false).expect("text"),
        max_new_tokens: 40,
        sampling: Sampling { seed: i as u64, ..sampling },
        ..Request::default()
    };
    all.enumerate().map(request).collect()
}

fn built(name: &str) -> Built {
    let spec: DecoderSpec = name.parse().expect("a decoder");
    spec.build(7, &CostModel::default()).expect("options in range")
}

fn ar_tokens(lm: &mut Llama, request: &Request) -> Vec<Token> {
    let mut sequence = Sequence::new(lm.new_cache());
    ar::generate(lm, &mut sequence, request, &mut (), CHUNK).expect("AR").tokens
}

#[test]
#[ignore = "needs CLLM_TEST_MODEL"]
#[expect(clippy::print_stdout, reason = "a run says how much it has compared")]
fn all_decoders_are_autoregressive_decoding() {
    let (mut answers, mut tokens) = (0, 0);
    // It guesses for itself: right but where rounding to four bits says something else.
    let mut guesser = load(Compute::W4).lm;
    for compute in [Compute::W4, Compute::W8] {
        let mut model = load(compute);
        for request in requests(&model) {
            let expected = ar_tokens(&mut model.lm, &request);
            for name in DECODERS {
                let mut decoder: Box<dyn Decoder + '_> = match built(name) {
                    Built::Decoder(decoder) => decoder,
                    Built::DraftModel { tokens } => {
                        let (vocab, sampling) = (model.lm.vocab_size(), request.sampling.clone());
                        let draft = DraftModel::new(&mut guesser, tokens, vocab, sampling);
                        Box::new(draft.expect("the same vocabulary"))
                    }
                    Built::Ar => panic!("{name} is the baseline"),
                };
                let mut sequence = Sequence::new(model.lm.new_cache());
                let (lm, decoder) = (&mut model.lm, &mut *decoder);
                let answer = stream::generate(lm, &mut sequence, decoder, &request, &mut (), CHUNK)
                    .expect("an answer");
                assert_eq!(answer.tokens, expected, "{name}, {compute:?}, {request:?}");
                (answers, tokens) = (answers + 1, tokens + answer.tokens.len());
            }
        }
    }
    println!("{answers} answers of {tokens} tokens are autoregressive decoding's");
}

#[test]
#[ignore = "needs CLLM_TEST_MODEL"]
#[expect(clippy::print_stdout, reason = "a run says how much it has compared")]
fn company_changes_nothing() {
    let mut model = load(Compute::W4);
    let requests = requests(&model);
    let mut tokens = 0;
    // All requests in one batch, with a decoder each, in turn.
    let decoders = DECODERS.iter().filter_map(|name| match built(name) {
        Built::Decoder(_) => Some(*name),
        _ => None,
    });
    let mut streams = Vec::new();
    for (request, name) in requests.iter().zip(decoders.cycle()) {
        let Built::Decoder(decoder) = built(name) else { unreachable!("filtered") };
        let sequence = Sequence::new(model.lm.new_cache());
        let stream = Stream::new(&model.lm, sequence, decoder, request.clone(), ());
        streams.push(stream.expect("a request that fits"));
    }
    let mut driver = Driver::new(CHUNK);
    while driver.step(&mut model.lm, &mut streams).expect("a forward") > 0 {}
    for (stream, request) in streams.iter().zip(&requests) {
        assert_eq!(stream.tokens(), ar_tokens(&mut model.lm, request), "{request:?}");
        tokens += stream.tokens().len();
    }
    println!("{} answers of {tokens} tokens in one batch are those of AR alone", requests.len());
}
