//! What is signed arrives as it was, or not at all.

use infernet_protocol::event::{Body, Refusal, Signed, check};
use nostr::{Event, JsonUtil as _, Keys, Kind, Tags, UnsignedEvent};
use proptest::prelude::*;

use crate::generate::{self, fits};
use crate::parties::{NOW, buyer, event, provider, stranger};

/// Signed, sent as text, read again: the same; altered anywhere: refused.
fn travels<B>(body: &B, author: &Keys, at: prop::sample::Index) -> Result<(), TestCaseError>
where
    B: Body + PartialEq + std::fmt::Debug,
{
    prop_assume!(fits(body));
    let event = event(body, author);
    let read = Event::from_json(event.as_json()).unwrap();
    prop_assert_eq!(check(&read), Ok(()));
    let signed = Signed::<B>::verify(read).unwrap();
    prop_assert_eq!(&*signed, body);
    prop_assert_eq!(signed.author(), author.public_key());
    prop_assert_eq!(
        serde_json::to_string(&*signed).unwrap(),
        event.content.clone()
    );
    altered_text_is_refused::<B>(&event, at)?;
    altered_tags_are_refused::<B>(&event, author, at)?;
    other_kinds_are_refused::<B>(&event, author)
}

/// One byte of the event's text is another one.
fn altered_text_is_refused<B>(event: &Event, at: prop::sample::Index) -> Result<(), TestCaseError>
where
    B: Body,
{
    let mut text = event.as_json().into_bytes();
    let at = at.index(text.len());
    text[at] ^= 1;
    let Ok(altered) = Event::from_json(&text) else {
        return Ok(());
    };
    // Hex and escapes have two spellings; what they spell counts.
    prop_assert!(altered == *event || Signed::<B>::verify(altered).is_err());
    Ok(())
}

fn resign(event: &Event, author: &Keys, kind: Kind, tags: Tags) -> Event {
    let content = event.content.clone();
    let unsigned = UnsignedEvent::new(author.public_key(), NOW, kind, tags, content);
    unsigned.sign_with_keys(author).unwrap()
}

/// The author itself leaves a tag out, or says something else in it.
fn altered_tags_are_refused<B: Body>(
    event: &Event,
    author: &Keys,
    at: prop::sample::Index,
) -> Result<(), TestCaseError> {
    let mut tags = event.tags.clone().to_vec();
    let removed = tags.remove(at.index(tags.len()));
    if tags.contains(&removed) {
        return Ok(());
    }
    let name = removed.as_slice()[0].clone();
    let missing = resign(event, author, event.kind, Tags::from_list(tags.clone()));
    prop_assert_eq!(check(&missing), Err(Refusal::Tag(name.clone())));
    if name != "alt" {
        tags.push(nostr::Tag::parse([name.as_str(), "another"]).unwrap());
        let differs = resign(event, author, event.kind, Tags::from_list(tags));
        prop_assert!(Signed::<B>::verify(differs).is_err());
    }
    Ok(())
}

fn other_kinds_are_refused<B: Body>(event: &Event, author: &Keys) -> Result<(), TestCaseError> {
    for kind in infernet_protocol::kinds::ALL
        .into_iter()
        .chain([1, 5050, 8611])
    {
        if kind != B::KIND {
            let other = resign(event, author, Kind::from(kind), event.tags.clone());
            let refusal = Signed::<B>::verify(other).map(|_| ());
            prop_assert_eq!(refusal, Err(Refusal::Kind(kind)));
        }
    }
    Ok(())
}

macro_rules! travels {
    ($($name:ident by $author:ident),+ $(,)?) => {
        proptest! {
            #![proptest_config(crate::cases(64))]
            $(
                #[test]
                fn $name(body in generate::$name(), at in any::<prop::sample::Index>()) {
                    travels(&body, &$author(), at)?;
                }
            )+
        }
    };
}

travels! {
    announcement by provider,
    offer by buyer,
    bid by provider,
    award by buyer,
    auction_award by buyer,
    result by provider,
    receipt by buyer,
    verdict by stranger,
    attestation by stranger,
    cancel by provider,
    aggregator by stranger,
    quote by stranger,
    order by buyer,
    settlement by stranger,
}

#[test]
fn more_tags_and_longer_tags_are_others_business() {
    let body = generate::one(generate::result());
    let event = event(&body, &provider());
    let mut tags = event.tags.clone().to_vec();
    for tag in &mut tags {
        let mut longer = tag.as_slice().to_vec();
        longer.push("wss://hint.example".into());
        *tag = nostr::Tag::parse(longer).unwrap();
    }
    tags.push(nostr::Tag::parse(["client", "another"]).unwrap());
    tags.extend(tags.clone());
    let hinted = resign(&event, &provider(), event.kind, Tags::from_list(tags));
    assert_eq!(check(&hinted), Ok(()));
}
