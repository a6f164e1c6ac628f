#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn word(text: &str) -> Option<&'static str> {
    Message::parse(text).ok().map(|message| message.word())
}

#[test]
fn what_clients_say_is_known_by_its_type() {
    for (text, known) in [
        (r#"["EVENT",{}]"#, "EVENT"),
        (r#" [ "EVENT" , [] , 1 ] "#, "EVENT"),
        (r#"["REQ","s",{}]"#, "REQ"),
        (r#"["REQ","s",{},{},1]"#, "REQ"),
        (r#"["COUNT","s",{}]"#, "COUNT"),
        (r#"["CLOSE","s"]"#, "CLOSE"),
        (r#"["AUTH",{}]"#, "AUTH"),
        (r#"["NEG-OPEN","n",{},"61"]"#, "NEG-OPEN"),
        (r#"["NEG-OPEN","n",{},16,"61"]"#, "NEG-OPEN"),
        (r#"["NEG-MSG","n","61"]"#, "NEG-MSG"),
        (r#"["NEG-CLOSE","n"]"#, "NEG-CLOSE"),
        (r#"["\u0052EQ","s",{}]"#, "REQ"),
    ] {
        assert_eq!(word(text), Some(known), "{text}");
    }
}

#[test]
fn nonsense_is_refused() {
    for text in [
        "",
        "hello",
        "null",
        "{}",
        "[]",
        "[1]",
        r#"["SING","la"]"#,
        r#"["event",{}]"#,
        r#"["EVENT"]"#,
        r#"["AUTH"]"#,
        r#"["REQ"]"#,
        r#"["REQ","s"]"#,
        r#"["REQ",1,{}]"#,
        r#"["REQ","",{}]"#,
        r#"["CLOSE",null]"#,
        r#"["NEG-OPEN","n",{}]"#,
        r#"["NEG-MSG","n"]"#,
        r#"["EVENT",{}"#,
        r#"["EVENT",{}]]"#,
        "[\"REQ\",\"s\",{}]\u{0}",
    ] {
        assert_eq!(word(text), None, "{text}");
    }
    let long = "x".repeat(2 * MAX_SUBSCRIPTION_ID + 1);
    assert_eq!(word(&format!(r#"["REQ","{long}",{{}}]"#)), None);
}

#[test]
fn depth_and_number_are_no_burden() {
    let deep = "[".repeat(60_000) + &"]".repeat(60_000);
    let text = format!(r#"["EVENT",{deep}]"#);
    let Message::Event(json) = Message::parse(&text).unwrap() else {
        panic!("no event");
    };
    assert!(nostr::Event::from_json(json.get()).is_err());
    assert_eq!(claimed_id(json), None);
    let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    assert!(filter(&raw(&deep)).is_err());
    assert!(filter(&raw(&format!(r#"{{"ids":{deep}}}"#))).is_err());

    let many = format!(r#"["REQ","s"{}]"#, ",{}".repeat(30_000));
    let Message::Request(asked) = Message::parse(&many).unwrap() else {
        panic!("no request");
    };
    assert!(asked.too_many && asked.filters.len() == MAX_FILTERS);
    let most = format!(r#"["REQ","s"{}]"#, ",{}".repeat(MAX_FILTERS));
    let Message::Request(asked) = Message::parse(&most).unwrap() else {
        panic!("no request");
    };
    assert!(!asked.too_many && asked.filters.len() == MAX_FILTERS);
}

#[test]
fn a_reason_is_short() {
    let text = format!("[\"{}\"", "ä".repeat(1_000));
    let said = Message::parse(&text).unwrap_err().to_string();
    assert!(said.len() <= MAX_REASON, "{said}");
    let name = "ä".repeat(1_000);
    let json = RawValue::from_string(format!(r#"{{"{name}":1}}"#)).unwrap();
    assert!(filter(&json).unwrap_err().to_string().len() <= MAX_REASON);
}

fn read(text: &str) -> Result<Filter, Unreadable> {
    filter(&RawValue::from_string(text.to_owned()).unwrap())
}

#[test]
fn a_filter_is_read_strictly() {
    let id = "00".repeat(32);
    for text in [
        "{}",
        &format!(r#"{{"ids":["{id}"],"authors":["{id}"],"kinds":[1],"limit":0}}"#),
        r##"{"#p":["x"],"#E":[""],"since":1,"until":2,"search":"x"}"##,
    ] {
        assert!(read(text).is_ok(), "{text}");
    }
    for text in [
        "[]",
        "1",
        "null",
        r#"{"author":[]}"#,
        r##"{"#pp":["x"]}"##,
        r##"{"#1":["x"]}"##,
        r##"{"#ä":["x"]}"##,
        r##"{"#p":"x"}"##,
        r##"{"#p":[1]}"##,
        r#"{"ids":["ab"]}"#,
        r#"{"ids":"ab"}"#,
        r#"{"kinds":[-1]}"#,
        r#"{"kinds":[65536]}"#,
        r#"{"kinds":["1"]}"#,
        r#"{"since":-1}"#,
        r#"{"since":"1"}"#,
        r#"{"until":1.5}"#,
        r#"{"limit":-1}"#,
    ] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn an_empty_list_matches_nothing() {
    for text in [
        r#"{"ids":[]}"#,
        r#"{"authors":[],"kinds":[1]}"#,
        r#"{"kinds":[]}"#,
        r##"{"#p":[]}"##,
    ] {
        assert!(matches_nothing(&read(text).unwrap()), "{text}");
    }
    assert!(!matches_nothing(&read(r#"{"kinds":[1]}"#).unwrap()));
}

#[test]
fn the_refusal_of_an_event_names_it_where_it_can() {
    let id = "ab".repeat(32);
    let claim = |text: &str| claimed_id(&RawValue::from_string(text.to_owned()).unwrap());
    let broken = format!(r#"{{"kind":"x","id":"{id}"}}"#);
    assert_eq!(claim(&broken).unwrap().to_hex(), id);
    assert_eq!(claim(r#"{"id":"ab"}"#), None);
    assert_eq!(claim("[]"), None);
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in any::<String>()) {
        let _ = Message::parse(&text);
    }

    #[test]
    fn any_parts_are_read_without_a_panic(
        word in "EVENT|REQ|COUNT|CLOSE|AUTH|NEG-OPEN|NEG-MSG|NEG-CLOSE",
        parts in proptest::collection::vec(
            prop_oneof![
                Just("{}".to_owned()), Just("\"s\"".to_owned()), Just("[[]]".to_owned()),
                Just("null".to_owned()), Just("1e400".to_owned()), any::<String>(),
                "\\{\"(ids|#p|kinds|since|limit|x)\":(\\[\\]|1|\"a\"|\\[\"a\"\\])\\}",
            ],
            0..25,
        ),
    ) {
        let text = format!("[\"{word}\",{}]", parts.join(","));
        match Message::parse(&text) {
            Ok(Message::Event(json) | Message::Auth(json)) => {
                let _ = (nostr::Event::from_json(json.get()), claimed_id(json));
            }
            Ok(Message::Request(asked) | Message::Count(asked)) => {
                prop_assert!(asked.filters.len() <= MAX_FILTERS);
                for json in asked.filters {
                    let _ = filter(json);
                }
            }
            _ => {}
        }
    }
}
