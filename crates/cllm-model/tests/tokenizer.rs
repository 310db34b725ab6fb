//! Token ids and decoded texts against Hugging Face, from a folder and from a GGUF file
//! with the same vocabulary; streams; broken files.

use std::fs;
use std::path::{Path, PathBuf};

use cllm_model::tokenizer::{GgufTables, Tokenizer};
use cllm_model::weights::gguf::Gguf;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

const STYLES: [&str; 6] = ["llama3", "qwen2", "smollm", "gpt2", "tekken", "llama2"];

#[derive(Deserialize)]
struct Golden {
    vocab: usize,
    texts: Vec<TextCase>,
    sequences: Vec<Sequence>,
}

#[derive(Deserialize)]
struct TextCase {
    text: String,
    ids: Vec<u32>,
    special: Vec<u32>,
    decoded: String,
    skipped: String,
}

#[derive(Deserialize)]
struct Sequence {
    ids: Vec<u32>,
    decoded: String,
}

fn goldens() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../goldens/text")
}

fn from_folder(style: &str) -> Tokenizer {
    Tokenizer::from_folder(&goldens().join(style)).unwrap_or_else(|e| panic!("{style}: {e}"))
}

fn from_gguf(style: &str) -> Tokenizer {
    let gguf = Gguf::open(&goldens().join(format!("{style}.gguf"))).expect("a GGUF file");
    let tables = GgufTables::read(&gguf).expect("tokenizer tables");
    Tokenizer::from_gguf(&tables).unwrap_or_else(|e| panic!("{style}: {e}"))
}

/// All that the golden file says, and that the stream gives the decoded text.
fn check(what: &str, tokenizer: &Tokenizer, golden: &Golden) {
    assert_eq!(tokenizer.vocab_size(), golden.vocab, "{what}: vocabulary");
    for case in &golden.texts {
        let ids = |add_special| tokenizer.encode(&case.text, add_special).expect("encodes");
        assert_eq!(ids(false), case.ids, "{what}: {:?}", case.text);
        assert_eq!(ids(true), case.special, "{what}, special: {:?}", case.text);
        assert_eq!(tokenizer.decode(&case.special, false), case.decoded, "{what}: decoded");
        assert_eq!(tokenizer.decode(&case.special, true), case.skipped, "{what}: skipped");
    }
    for Sequence { ids, decoded } in &golden.sequences {
        assert_eq!(&tokenizer.decode(ids, false), decoded, "{what}: {ids:?}");
    }
}

#[test]
fn ids_and_texts_equal_hugging_face() {
    for style in STYLES {
        let text = fs::read_to_string(goldens().join(format!("{style}.json"))).expect("goldens");
        let golden: Golden = serde_json::from_str(&text).expect("goldens");
        check(&format!("{style} folder"), &from_folder(style), &golden);
        check(&format!("{style} gguf"), &from_gguf(style), &golden);
    }
}

#[test]
fn both_sources_name_the_same_special_tokens() {
    for style in STYLES {
        let (folder, gguf) = (from_folder(style), from_gguf(style));
        assert_eq!((folder.bos(), folder.eos()), (gguf.bos(), gguf.eos()), "{style}");
        assert_eq!(folder.end_of_turn_tokens(), gguf.end_of_turn_tokens(), "{style}");
        for token in 0..folder.vocab_size() as u32 {
            assert_eq!(folder.is_special(token), gguf.is_special(token), "{style}: {token}");
            assert_eq!(folder.token_bytes(token), gguf.token_bytes(token), "{style}: {token}");
        }
    }
    let qwen = from_gguf("qwen2");
    let id = |spelling| qwen.token_id(spelling).expect("in the vocabulary");
    assert_eq!(qwen.end_of_turn_tokens(), [id("<|endoftext|>"), id("<|im_end|>")]);
    assert!(qwen.is_special(id("<|im_end|>")) && !qwen.is_special(id("<think>")));
    assert_eq!(qwen.token_text(id("<think>")), "<think>");
    assert_eq!((qwen.token_bytes(u32::MAX), qwen.is_special(u32::MAX)), (&b""[..], false));
}

#[test]
fn a_continued_text_keeps_its_first_space() {
    let tokenizer = from_folder("llama2");
    let the = tokenizer.encode("the", false).expect("encodes");
    let text = |mut stream: cllm_model::TextStream<'_>| {
        the.iter().map(|&token| stream.push(token).to_owned()).collect::<String>()
    };
    assert_eq!(text(tokenizer.stream()), "the");
    assert_eq!(text(tokenizer.stream().continuing()), " the");
}

#[test]
fn byte_tokens_keep_the_valid_characters_of_a_broken_run() {
    let tokenizer = from_folder("llama2");
    let byte = |byte: u8| tokenizer.token_id(&format!("<0x{byte:02X}>")).expect("a byte token");
    let tokens: Vec<u32> = [b'a', 0xFF, 0xC3, 0xA9, 0xE2, 0x82].map(byte).to_vec();
    assert_eq!(tokenizer.decode(&tokens, true), "a\u{FFFD}é\u{FFFD}");
}

#[test]
fn endless_space_is_refused_and_not_mistokenized() {
    let tokenizer = from_folder("gpt2");
    let error = tokenizer.encode(&" ".repeat(1_100_000), false).expect_err("too long");
    assert!(error.to_string().contains("white-space"), "{error}");
    let words = tokenizer.encode(&"a ".repeat(300_000), false).expect("many short runs");
    assert_eq!(words.len(), 300_001);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_stream_gives_the_text_of_the_whole(
        style in prop::sample::select(&STYLES[..]),
        raw in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..40),
    ) {
        let tokenizer = from_gguf(style);
        // Half of the tokens stand for one byte, mostly no UTF-8 on their own.
        let bytes: Vec<u32> = (0..tokenizer.vocab_size() as u32)
            .filter(|&token| tokenizer.token_bytes(token).len() == 1)
            .collect();
        let tokens: Vec<u32> = raw
            .iter()
            .map(|(index, byte)| match byte {
                true => bytes[index.index(bytes.len())],
                false => index.index(tokenizer.vocab_size() + 2) as u32,
            })
            .collect();
        let mut whole: Vec<u8> = Vec::new();
        let mut stream = tokenizer.stream();
        let mut text = String::new();
        for &token in &tokens {
            if !tokenizer.is_special(token) {
                whole.extend_from_slice(tokenizer.token_bytes(token));
            }
            text.push_str(stream.push(token));
        }
        text.push_str(stream.finish());
        prop_assert_eq!(&text, &tokenizer.decode(&tokens, true));
        let mut expected = String::from_utf8_lossy(&whole).into_owned();
        if style == "llama2" && expected.starts_with(' ') {
            expected.remove(0);
        }
        prop_assert_eq!(text, expected);
    }

    #[test]
    fn text_comes_back(style in prop::sample::select(&STYLES[..]), text in "\\PC{0,40}") {
        // Canonical composition changes the text before it is tokenized.
        prop_assume!(style != "qwen2" || text.is_ascii());
        // How SentencePiece writes a space.
        prop_assume!(!text.contains('▁'));
        let tokenizer = from_gguf(style);
        let tokens = tokenizer.encode(&text, true).expect("encodes");
        prop_assert_eq!(tokenizer.decode(&tokens, true), text);
    }
}

/// A copy of a golden folder with `tokenizer.json` altered.
fn altered(style: &str, alter: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let source = goldens().join(style);
    let mut file: Value =
        serde_json::from_slice(&fs::read(source.join("tokenizer.json")).expect("file"))
            .expect("JSON");
    alter(&mut file);
    fs::write(dir.path().join("tokenizer.json"), file.to_string()).expect("written");
    fs::copy(source.join("tokenizer_config.json"), dir.path().join("tokenizer_config.json"))
        .expect("copied");
    dir
}

fn assert_refused(dir: &Path, expected: &str) {
    match Tokenizer::from_folder(dir) {
        Ok(_) => panic!("accepted, expected an error about {expected:?}"),
        Err(error) => assert!(error.to_string().contains(expected), "{expected:?}: {error}"),
    }
}

#[test]
fn broken_folders_are_refused() {
    type Alter = fn(&mut Value);
    let cases: [(Alter, &str); 12] = [
        (|f| f["model"]["vocab"] = json!({}), "vocabulary is empty"),
        (|f| f["model"]["vocab"]["zzz"] = json!(4_000_000_000_u32), "id 4000000000"),
        (|f| f["model"]["vocab"]["zzz"] = json!(-1), "no table of ids"),
        (|f| f["model"]["vocab"]["a"] = json!(5), "same id 5"),
        (|f| f["model"]["merges"][3] = json!(["the", "qqq"]), "which is not in the vocabulary"),
        // A merge longer than every token, which the crate would panic on.
        (
            |f| f["model"] = json!({"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "a"]]}),
            "\"aa\"",
        ),
        (|f| f["model"]["merges"] = json!(["ab"]), "expected two tokens"),
        (|f| f["model"]["type"] = json!("Unigram"), "supported: BPE"),
        (|f| f["model"]["continuing_subword_prefix"] = json!("##"), "continuing_subword_prefix"),
        (|f| f["added_tokens"][0]["id"] = json!(7777), "7777"),
        (
            |f| f["decoder"] = json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
            "decoder",
        ),
        (
            |f| f["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}),
            "tokenizer.json",
        ),
    ];
    for (alter, expected) in cases {
        assert_refused(altered("gpt2", alter).path(), expected);
    }
    let dir = altered("gpt2", |_| {});
    let path = dir.path().join("tokenizer.json");
    let whole = fs::read(&path).expect("file");
    for length in (0..whole.len()).step_by(997) {
        fs::write(&path, &whole[..length]).expect("written");
        assert_refused(dir.path(), "tokenizer.json");
    }
    fs::write(&path, &whole).expect("written");
    fs::write(dir.path().join("tokenizer_config.json"), r#"{"eos_token": "<gone>"}"#)
        .expect("file");
    assert_refused(dir.path(), "<gone>");
    fs::write(dir.path().join("tokenizer_config.json"), "{").expect("file");
    assert_refused(dir.path(), "tokenizer_config.json");
    fs::remove_file(&path).expect("removed");
    assert_refused(dir.path(), "tokenizer.json");
    fs::write(dir.path().join("tokenizer.model"), "").expect("file");
    assert_refused(dir.path(), "convert");
}

#[test]
fn broken_gguf_tables_are_refused() {
    type Alter = for<'a, 'b> fn(&'b mut GgufTables<'a>);
    let cases: [(&str, Alter, &str); 13] = [
        ("gpt2", |t| t.model = "rwkv", "supported: gpt2"),
        ("gpt2", |t| t.pre = Some("gemma9"), "gemma9"),
        ("gpt2", |t| t.tokens.clear(), "0 tokens"),
        ("gpt2", |t| *t = GgufTables { model: "gpt2", ..Default::default() }, "empty"),
        ("gpt2", |t| t.tokens[9] = "a", "twice"),
        ("gpt2", |t| t.merges.clear(), "merges is missing"),
        ("gpt2", |t| t.merges[0] = "qqq www", "not in the vocabulary"),
        ("gpt2", |t| t.merges[0] = "Ġt", "expected two tokens"),
        ("gpt2", |t| t.eos = Some(1 << 30), "eos_token_id is 1073741824"),
        ("gpt2", |t| (t.add_bos, t.bos) = (Some(true), None), "bos_token_id is missing"),
        (
            "gpt2",
            |t| {
                t.token_types.pop();
            },
            "token_type",
        ),
        ("llama2", |t| t.scores.clear(), "scores is missing"),
        ("llama2", |t| t.scores[3] = f32::NAN, "not a number"),
    ];
    for (style, alter, expected) in cases {
        let gguf = Gguf::open(&goldens().join(format!("{style}.gguf"))).expect("a GGUF file");
        let mut tables = GgufTables::read(&gguf).expect("tables");
        alter(&mut tables);
        match Tokenizer::from_gguf(&tables) {
            Ok(_) => panic!("accepted, expected an error about {expected:?}"),
            Err(error) => assert!(error.to_string().contains(expected), "{expected:?}: {error}"),
        }
    }
}
