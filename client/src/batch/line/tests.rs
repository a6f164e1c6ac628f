#![allow(clippy::unwrap_used)]

use infernet_protocol::inference::{Prompt, Role};

use super::*;

fn chat(body: &str) -> Result<Line, Flaw> {
    let line = format!(
        r#"{{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{body}}}"#
    );
    Line::read(&line, None)
}

fn generate(line: Line) -> infernet_protocol::payload::Generate {
    match line.work {
        Work::TextGeneration(generate) => generate,
        _ => panic!("it is a chat"),
    }
}

#[test]
fn a_chat_is_read_with_its_parameters() {
    let line = chat(
        r#"{"model":"tiny","messages":[{"role":"developer","content":"Be brief"},
            {"role":"user","content":[{"type":"text","text":"Hel"},{"type":"text","text":"lo"}]}],
            "max_completion_tokens":9,"temperature":0.5,"top_p":0.9,"seed":7,"stop":"x","n":1,"stream":false,
            "user":"me","presence_penalty":0}"#,
    )
    .unwrap();
    assert_eq!(
        (line.custom_id.as_str(), line.model.as_str()),
        ("a", "tiny")
    );
    assert!(line.is_seeded);
    let generate = generate(line);
    let Prompt::Chat(messages) = &generate.prompt else {
        panic!("it is a chat")
    };
    let said: Vec<_> = messages
        .iter()
        .map(|m| (m.role, m.content.as_str()))
        .collect();
    assert_eq!(said, [(Role::System, "Be brief"), (Role::User, "Hello")]);
    assert_eq!((generate.max_tokens, generate.sampling.seed), (9, 7));
    assert_eq!(
        (generate.sampling.temperature, generate.sampling.top_p),
        (0.5, 0.9)
    );
    assert_eq!(generate.stop, ["x"]);
}

#[test]
fn what_a_chat_leaves_out_is_as_openai_has_it() {
    let line = chat(r#"{"model":"tiny","messages":[{"role":"user","content":"Hi"}]}"#).unwrap();
    assert!(!line.is_seeded);
    let generate = generate(line);
    assert_eq!(generate.sampling.temperature, 1.0);
    assert_eq!(generate.max_tokens, crate::DEFAULT_MAX_TOKENS);
}

#[test]
fn texts_to_embed_are_one_or_many() {
    let read = |input: &str| {
        let line = format!(
            r#"{{"custom_id":"a","url":"/v1/embeddings","body":{{"model":"m","input":{input},"encoding_format":"base64"}}}}"#
        );
        let line = Line::read(&line, None).unwrap();
        assert_eq!(line.encoding, Encoding::Base64);
        match line.work {
            Work::Embedding { texts } => texts,
            _ => panic!("these are texts"),
        }
    };
    assert_eq!(read(r#""one""#), ["one"]);
    assert_eq!(read(r#"["one","two"]"#), ["one", "two"]);
}

#[test]
fn a_model_of_the_command_line_stands_for_all() {
    let line = r#"{"custom_id":"a","url":"/v1/embeddings","body":{"input":"x"}}"#;
    assert_eq!(Line::read(line, Some("m")).unwrap().model, "m");
    assert_eq!(Line::read(line, None).err().unwrap().code, "missing_model");
}

#[test]
fn every_flaw_has_its_code_and_the_id_where_there_is_one() {
    let cases = [
        ("{", None, "invalid_json"),
        ("[1]", None, "invalid_json"),
        (
            r#"{"url":"/v1/embeddings","body":{}}"#,
            None,
            "missing_custom_id",
        ),
        (
            r#"{"custom_id":"a","url":"/v1/images","body":{}}"#,
            Some("a"),
            "invalid_url",
        ),
        (r#"{"custom_id":"a","body":{}}"#, Some("a"), "missing_url"),
        (
            r#"{"custom_id":"a","url":"/v1/embeddings"}"#,
            Some("a"),
            "missing_body",
        ),
        (
            r#"{"custom_id":"a","method":"GET","url":"/v1/embeddings","body":{}}"#,
            Some("a"),
            "invalid_method",
        ),
        (
            r#"{"custom_id":"a","url":"/v1/embeddings","body":{"model":"m","input":[1,2]}}"#,
            Some("a"),
            "invalid_request",
        ),
        (
            r#"{"custom_id":"a","url":"/v1/embeddings","body":{"model":"m","input":[]}}"#,
            Some("a"),
            "invalid_request",
        ),
    ];
    for (line, id, code) in cases {
        let flaw = Line::read(line, None).err().unwrap();
        assert_eq!((flaw.custom_id.as_deref(), flaw.code), (id, code), "{line}");
    }
}

#[test]
fn what_would_change_the_answer_and_is_not_known_is_refused() {
    let with = |more: &str| {
        chat(&format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"Hi"}}],{more}}}"#
        ))
    };
    let refused = [
        r#""n":2"#,
        r#""stream":true"#,
        r#""tools":[{}]"#,
        r#""logprobs":true"#,
        r#""presence_penalty":0.5"#,
        r#""response_format":{"type":"json_object"}"#,
        r#""temperature":3"#,
        r#""max_tokens":0"#,
        r#""seed":-1"#,
        r#""unheard_of":1"#,
    ];
    for more in refused {
        assert_eq!(with(more).err().unwrap().code, "invalid_request", "{more}");
    }
    with(r#""tools":[],"response_format":{"type":"text"},"metadata":{"a":"b"}"#).unwrap();
}
