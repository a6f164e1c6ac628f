//! What is said to whom: each refusal by what causes it, and how it begins.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use infernet_protocol::bounds::MAX_EVENT_BYTES;
use infernet_protocol::kinds;
use nostr::{EventBuilder, EventId, JsonUtil as _, Keys, Tag};

use super::*;
use crate::lists::Change;
use crate::options::{Rate, Work};

struct Relay {
    admission: Admission,
    lists: Arc<Lists>,
}

fn relay(set: impl FnOnce(&mut Options)) -> Relay {
    let mut options = Options::default();
    set(&mut options);
    let lists = Arc::new(Lists::configured(options.lists.clone()));
    Relay {
        admission: Admission::new(&options, lists.clone()),
        lists,
    }
}

fn client(authenticated: &[PublicKey]) -> Origin<'_> {
    Origin {
        address: Some("192.0.2.1".parse().unwrap()),
        authenticated,
        source: Source::Client,
    }
}

fn peer(source: Source) -> Origin<'static> {
    Origin {
        address: None,
        authenticated: &[],
        source,
    }
}

impl Relay {
    fn judge(&self, event: &Event, origin: &Origin<'_>) -> Result<(), Refusal> {
        self.admission.arrived(origin)?;
        self.admission.glance(event, origin)?;
        self.admission.examine(event, origin)?;
        self.admission.admitted(event);
        Ok(())
    }

    fn change(&self, change: Change) {
        self.lists.change(change).unwrap();
    }

    #[track_caller]
    fn takes(&self, event: &Event) {
        assert_eq!(self.judge(event, &client(&[])), Ok(()));
    }

    #[track_caller]
    fn refuses(&self, event: &Event, said: &str) {
        self.refuses_from(event, &client(&[]), said);
    }

    #[track_caller]
    fn refuses_from(&self, event: &Event, origin: &Origin<'_>, said: &str) {
        let refusal = self.judge(event, origin).unwrap_err();
        let words = refusal.to_string();
        assert!(words.starts_with(said), "{words}");
        assert!(
            words.starts_with(&format!("{}: ", refusal.prefix())),
            "{words}"
        );
    }
}

fn event(keys: &Keys, kind: u16, tags: impl IntoIterator<Item = Tag>) -> Event {
    let event = EventBuilder::new(Kind::from(kind), "").tags(tags);
    event.sign_with_keys(keys).unwrap()
}

fn profile(keys: &Keys) -> Event {
    event(keys, 0, [])
}

fn worked(keys: &Keys, kind: Kind, bits: u8) -> Event {
    let event = EventBuilder::new(kind, "").pow(bits);
    event.sign_with_keys(keys).unwrap()
}

fn tag(values: &[&str]) -> Tag {
    Tag::parse(values.iter().copied()).unwrap()
}

/// An event of the examples of the market's documents.
fn example(name: &str) -> Event {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nips/examples");
    Event::from_json(fs::read_to_string(folder.join(name)).unwrap()).unwrap()
}

#[test]
fn rules_for_every_event() {
    let keys = Keys::generate();
    let now = clock::now();
    let mut later = EventBuilder::new(Kind::Metadata, "");
    later = later.custom_created_at(now + MAX_AHEAD_SECS + 60);
    let large = EventBuilder::new(Kind::Metadata, "x".repeat(MAX_EVENT_BYTES));
    let past = (now - 10).to_string();
    let long = "d".repeat(MAX_IDENTIFIER_BYTES + 1);
    let address = format!("38500:{}:{long}", keys.public_key());
    let relay = relay(|_| {});
    for (event, said) in [
        (
            later.sign_with_keys(&keys).unwrap(),
            "invalid: created_at lies 9",
        ),
        (
            large.sign_with_keys(&keys).unwrap(),
            "invalid: this event has 6",
        ),
        (
            event(&keys, 0, [tag(&["expiration", &past])]),
            "invalid: this event expired at",
        ),
        (
            event(&keys, 8603, [tag(&["expiration", "9999999999"])]),
            "invalid: kind 8603 is evidence",
        ),
        (
            event(&keys, 31990, [tag(&["d", &long])]),
            "invalid: the identifier (d)",
        ),
        (
            event(&keys, 5, [tag(&["a", &address])]),
            "invalid: the identifier (d)",
        ),
        (event(&keys, 1, []), "blocked: kind 1 is not the market's"),
        (
            event(&keys, 20_001, []),
            "blocked: kind 20001 is not the market's",
        ),
    ] {
        relay.refuses(&event, said);
        for source in [Source::Sync, Source::Import] {
            relay.refuses_from(&event, &peer(source), said);
        }
    }
    for kind in kinds::ALL {
        relay.refuses(&event(&keys, kind, []), &format!("invalid: kind {kind}: "));
    }
    for kind in COMPANIONS {
        relay.takes(&event(&keys, kind, [tag(&["d", &long[1..]])]));
    }
}

#[test]
fn the_operator_decides_which_kinds_come_in() {
    let keys = Keys::generate();
    let general = relay(|options| options.general = true);
    general.takes(&event(&keys, 1, []));
    general.change(Change::DisallowKind(Kind::TextNote));
    general.refuses(
        &event(&keys, 1, []),
        "blocked: this relay takes no events of kind 1",
    );
    let market = relay(|_| {});
    market.change(Change::AllowKind(Kind::TextNote));
    market.change(Change::DisallowKind(Kind::Metadata));
    market.takes(&event(&keys, 1, []));
    market.refuses(
        &profile(&keys),
        "blocked: this relay takes no events of kind 0",
    );
}

#[test]
fn who_and_what_is_banned_stays_out_at_once() {
    let (bad, good) = (Keys::generate(), Keys::generate());
    let relay = relay(|_| {});
    let banned = profile(&good);
    relay.takes(&profile(&bad));
    relay.change(Change::BanKey(bad.public_key(), String::new()));
    relay.change(Change::BanEvent(banned.id, String::new()));
    let said = "blocked: the operator of this relay has banned this key";
    relay.refuses(&profile(&bad), said);
    relay.refuses_from(&profile(&bad), &peer(Source::Sync), said);
    relay.refuses_from(&event(&good, 5, []), &client(&[bad.public_key()]), said);
    relay.refuses(
        &banned,
        "blocked: the operator of this relay has banned this event",
    );
    relay.takes(&event(&good, 5, []));
    relay.change(Change::BlockAddress(
        "192.0.2.1".parse().unwrap(),
        String::new(),
    ));
    let said = "blocked: the operator of this relay has blocked your address";
    relay.refuses(&event(&good, 5, []), said);
    let refused = relay.admission.may_connect("192.0.2.1".parse().unwrap());
    assert_eq!(refused.unwrap_err().to_string(), said);
    let refused = relay.admission.asked(&client(&[]));
    assert_eq!(refused.unwrap_err().to_string(), said);
}

#[test]
fn a_followed_ban_holds_for_offers_of_work_and_not_for_evidence() {
    let judge = Keys::generate();
    let relay = relay(|options| options.follow_bans = vec![judge.public_key()]);
    let (announcement, receipt) = (example("announcement.json"), example("receipt.json"));
    let cheats = [announcement.pubkey, receipt.pubkey].map(Tag::public_key);
    // The examples are of another time; only what is said of the author matters here.
    relay
        .judge(&event(&judge, 10_000, cheats), &client(&[]))
        .unwrap();
    let said = format!("blocked: your key is banned by {}", judge.public_key());
    let refused = relay.admission.examine(&announcement, &client(&[]));
    assert!(refused.unwrap_err().to_string().starts_with(&said));
    assert_eq!(relay.admission.examine(&receipt, &client(&[])), Ok(()));
}

#[test]
fn a_protected_event_comes_from_its_author_alone() {
    let (author, other) = (Keys::generate(), Keys::generate());
    let protected = event(&author, 0, [tag(&["-"])]);
    let relay = relay(|_| {});
    relay.refuses(
        &protected,
        "auth-required: this event is its author's alone",
    );
    let said = "restricted: this event is its author's alone";
    relay.refuses_from(&protected, &client(&[other.public_key()]), said);
    relay.refuses_from(&protected, &peer(Source::Sync), said);
    let both = [other.public_key(), author.public_key()];
    assert_eq!(relay.judge(&protected, &client(&both)), Ok(()));
}

#[test]
fn who_may_write() {
    let (known, other, operator) = (Keys::generate(), Keys::generate(), Keys::generate());
    let said_first = "auth-required: identify yourself to write here";
    let identified = relay(|options| options.auth.write = Access::Identified);
    identified.refuses(&profile(&other), said_first);
    let sent_by = [other.public_key()];
    assert_eq!(
        identified.judge(&profile(&known), &client(&sent_by)),
        Ok(())
    );
    assert_eq!(
        identified.judge(&profile(&other), &peer(Source::Sync)),
        Ok(())
    );

    let listed = relay(|options| {
        options.auth.write = Access::Listed;
        options.admins = vec![operator.public_key()];
    });
    listed.change(Change::AllowKey(known.public_key(), String::new()));
    listed.refuses(&profile(&other), said_first);
    let said = "restricted: your key is not on the list of those who may write";
    listed.refuses_from(&profile(&other), &client(&sent_by), said);
    listed.takes(&profile(&known));
    listed.takes(&profile(&operator));
    let sent_by = [known.public_key()];
    assert_eq!(listed.judge(&profile(&other), &client(&sent_by)), Ok(()));
}

#[test]
fn who_may_read() {
    let (known, other) = (Keys::generate().public_key(), Keys::generate().public_key());
    let ask = |relay: &Relay, keys: &[PublicKey]| {
        let asked = relay.admission.may_ask(&[Filter::new()], &client(keys));
        asked.map_err(|refused| refused.to_string())
    };
    let refused = |said: &str| Err(said.to_owned());
    assert_eq!(ask(&relay(|_| {}), &[]), Ok(()));
    let identified = relay(|options| options.auth.read = Access::Identified);
    let first = "auth-required: identify yourself to read here";
    assert_eq!(ask(&identified, &[]), refused(first));
    assert_eq!(ask(&identified, &[other]), Ok(()));
    identified.change(Change::BanKey(other, String::new()));
    let banned = "blocked: the operator of this relay has banned this key";
    assert_eq!(ask(&identified, &[other]), refused(banned));
    let listed = relay(|options| {
        options.auth.read = Access::Listed;
        options.lists.allow = vec![known];
    });
    let unlisted = "restricted: your key is not on the list of those who may read here";
    assert_eq!(ask(&listed, &[]), refused(first));
    assert_eq!(ask(&listed, &[other]), refused(unlisted));
    assert_eq!(ask(&listed, &[known]), Ok(()));
}

#[test]
fn private_kinds_are_for_those_whom_they_concern() {
    let relay = relay(|_| {});
    let [from, to, other] = [(); 3].map(|()| Keys::generate());
    let [from_key, to_key, other_key] = [&from, &to, &other].map(Keys::public_key);
    let message = event(&from, 4, [Tag::public_key(to_key)]);
    for (keys, sees) in [
        (vec![], false),
        (vec![other_key], false),
        (vec![other_key, to_key], true),
        (vec![from_key], true),
    ] {
        let origin = client(&keys);
        assert_eq!(relay.admission.may_see(&message, &origin), sees, "{keys:?}");
        assert!(relay.admission.may_see(&profile(&from), &origin));
    }

    let private = || Filter::new().kinds([Kind::GiftWrap]);
    let auth = "auth-required: kind 1059 is answered only to those whom it concerns";
    let restricted = "restricted: kind 1059 is answered only to those whom it concerns";
    for (filter, keys, said) in [
        (private(), vec![], Some(auth)),
        (private(), vec![to_key], None),
        (private().pubkey(to_key), vec![], Some(auth)),
        (private().pubkey(to_key), vec![to_key], None),
        (private().pubkey(to_key), vec![other_key], Some(restricted)),
        (private().pubkey(to_key), vec![other_key, to_key], None),
        (private().author(from_key), vec![from_key], None),
        (
            private().author(from_key),
            vec![other_key],
            Some(restricted),
        ),
        (
            private().author(from_key).pubkey(to_key),
            vec![to_key],
            None,
        ),
        // What else is asked for is answered.
        (private().kind(Kind::Metadata), vec![], None),
        (Filter::new(), vec![], None),
        (
            Filter::new().kind(Kind::from(kinds::PROGRESS)),
            vec![],
            None,
        ),
    ] {
        let asked = relay.admission.may_ask(&[filter], &client(&keys));
        let words = asked.err().map(|refused| refused.to_string());
        match (words.as_deref(), said) {
            (Some(words), Some(said)) => assert!(words.starts_with(said), "{words}"),
            (words, said) => assert_eq!(words, said),
        }
    }
    let filters = [Filter::new(), private()];
    assert!(relay.admission.may_ask(&filters, &client(&[])).is_err());
}

fn always(bits: u8) -> Relay {
    relay(|options| {
        options.work = Work {
            min_bits: bits,
            ..Work::default()
        };
    })
}

#[test]
fn work_on_an_event_or_on_an_identification_gives_standing() {
    let relay = always(8);
    let [direct, identified, lazy] = [(); 3].map(|()| Keys::generate());
    let said = "pow: 8 bits of work needed (NIP-13), on this event or on your AUTH event";
    relay.refuses(&profile(&direct), said);
    assert_eq!(relay.admission.work_asked(), 8);
    relay.takes(&worked(&direct, Kind::Metadata, 8));
    relay.takes(&profile(&direct));

    for (keys, bits) in [(&identified, 9), (&lazy, 7)] {
        let keys_known = [keys.public_key()];
        let auth = worked(keys, Kind::Authentication, bits);
        relay.admission.identified(&auth, &client(&keys_known));
    }
    let on = [identified.public_key()];
    assert_eq!(
        relay.judge(&profile(&Keys::generate()), &client(&on)),
        Ok(())
    );
    relay.refuses_from(&profile(&lazy), &client(&[lazy.public_key()]), said);
    for source in [Source::Sync, Source::Import] {
        assert_eq!(relay.judge(&profile(&lazy), &peer(source)), Ok(()));
    }
}

#[test]
fn work_counts_as_committed_and_not_for_long() {
    let relay = always(8);
    let keys = Keys::generate();
    let luck = (0_u64..).map(|nonce| {
        let tags = [tag(&["nonce", &nonce.to_string(), "2"])];
        event(&keys, 0, tags)
    });
    let lucky = |event: &Event| nip13::get_leading_zero_bits(event.id) >= 8;
    relay.refuses(&luck.clone().find(lucky).unwrap(), "pow: 8 bits");
    let boast = event(&keys, 0, [tag(&["nonce", "1", "255"])]);
    relay.refuses(&boast, "pow: 8 bits");
    let saved = EventBuilder::new(Kind::Metadata, "").pow(8);
    let saved = saved.custom_created_at(clock::now() - 2 * WORK_LASTS_SECS);
    relay.refuses(&saved.sign_with_keys(&keys).unwrap(), "pow: 8 bits");
}

#[test]
fn a_forged_event_costs_its_victim_nothing() {
    let relay = always(8);
    let victim = Keys::generate();
    let forged = worked(&victim, Kind::Metadata, 8);
    // The signature is found wrong after this, so that nothing follows.
    assert_eq!(relay.admission.glance(&forged, &client(&[])), Ok(()));
    relay.refuses(&profile(&victim), "pow: 8 bits");
    let mut none = relay;
    none.admission = always(0).admission;
    for _ in 0..10_000 {
        none.admission
            .glance(&profile_of(&victim), &client(&[]))
            .unwrap();
    }
    none.takes(&profile(&victim));
}

fn profile_of(keys: &Keys) -> Event {
    let mut event = profile(keys);
    event.id = EventId::all_zeros();
    event
}

#[test]
fn listed_keys_and_partners_of_trusted_aggregators_need_no_work() {
    let receipt = example("receipt.json");
    let aggregator = receipt.pubkey;
    let partner = *receipt.tags.public_keys().next().unwrap();
    let rank = |relay: &Relay, key: &PublicKey| relay.admission.rank(key);
    let distrustful = relay(|_| {});
    distrustful.admission.admitted(&receipt);
    assert_eq!(rank(&distrustful, &partner), Rank::Unknown);

    let trusting = relay(|options| options.trust = vec![aggregator]);
    assert_eq!(rank(&trusting, &aggregator), Rank::Listed);
    assert_eq!(rank(&trusting, &partner), Rank::Unknown);
    trusting.admission.admitted(&receipt);
    assert_eq!(rank(&trusting, &partner), Rank::Trusted);
    let other = Keys::generate();
    assert_eq!(rank(&trusting, &other.public_key()), Rank::Unknown);
    trusting.change(Change::AllowKey(other.public_key(), String::new()));
    assert_eq!(rank(&trusting, &other.public_key()), Rank::Listed);

    let settlement = example("settlement.json");
    let buyer = *settlement.tags.public_keys().next().unwrap();
    let trusting = relay(|options| options.trust = vec![settlement.pubkey]);
    trusting
        .admission
        .admitted(&example("settlement-closing.json"));
    assert_eq!(
        rank(&trusting, &buyer),
        Rank::Unknown,
        "it says of no payment"
    );
    trusting.admission.admitted(&settlement);
    assert_eq!(rank(&trusting, &buyer), Rank::Trusted);
}

#[test]
fn addresses_have_their_limits() {
    let relay = relay(|options| {
        options.limits.address.connections = 2;
        options.limits.address.events = Rate::new(1, 3);
        options.limits.address.requests = Rate::new(1, 3);
    });
    let keys = Keys::generate();
    // What is refused for another reason counts as well.
    for _ in 0..3 {
        relay.refuses(&event(&keys, 1, []), "blocked: ");
    }
    let said = "rate-limited: too many events from your address; again in ";
    relay.refuses(&profile(&keys), said);
    assert_eq!(relay.judge(&profile(&keys), &peer(Source::Sync)), Ok(()));
    let mut asked = (0..5).map(|_| relay.admission.asked(&client(&[])));
    let refused = asked.find_map(Result::err).unwrap().to_string();
    assert!(refused.starts_with("rate-limited: too many requests from your address; again in "));
    let connect = |address: &str| relay.admission.may_connect(address.parse().unwrap());
    let places: Vec<_> = (0..3).map(|_| connect("192.0.2.1")).collect();
    let refused = places.last().unwrap().as_ref().unwrap_err();
    assert_eq!(
        refused.to_string(),
        "rate-limited: your address has 2 connections open; close one first"
    );
    let own: Vec<_> = (0..9).map(|_| connect("127.0.0.1")).collect();
    assert!(own.iter().all(Result::is_ok));
}

#[test]
fn the_store_s_refusals_begin_with_a_word_too() {
    for (refusal, said) in [
        (
            Refusal::Superseded(EventId::all_zeros()),
            "invalid: a newer version",
        ),
        (
            Refusal::DeletesForeign("x".to_owned()),
            "invalid: x is not yours",
        ),
        (
            Refusal::DeletesEvidence(EventId::all_zeros(), Kind::from(8603)),
            "blocked: 0000",
        ),
        (Refusal::Deleted, "blocked: its author has deleted"),
    ] {
        let words = refusal.to_string();
        assert!(words.starts_with(said), "{words}");
        assert!(
            words.starts_with(&format!("{}: ", refusal.prefix())),
            "{words}"
        );
    }
}

/// What a refusal under load costs, beside the signature that is not checked. Of optimised code: run it by
/// `cargo test --release -p infernet-relay --lib -- --ignored --nocapture a_glance`.
#[test]
#[ignore = "measures time"]
fn a_glance_takes_a_few_microseconds() {
    const EVENTS: u32 = 100_000;
    let relay = always(16);
    let events: Vec<Event> = (0..100).map(|_| profile(&Keys::generate())).collect();
    let time = |judge: &dyn Fn(&Event)| {
        let began = std::time::Instant::now();
        (0..EVENTS).for_each(|number| judge(&events[number as usize % events.len()]));
        began.elapsed() / EVENTS
    };
    let glance = time(&|event| {
        assert!(
            relay
                .admission
                .glance(event, &peer(Source::Client))
                .is_err()
        );
    });
    let id = time(&|event| assert!(event.verify_id()));
    let began = std::time::Instant::now();
    (0..1_000).for_each(|number| assert!(events[number % events.len()].verify_signature()));
    let signature = began.elapsed() / 1_000;
    eprintln!("a glance takes {glance:?}, the id {id:?}, a signature {signature:?}");
    assert!(glance * 5 < signature);
}
