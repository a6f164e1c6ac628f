//! Strangers, workers and friends over some minutes of a clock that the tests turn.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::options::{AddressLimits, Rate, Share};

fn at(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

fn key(number: u64) -> PublicKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    PublicKey::from_byte_array(bytes)
}

fn work(number: u64, bits: u8) -> Shown {
    Shown {
        id: EventId::from_byte_array(key(number).to_bytes()),
        bits,
    }
}

fn claim(author: u64) -> Claim<'static> {
    Claim {
        author: key(author),
        authenticated: &[],
        address: None,
        bytes: 500,
        is_stored: false,
        work: None,
    }
}

fn accounts() -> Accounts {
    Accounts::new(&Limits::default(), &Work::default())
}

/// A share without work that is bounded in events.
fn free(per_second: u64, burst: u64) -> Share {
    Share {
        events: Rate::new(per_second, burst),
        bytes: Rate::new(0, 0),
    }
}

fn stranger(_: &PublicKey) -> Rank {
    Rank::Unknown
}

/// Judges an event before and after its signature, as a session does.
fn send(accounts: &Accounts, claim: &Claim<'_>, now: Duration) -> Result<(), Refusal> {
    accounts.would(claim, stranger, now)?;
    accounts.charge(claim, stranger, now)
}

/// Uses up the share without work.
fn busy(accounts: &Accounts, now: Duration) {
    let mut keys = 1_000_000..;
    while accounts.work_asked(now) == 0 {
        let junk = claim(keys.next().unwrap());
        send(accounts, &junk, now).unwrap();
    }
}

fn asked(refused: Result<(), Refusal>) -> u8 {
    match refused {
        Err(Refusal::Work(bits)) => bits,
        other => panic!("no work was asked: {other:?}"),
    }
}

#[test]
fn a_flood_without_work_gets_its_share_and_hinders_nobody_who_works() {
    const SECS: u64 = 10;
    let accounts = accounts();
    let mut junk_keys = 1_000_000..;
    let (mut junk, mut newcomers) = (0, 0);
    let honest = 1;
    for millisecond in 0..SECS * 1_000 {
        let now = Duration::from_millis(millisecond);
        for _ in 0..10 {
            let event = claim(junk_keys.next().unwrap());
            junk += u64::from(send(&accounts, &event, now).is_ok());
        }
        if millisecond < 2_000 {
            continue;
        }
        // Each second somebody new comes, who is asked for work at once or let in by luck.
        if millisecond % 1_000 == 0 {
            let newcomer = if newcomers == 0 { honest } else { millisecond };
            if let Err(refused) = send(&accounts, &claim(newcomer), now) {
                let shown = work(newcomer, asked(Err(refused)));
                let later = now + Duration::from_micros(500);
                let event = Claim {
                    work: Some(shown),
                    ..claim(newcomer)
                };
                assert_eq!(send(&accounts, &event, later), Ok(()));
                newcomers += 1;
            }
        }
        // Sixteen jobs at sixty pieces a second.
        if newcomers > 0 && millisecond % 25 != 24 {
            assert_eq!(send(&accounts, &claim(honest), now), Ok(()));
        }
    }
    let work = Work::default();
    let share = work.free.events.burst + work.free.events.per_second * SECS;
    assert!(junk <= share + 1, "{junk} of junk");
    assert!(
        junk > share - 1_000,
        "{junk} of junk: the share is there to be used"
    );
    assert!(newcomers >= 5, "{newcomers}");
    let now = Duration::from_secs(SECS);
    assert_eq!(
        accounts.state().load.price(now),
        16,
        "refused events count nothing"
    );
}

#[test]
fn work_on_one_event_is_enough_for_those_that_follow() {
    let accounts = accounts();
    busy(&accounts, at(1.0));
    assert_eq!(asked(send(&accounts, &claim(1), at(1.0))), 16);
    let with = |bits| Claim {
        work: Some(work(1, bits)),
        ..claim(1)
    };
    assert_eq!(asked(send(&accounts, &with(15), at(1.0))), 16);
    // A glance gives nothing: the signature may be wrong.
    assert_eq!(accounts.would(&with(16), stranger, at(1.0)), Ok(()));
    assert_eq!(asked(send(&accounts, &claim(1), at(1.0))), 16);
    send(&accounts, &with(16), at(1.0)).unwrap();
    for _ in 0..1_000 {
        send(&accounts, &claim(1), at(1.0)).unwrap();
    }
    assert_eq!(
        asked(send(&accounts, &claim(2), at(1.0))),
        16,
        "another key"
    );
}

#[test]
fn standing_ends_and_the_same_work_buys_it_once() {
    let little = Work {
        standing_events: 10,
        standing_secs: 60,
        free: free(1, 1),
        ..Work::default()
    };
    let accounts = Accounts::new(&Limits::default(), &little);
    let with = |number| Claim {
        work: Some(work(number, 16)),
        ..claim(1)
    };
    busy(&accounts, at(1.0));
    send(&accounts, &with(1), at(1.0)).unwrap();
    let followed = (0..100).take_while(|_| send(&accounts, &claim(1), at(1.0)).is_ok());
    assert_eq!(followed.count(), 9, "ten in all");
    assert_eq!(asked(send(&accounts, &with(1), at(1.0))), 16, "spent");
    send(&accounts, &with(2), at(1.0)).unwrap();
    busy(&accounts, at(60.9));
    send(&accounts, &claim(1), at(60.9)).unwrap();
    busy(&accounts, at(61.0));
    assert_eq!(
        asked(send(&accounts, &claim(1), at(61.0))),
        16,
        "its time is over"
    );
}

#[test]
fn a_key_with_standing_pays_for_what_others_signed_on_its_connection() {
    let accounts = accounts();
    busy(&accounts, at(1.0));
    let (identified, poor) = ([key(1)], [key(2)]);
    accounts.identified(key(1), work(1, 16), None, at(1.0));
    accounts.identified(key(2), work(2, 15), None, at(1.0));
    let over = |connection, author| Claim {
        authenticated: connection,
        ..claim(author)
    };
    for throwaway in 100..1_100 {
        send(&accounts, &over(&identified, throwaway), at(1.0)).unwrap();
    }
    assert_eq!(
        asked(send(&accounts, &over(&poor, 1_100), at(1.0))),
        16,
        "too few bits"
    );
    assert_eq!(
        asked(send(&accounts, &claim(100), at(1.0))),
        16,
        "on its own"
    );
    let left = (0..20_000)
        .take_while(|number| send(&accounts, &over(&identified, 2_000 + number), at(1.0)).is_ok());
    let burst = Limits::default().key.events.burst;
    assert_eq!(
        left.count() as u64,
        burst - 1_000,
        "one bucket for them all"
    );
}

#[test]
fn a_key_with_work_is_bounded_by_its_bucket() {
    let accounts = accounts();
    busy(&accounts, at(0.0));
    accounts.identified(key(1), work(1, 16), None, at(0.0));
    let mut taken = 0;
    let mut refused = None;
    for tick in 0..50_000_u32 {
        match send(&accounts, &claim(1), at(f64::from(tick) / 10_000.0)) {
            Ok(()) => taken += 1,
            Err(why) => refused = Some(why),
        }
    }
    assert!((19_000..=20_001).contains(&taken), "{taken} in 5 s");
    let what = "events by your key";
    assert_eq!(refused, Some(Refusal::TooFast { what, secs: 1 }));
    assert_eq!(send(&accounts, &claim(1), at(6.1)), Ok(()));
}

#[test]
fn bytes_are_bounded_like_events() {
    let accounts = accounts();
    busy(&accounts, at(0.0));
    accounts.identified(key(1), work(1, 16), None, at(0.0));
    let large = Claim {
        bytes: 65_536,
        ..claim(1)
    };
    let sent = (0..10_000).take_while(|_| send(&accounts, &large, at(0.0)).is_ok());
    let burst = Limits::default().key.bytes.burst;
    assert_eq!(sent.count() as u64, burst / 65_536);
}

#[test]
fn what_strangers_have_stored_is_bounded() {
    let large = |author| Claim {
        bytes: 60_000,
        is_stored: true,
        ..claim(author)
    };
    // Without work, all of them together.
    let accounts = accounts();
    let sent = (1..1_000).take_while(|author| send(&accounts, &large(*author), at(1.0)).is_ok());
    let burst = Work::default().free.bytes.burst;
    assert_eq!(sent.count() as u64, burst / 60_000);
    assert_eq!(asked(send(&accounts, &large(1), at(1.0))), 16);
    // By work, each key.
    accounts.identified(key(1), work(1, 16), None, at(1.0));
    let sent = (0..2_000).take_while(|_| send(&accounts, &large(1), at(1.0)).is_ok());
    let budget = Work::default().standing_bytes;
    assert_eq!(sent.count() as u64, budget.div_ceil(60_500));
    assert_eq!(asked(send(&accounts, &large(1), at(1.0))), 16);
}

#[test]
fn what_an_address_has_stored_is_bounded_unless_the_operator_lists_the_key() {
    let limits = Limits {
        address: AddressLimits {
            stored_per_hour: 1_000_000,
            ..AddressLimits::default()
        },
        ..Limits::default()
    };
    let accounts = Accounts::new(&limits, &Work::default());
    let from = |is_stored| Claim {
        address: Some("192.0.2.1".parse().unwrap()),
        is_stored,
        ..claim(1)
    };
    let sent = (0..2_000).take_while(|_| send(&accounts, &from(true), at(1.0)).is_ok());
    assert_eq!(sent.count(), 1_000);
    let what = "bytes from your address";
    assert_eq!(
        send(&accounts, &from(true), at(1.0)),
        Err(Refusal::TooFast { what, secs: 4 })
    );
    assert_eq!(
        send(&accounts, &from(false), at(1.0)),
        Ok(()),
        "it passes by"
    );
    let charge = |rank: fn(&PublicKey) -> Rank| accounts.charge(&from(true), rank, at(1.0));
    assert!(charge(|_| Rank::Trusted).is_err());
    assert_eq!(charge(|_| Rank::Listed), Ok(()));
}

#[test]
fn a_stranger_over_its_own_share_is_asked_for_work_while_others_are_not() {
    let accounts = accounts();
    let mut sent = 0;
    let refused = loop {
        match send(&accounts, &claim(1), at(1.0)) {
            Ok(()) => sent += 1,
            refused => break refused,
        }
    };
    assert_eq!((sent, asked(refused)), (2_000, 16));
    assert_eq!(send(&accounts, &claim(2), at(1.0)), Ok(()));
    accounts.identified(key(1), work(1, 16), None, at(1.0));
    assert_eq!(send(&accounts, &claim(1), at(1.0)), Ok(()));
}

#[test]
fn an_address_sends_so_much_and_its_neighbours_go_on() {
    let accounts = accounts();
    let address = |text: &str| Some(text.parse().unwrap());
    let burst = Limits::default().address.events.burst;
    for _ in 0..burst {
        accounts.arrived(address("192.0.2.1"), at(1.0)).unwrap();
    }
    let what = "events from your address";
    let refused = Err(Refusal::TooFast { what, secs: 1 });
    assert_eq!(accounts.arrived(address("192.0.2.1"), at(1.0)), refused);
    assert_eq!(accounts.arrived(address("192.0.2.2"), at(1.0)), Ok(()));
    assert_eq!(accounts.arrived(address("192.0.2.1"), at(1.1)), Ok(()));
    assert_eq!(accounts.asked(address("192.0.2.1"), at(1.1)), Ok(()));
    for _ in 0..2 * burst {
        accounts.arrived(address("127.0.0.1"), at(1.0)).unwrap();
        accounts.arrived(None, at(1.0)).unwrap();
    }
    let strict = Limits {
        count_loopback: true,
        ..Limits::default()
    };
    let strict = Accounts::new(&strict, &Work::default());
    let own = (0..2 * burst).filter(|_| strict.arrived(address("::1"), at(1.0)).is_ok());
    assert_eq!(own.count() as u64, burst);
}

#[test]
fn who_asks_for_what_takes_long_may_ask_less() {
    let accounts = accounts();
    let address = |text: &str| Some(text.parse().unwrap());
    let (slow, quick) = (address("192.0.2.1"), address("192.0.2.2"));
    accounts.took(slow, Duration::from_secs(4), at(1.0));
    accounts.took(quick, Duration::from_micros(999), at(1.0));
    let asks = |of| (0..).find(|_| accounts.asked(of, at(1.0)).is_err());
    assert_eq!((asks(slow), asks(quick)), (Some(1_000), Some(5_000)));
    // However long it took, nobody waits longer than for all that may come at once.
    accounts.took(slow, Duration::from_secs(4_000), at(1.0));
    assert_eq!(accounts.asked(slow, at(11.1)), Ok(()));
}

#[test]
fn forgeries_are_dear_to_their_address() {
    let accounts = accounts();
    let address = Some("192.0.2.1".parse().unwrap());
    let sent = (0..20_000).take_while(|_| {
        let arrived = accounts.arrived(address, at(1.0)).is_ok();
        accounts.forged(address, at(1.0));
        arrived
    });
    let burst = Limits::default().address.events.burst;
    assert_eq!(sent.count() as u64, burst.div_ceil(21));
}

#[test]
fn a_whole_network_of_version_6_does_not_count_as_many() {
    let limits = Limits {
        address: AddressLimits {
            events: Rate::new(100, 500),
            ..AddressLimits::default()
        },
        ..Limits::default()
    };
    let accounts = Accounts::new(&limits, &Work::default());
    let taken = (0..50_000_u128).filter(|number| {
        let (site, subnet) = (number / 256, number % 256);
        let bits = (0x2001_0db8 << 96) | (site << 80) | (subnet << 64);
        let address = std::net::Ipv6Addr::from(bits);
        accounts.arrived(Some(address.into()), at(1.0)).is_ok()
    });
    assert_eq!(taken.count(), 16 * 500, "as one network of 32 bits");
}

#[test]
fn an_address_buys_standing_for_so_many_keys_an_hour() {
    let accounts = accounts();
    busy(&accounts, at(0.0));
    let address = Some("192.0.2.1".parse().unwrap());
    let from = |author, work| Claim {
        address,
        work,
        ..claim(author)
    };
    let most = Limits::default().address.standings_per_hour;
    for number in 1..=most {
        // No more in a second than may without raising the price.
        let now = at(number as f64 / 5.0);
        busy(&accounts, now);
        let shown = Some(work(number, 16));
        send(&accounts, &from(number, shown), now).unwrap();
    }
    let now = at(most as f64 / 5.0 + 0.1);
    busy(&accounts, now);
    for shown in [Some(work(most + 1, 24)), None] {
        let refused = send(&accounts, &from(most + 1, shown), now);
        assert!(
            matches!(
                refused,
                Err(Refusal::TooFast {
                    what: "new keys from your address",
                    ..
                })
            ),
            "{refused:?}: work would not help"
        );
    }
    accounts.identified(key(most + 1), work(most + 1, 24), address, now);
    assert!(send(&accounts, &from(most + 1, None), now).is_err());
    assert_eq!(
        send(&accounts, &from(1, None), now),
        Ok(()),
        "those it has go on"
    );
    let elsewhere = Claim {
        work: Some(work(most + 1, 24)),
        ..claim(most + 1)
    };
    assert_eq!(send(&accounts, &elsewhere, now), Ok(()));
}

#[test]
fn workers_cannot_take_what_is_kept_for_the_trusted() {
    let limits = Limits {
        all: Share {
            events: Rate::new(1_000, 4_000),
            bytes: Rate::new(0, 0),
        },
        ..Limits::default()
    };
    let accounts = Accounts::new(&limits, &Work::default());
    let rank = |of: &PublicKey| match of {
        friend if *friend == key(1) => Rank::Trusted,
        own if *own == key(2) => Rank::Listed,
        _ => Rank::Unknown,
    };
    for number in 10..20 {
        accounts.identified(key(number), work(number, 24), None, at(0.0));
    }
    let mut taken = [0; 3];
    for tick in 0..10_000_u32 {
        let now = at(f64::from(tick) / 1_000.0);
        for number in 10..20 {
            taken[0] += u32::from(accounts.charge(&claim(number), rank, now).is_ok());
        }
        if tick % 5 == 0 {
            taken[1] += u32::from(accounts.charge(&claim(1), rank, now).is_ok());
            taken[2] += u32::from(accounts.charge(&claim(2), rank, now).is_ok());
        }
    }
    assert_eq!(taken[1..], [2_000, 2_000], "the trusted are never refused");
    assert!((8_000..=13_000).contains(&taken[0]), "{taken:?}");
}

#[test]
fn listed_keys_have_no_bound_of_their_own() {
    let accounts = accounts();
    let listed = |_: &PublicKey| Rank::Listed;
    let trusted = |_: &PublicKey| Rank::Trusted;
    let count = |rank: fn(&PublicKey) -> Rank, author| {
        (0..15_000)
            .filter(|_| accounts.charge(&claim(author), rank, at(1.0)).is_ok())
            .count()
    };
    assert_eq!(count(listed, 1), 15_000);
    assert_eq!(count(trusted, 2), 10_000);
}

#[test]
fn without_work_every_key_is_as_good() {
    let off = Work {
        max_bits: 0,
        ..Work::default()
    };
    let accounts = Accounts::new(&Limits::default(), &off);
    for number in 0..30_000 {
        send(&accounts, &claim(number), at(1.0)).unwrap();
    }
    let burst = Limits::default().key.events.burst;
    let accounts = Accounts::new(&Limits::default(), &off);
    let one = (0..20_000).filter(|_| send(&accounts, &claim(1), at(1.0)).is_ok());
    assert_eq!(one.count() as u64, burst);
    let refused = send(&accounts, &claim(1), at(1.0)).unwrap_err();
    assert_eq!(refused.prefix(), "rate-limited");
}

#[test]
fn strangers_take_bounded_memory() {
    let unbounded = Limits {
        stranger: Limits::default().key,
        ..Limits::default()
    };
    let eager = Work {
        free: free(1_000_000, 1_000_000),
        ..Work::default()
    };
    let accounts = Accounts::new(&unbounded, &eager);
    for number in 0..150_000_u64 {
        let now = Duration::from_micros(number * 100);
        let address = std::net::Ipv4Addr::from(number as u32 + 0x0100_0000);
        accounts.arrived(Some(address.into()), now).unwrap();
        let _ = send(&accounts, &claim(number), now);
        accounts.identified(key(number), work(number, 24), None, now);
        let _ = send(&accounts, &claim(number), now);
    }
    let state = accounts.state();
    let sizes = [
        state.networks.len(),
        state.strangers.len(),
        state.known.len(),
        state.earned.len(),
        state.spent.len(),
    ];
    assert!(sizes.iter().all(|size| *size <= REMEMBERED), "{sizes:?}");
    assert!(sizes.iter().all(|size| *size > REMEMBERED / 4), "{sizes:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_events_at_the_same_times_have_the_same_fate(
        steps in prop::collection::vec((0.0_f64..2.0, 0_u64..40, 0_u8..30), 1..400),
    ) {
        let little = Work {
            free: free(2, 5),
            standing_events: 20,
            ..Work::default()
        };
        let pair = [(); 2].map(|()| Accounts::new(&Limits::default(), &little));
        let (mut now, mut free) = (0.0, 0);
        for (number, (pause, author, bits)) in steps.into_iter().enumerate() {
            now += pause;
            let event = Claim {
                work: (bits > 12).then(|| work(number as u64, bits)),
                ..claim(author)
            };
            let fates = pair.each_ref().map(|accounts| send(accounts, &event, at(now)));
            prop_assert_eq!(&fates[0], &fates[1]);
            let mut state = pair[0].state();
            let price = state.load.price(at(now));
            prop_assert!((16..=24).contains(&price));
            prop_assert!(state.load.enough(at(now)) <= price);
            if let Err(Refusal::Work(asked)) = &fates[0] {
                prop_assert!(*asked >= 16);
                prop_assert!(event.work.is_none_or(|shown| shown.bits < *asked));
            }
            let has_standing = state.standing(&event.author, Rank::Unknown, at(now)) != Standing::None;
            drop(state);
            free += u64::from(fates[0].is_ok() && !has_standing && event.work.is_none());
            let share = 5.0 + 2.0 * now + 1.0;
            // The last event of a standing leaves its author without one.
            prop_assert!(free as f64 <= share + number as f64 / 20.0, "{free} by {now} s");
        }
    }
}
