//! What a run of the simulation starts from.

use infernet_protocol::job::Millis;
use infernet_protocol::job::buyer::Mode;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::answer::Answer;

/// Everything that decides a run.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub seed: u64,
    pub answer: Answer,
    pub max_tokens: u32,
    pub mode: Mode,
    pub deadline_ms: u64,
    pub max_attempts: u32,
    pub network: Network,
    pub providers: Vec<Provider>,
    /// When the user has had enough.
    pub stop_after_ms: Option<u64>,
    /// Of a hundred awards, how many cannot be published.
    pub award_failures: u8,
    /// Whether an award may reach its provider before the machine knows its id.
    pub hasty: bool,
}

/// What the network does to messages.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// Of a hundred messages, how many are lost.
    pub loss: u8,
    /// Of a hundred messages, how many arrive twice.
    pub twice: u8,
    /// The longest way; each message takes its own time, so they overtake.
    pub slowest_ms: u64,
}

/// One provider.
#[derive(Debug, Clone)]
pub struct Provider {
    pub nature: Nature,
    pub ahead: u32,
    pub token_ms: u64,
    pub continues: bool,
    pub announced: bool,
    pub bids_after_ms: Option<u64>,
    pub good_enough: bool,
    pub rank: i8,
}

/// How a provider behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    Honest,
    /// Declines at once.
    Declines,
    /// Never says anything.
    Mute,
    /// Accepts, and declines after so many tokens.
    Quits {
        after: u32,
    },
    /// Is gone after so many tokens.
    Crashes {
        after: u32,
    },
    /// Is gone after its last piece, before its result.
    CrashesAtTheEnd,
    /// Says that it is alive, and draws no more tokens.
    Stalls {
        after: u32,
    },
    /// Its engine fails.
    Breaks {
        after: u32,
    },
    /// Is gone, comes back and gives the attempt up.
    Restarts {
        after: u32,
        back_ms: u64,
    },
    /// One of its pieces does not fit its hash.
    AltersPiece {
        seq: u32,
    },
    /// Its result holds other tokens than its pieces.
    AltersResult,
    /// Its result claims more tokens than there are.
    Miscounts,
    /// Its result is not what it commits to.
    WrongHash,
    /// Goes on behind the last token it may draw.
    Overlong,
    /// Ends by length before the length is reached.
    EndsEarly {
        after: u32,
    },
    /// Makes up an answer of its own.
    Invents,
}

impl Nature {
    /// Whether an attempt of its can never end well, however short the answer.
    pub const fn never_completes(self) -> bool {
        matches!(
            self,
            Self::Declines | Self::Mute | Self::CrashesAtTheEnd | Self::Miscounts | Self::WrongHash
        )
    }
}

impl Scenario {
    /// A good network, a short answer that ends by length, announced providers
    /// who are asked in this order.
    pub fn quiet(natures: Vec<Nature>) -> Self {
        let providers = natures
            .into_iter()
            .zip((0..100).rev())
            .map(|(nature, rank)| Provider {
                nature,
                ahead: 0,
                token_ms: 40,
                continues: true,
                announced: true,
                bids_after_ms: None,
                good_enough: false,
                rank,
            })
            .collect();
        Self {
            seed: 7,
            answer: Answer::new(1, 30, 20),
            max_tokens: 20,
            mode: Mode::Direct,
            deadline_ms: 60_000,
            max_attempts: 5,
            network: Network {
                loss: 0,
                twice: 0,
                slowest_ms: 20,
            },
            providers,
            stop_after_ms: None,
            award_failures: 0,
            hasty: false,
        }
    }

    /// When every run begins.
    pub fn start(&self) -> Millis {
        Millis(1_790_000_000_000)
    }

    /// When its job has to be over.
    pub fn deadline(&self) -> Millis {
        self.start().plus(self.deadline_ms)
    }
}

/// Anything that may happen.
pub fn any_scenario() -> impl Strategy<Value = Scenario> {
    let size = (any::<u64>(), 0..60_u32, 1..50_u32);
    let limits = (
        any_mode(),
        prop_oneof![0..2_000_u64, 2_000..60_000_u64],
        1..6_u32,
    );
    let user = (
        option::weighted(0.2, 0..4_000_u64),
        prop_oneof![3 => Just(0_u8), 1 => 1..100_u8],
        any::<bool>(),
    );
    (size, limits, any_network(), vec(any_provider(), 1..6), user).prop_map(
        |(
            (seed, length, max_tokens),
            (mode, deadline_ms, max_attempts),
            network,
            providers,
            user,
        )| {
            Scenario {
                seed,
                answer: Answer::new(seed, length, max_tokens),
                max_tokens,
                mode,
                deadline_ms,
                max_attempts,
                network,
                providers,
                stop_after_ms: user.0,
                award_failures: user.1,
                hasty: user.2,
            }
        },
    )
}

fn any_mode() -> impl Strategy<Value = Mode> {
    let auction = (0..3_000_u64, 1..5_usize).prop_map(|(window_ms, enough_bids)| Mode::Auction {
        window_ms,
        enough_bids,
    });
    prop_oneof![Just(Mode::Direct), auction]
}

fn any_network() -> impl Strategy<Value = Network> {
    let loss = prop_oneof![Just(0_u8), 0..30_u8, 30..100_u8];
    (loss, 0..60_u8, 1..400_u64).prop_map(|(loss, twice, slowest_ms)| Network {
        loss,
        twice,
        slowest_ms,
    })
}

fn any_provider() -> impl Strategy<Value = Provider> {
    let pace = (0..3_u32, prop_oneof![0..5_u64, 5..100_u64]);
    let seen = (
        any::<bool>(),
        option::of(0..2_000_u64),
        proptest::bool::weighted(0.1),
    );
    (
        any_nature(),
        pace,
        proptest::bool::weighted(0.8),
        seen,
        any::<i8>(),
    )
        .prop_map(|(nature, (ahead, token_ms), continues, seen, rank)| {
            let (announced, bids_after_ms, good_enough) = seen;
            Provider {
                nature,
                ahead,
                token_ms,
                continues,
                announced,
                bids_after_ms,
                good_enough,
                rank,
            }
        })
}

fn any_nature() -> impl Strategy<Value = Nature> {
    let after = || 0..40_u32;
    prop_oneof![
        4 => Just(Nature::Honest),
        1 => Just(Nature::Declines),
        1 => Just(Nature::Mute),
        1 => after().prop_map(|after| Nature::Quits { after }),
        3 => after().prop_map(|after| Nature::Crashes { after }),
        2 => Just(Nature::CrashesAtTheEnd),
        1 => after().prop_map(|after| Nature::Stalls { after }),
        2 => after().prop_map(|after| Nature::Breaks { after }),
        1 => (after(), 0..9_000_u64)
            .prop_map(|(after, back_ms)| Nature::Restarts { after, back_ms }),
        1 => (0..10_u32).prop_map(|seq| Nature::AltersPiece { seq }),
        1 => Just(Nature::AltersResult),
        1 => Just(Nature::Miscounts),
        1 => Just(Nature::WrongHash),
        1 => Just(Nature::Overlong),
        1 => after().prop_map(|after| Nature::EndsEarly { after }),
        1 => Just(Nature::Invents),
    ]
}
