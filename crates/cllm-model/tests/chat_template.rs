//! Rendered conversations against transformers; where templates are found; broken ones.

use std::fs;
use std::path::PathBuf;

use cllm_model::ModelError;
use cllm_model::chat::{ChatTemplate, Clock, Message};
use cllm_model::tokenizer::GgufTables;
use cllm_model::weights::gguf::Gguf;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Goldens {
    now: String,
    bos: String,
    eos: String,
    templates: Vec<Golden>,
}

#[derive(Deserialize)]
struct Golden {
    name: String,
    source: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    messages: Vec<Message>,
    add_generation_prompt: bool,
    kwargs: Map<String, Value>,
    text: Option<String>,
    error: Option<String>,
    assistant: Option<Vec<[usize; 2]>>,
}

fn goldens() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../goldens/text")
}

fn check(template: &ChatTemplate, name: &str, case: &Case) {
    let rendered = template.render_spans(&case.messages, case.add_generation_prompt, &case.kwargs);
    match (&case.text, &case.error, rendered) {
        (Some(text), None, Ok(rendered)) => {
            assert_eq!(&rendered.text, text, "{name}");
            let spans: Vec<[usize; 2]> =
                rendered.assistant.iter().map(|span| [span.start, span.end]).collect();
            assert_eq!(Some(spans), case.assistant, "{name}: assistant spans");
        }
        (None, Some(expected), Err(error)) => {
            assert!(error.to_string().contains(expected), "{name}: {expected:?}: {error}");
        }
        (text, expected, rendered) => {
            panic!("{name}: expected {text:?} or error {expected:?}, got {rendered:?}")
        }
    }
}

#[test]
fn texts_equal_transformers() {
    let file = fs::read_to_string(goldens().join("templates.json")).expect("goldens");
    let goldens: Goldens = serde_json::from_str(&file).expect("goldens");
    let clock = Clock::Fixed(goldens.now.parse().expect("a time"));
    for golden in &goldens.templates {
        let template = ChatTemplate::new(&golden.source, Some(&goldens.bos), Some(&goldens.eos))
            .unwrap_or_else(|error| panic!("{}: {error}", golden.name))
            .with_clock(clock);
        for (index, case) in golden.cases.iter().enumerate() {
            check(&template, &format!("{} {index}", golden.name), case);
        }
    }
}

fn hello() -> Vec<Message> {
    vec![Message::new("user", "Hello")]
}

fn render(template: &ChatTemplate, extra: Value) -> Result<String, ModelError> {
    template.render(&hello(), false, extra.as_object().expect("an object"))
}

#[test]
fn templates_are_found_where_transformers_keeps_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
    let rendered = |extra| {
        let template = ChatTemplate::from_folder(dir.path()).expect("a template");
        render(&template, extra).expect("renders")
    };

    let none = ChatTemplate::from_folder(dir.path()).expect("no template is no error");
    assert!(!none.exists());
    let error = render(&none, json!({})).expect_err("nothing to render with").to_string();
    assert!(error.contains("no chat template") && error.contains("prompt"), "{error}");

    write("chat_template.json", r#"{"chat_template": "old {{ messages[0].content }}"}"#);
    assert_eq!(rendered(json!({})), "old Hello");
    write(
        "tokenizer_config.json",
        r#"{"chat_template": "config {{ bos_token }}{{ pad_token }}", "bos_token": {"content": "<b>"}}"#,
    );
    write("special_tokens_map.json", r#"{"bos_token": "<other>", "pad_token": "<p>"}"#);
    assert_eq!(rendered(json!({})), "config <b><p>");
    write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]}"#,
    );
    assert_eq!(rendered(json!({})), "plain");
    assert_eq!(rendered(json!({"tools": []})), "tools");
    write("chat_template.jinja", "file");
    assert_eq!(rendered(json!({})), "file");
    assert_eq!(rendered(json!({"tools": [{}]})), "file");
    fs::create_dir(dir.path().join("additional_chat_templates")).expect("a folder");
    write("additional_chat_templates/tool_use.jinja", "more");
    assert_eq!(rendered(json!({"tools": [{}]})), "more");

    write("chat_template.jinja", "{% if %}");
    let error = ChatTemplate::from_folder(dir.path()).err().expect("broken").to_string();
    assert!(error.contains("not valid") && error.contains("default:1"), "{error}");
    fs::remove_file(dir.path().join("chat_template.jinja")).expect("removed");
    write("tokenizer_config.json", r#"{"chat_template": [{"name": "rag", "template": ""}]}"#);
    fs::remove_dir_all(dir.path().join("additional_chat_templates")).expect("removed");
    let only_rag = ChatTemplate::from_folder(dir.path()).expect("a template");
    let error = render(&only_rag, json!({})).expect_err("no default").to_string();
    assert!(error.contains("only: rag"), "{error}");
    write("tokenizer_config.json", r#"{"chat_template": 3}"#);
    let error = ChatTemplate::from_folder(dir.path()).err().expect("broken").to_string();
    assert!(
        error.contains("tokenizer_config.json") && error.contains("expected a string"),
        "{error}"
    );
}

#[test]
fn gguf_files_carry_their_template() {
    let gguf = Gguf::open(&goldens().join("smollm.gguf")).expect("a GGUF file");
    let tables = GgufTables::read(&gguf).expect("tables");
    let template = ChatTemplate::from_gguf(&tables).expect("a template");
    assert_eq!(render(&template, json!({})).expect("renders"), "<|im_start|>Hello<|im_end|>");
    let bare = ChatTemplate::from_gguf(&GgufTables::default()).expect("no template is no error");
    assert!(!bare.exists());
}

#[test]
fn bad_templates_and_conversations_are_refused() {
    let check = |source: &str, expected: &str| {
        let rendered =
            ChatTemplate::new(source, None, None).and_then(|template| render(&template, json!({})));
        let error = rendered.expect_err(source).to_string();
        assert!(error.contains(expected), "{source}: {expected:?}: {error}");
    };
    check("{% for %}", "not valid");
    check("{% generation %}", "not valid");
    check("{{ messages[0].content.frobnicate() }}", "frobnicate");
    check("{{ nothing.attribute }}", "undefined");
    check("{{ raise_exception('Only one system message!') }}", "Only one system message!");
    check("{{ strftime_now('%é') }}", "strftime_now");
    check("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "recursion");
    check(
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}",
        "fuel",
    );
    check("{{ messages | tojson(indent=[]) }}", "indent");

    let template = ChatTemplate::new(
        "{% generation %}{{ messages[0].content }}{% endgeneration %}",
        None,
        None,
    )
    .expect("a template");
    let odd = [Message::new("user", "a\u{FDD0}b")];
    assert_eq!(template.render(&odd, false, &Map::new()).expect("renders"), "a\u{FDD0}b");
    assert!(template.render_spans(&odd, false, &Map::new()).is_err());
}
