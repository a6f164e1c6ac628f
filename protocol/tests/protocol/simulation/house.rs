//! A provider of the simulation: the real attempt machine, driven by a scripted
//! engine and by whatever nature the provider has.

use std::collections::BTreeMap;

use infernet_protocol::event::Usage;
use infernet_protocol::inference::{EndReason, TokenId};
use infernet_protocol::job::Millis;
use infernet_protocol::job::provider::{Attempt, Delivery, Effect, Input, LINGER_MS};
use infernet_protocol::payload::{Decline, News, Piece, Product};
use infernet_protocol::seal::Digest;
use infernet_protocol::{event::Timing, job::buyer};
use nostr::EventId;

use super::answer::{Answer, Screen, token};
use super::scenario::{Nature, Provider};

/// How long one place in the queue lasts.
const QUEUE_STEP_MS: u64 = 700;

/// What the engine does next.
#[derive(Debug, Clone, Copy)]
pub enum Play {
    /// One attempt fewer is ahead.
    Move,
    /// Begin.
    Start,
    /// Draw a token, or end.
    Draw,
}

/// What a provider wants the world to do.
#[derive(Default)]
pub struct Outcome {
    /// Messages to the buyer.
    pub sends: Vec<buyer::Input>,
    /// A result that relays keep.
    pub stores: Option<buyer::Input>,
    /// When its engine goes on.
    pub engine: Option<(u64, Play)>,
    /// A message that it sends once it is back.
    pub sends_after: Option<(u64, buyer::Input)>,
}

/// One provider at work on at most one attempt.
pub struct House {
    pub index: usize,
    pub award: EventId,
    script: Provider,
    attempt: Option<Attempt>,
    took: bool,
    deadline: Millis,
    ahead: u32,
    prefix: Vec<TokenId>,
    screen: Screen,
    drawn: u32,
    halted: bool,
    sent: BTreeMap<u32, Piece>,
    kept: Option<buyer::Input>,
}

impl House {
    pub fn new(index: usize, script: &Provider) -> Self {
        Self {
            index,
            award: EventId::all_zeros(),
            script: script.clone(),
            attempt: None,
            took: false,
            deadline: Millis(0),
            ahead: script.ahead,
            prefix: vec![],
            screen: Screen::default(),
            drawn: 0,
            halted: false,
            sent: BTreeMap::new(),
            kept: None,
        }
    }

    pub fn next_deadline(&self) -> Option<Millis> {
        self.attempt.as_ref().map(Attempt::next_deadline)
    }

    /// An award arrives; a repeated one does nothing.
    pub fn award(
        &mut self,
        now: Millis,
        award: EventId,
        prefix: Vec<TokenId>,
        deadline: Millis,
    ) -> Outcome {
        if self.took || self.script.nature == Nature::Mute || now >= deadline {
            return Outcome::default();
        }
        self.took = true;
        self.award = award;
        self.deadline = deadline;
        if self.script.nature == Nature::Declines {
            return self.decline(Decline::Busy);
        }
        self.screen = Screen::after(&prefix);
        self.prefix = prefix;
        let (attempt, effects) = Attempt::accept(now, &award, self.ahead, deadline);
        self.attempt = Some(attempt);
        let mut outcome = self.obey(now, effects);
        outcome.engine = Some(match self.ahead {
            0 => (1, Play::Start),
            _ => (QUEUE_STEP_MS, Play::Move),
        });
        outcome
    }

    /// Something happens to the attempt, if there is one.
    pub fn step(&mut self, now: Millis, input: Input) -> Outcome {
        let Some(attempt) = &mut self.attempt else {
            return Outcome::default();
        };
        let effects = attempt.step(now, input).expect("the engine is in order");
        assert!(attempt.has_ended() || now < self.deadline, "it goes on");
        self.obey(now, effects)
    }

    /// The engine goes on, as far as the provider's nature allows. A stopped one
    /// may speak once more before it hears of it.
    pub fn engine(
        &mut self,
        now: Millis,
        play: Play,
        answer: &Answer,
        seed: u64,
        leaks: bool,
    ) -> Outcome {
        if self.attempt.is_none() || (self.halted && !leaks) {
            return Outcome::default();
        }
        let (input, next) = match play {
            Play::Move => return self.moved(now),
            Play::Start => (Some(Input::Started), Some(Play::Draw)),
            Play::Draw => match self.break_off(now) {
                Some(outcome) => return outcome,
                None => self.draw(answer, seed),
            },
        };
        let mut outcome = match input {
            Some(input) => self.step(now, input),
            None => Outcome::default(),
        };
        outcome.engine = next
            .filter(|_| !self.halted)
            .map(|play| (self.script.token_ms, play));
        outcome
    }

    fn moved(&mut self, now: Millis) -> Outcome {
        self.ahead -= 1;
        let ahead = self.ahead;
        let mut outcome = self.step(now, Input::Moved { ahead });
        outcome.engine = Some(match ahead {
            0 => (QUEUE_STEP_MS, Play::Start),
            _ => (QUEUE_STEP_MS, Play::Move),
        })
        .filter(|_| !self.halted);
        outcome
    }

    /// Those whose nature it is leave in the middle.
    fn break_off(&mut self, now: Millis) -> Option<Outcome> {
        match self.script.nature {
            Nature::Quits { after } if self.drawn >= after => {
                self.attempt = None;
                Some(self.decline(Decline::Closing))
            }
            Nature::Crashes { after } if self.drawn >= after => {
                self.attempt = None;
                Some(Outcome::default())
            }
            Nature::Restarts { after, back_ms } if self.drawn >= after => {
                self.attempt = None;
                let award = self.award;
                Some(Outcome {
                    sends_after: Some((back_ms, buyer::Input::GivenUp { award })),
                    ..Outcome::default()
                })
            }
            Nature::Stalls { after } if self.drawn >= after => Some(Outcome::default()),
            Nature::Breaks { after } if self.drawn >= after => {
                let error = "the device is gone".into();
                Some(self.step(now, Input::Broke { error }))
            }
            _ => None,
        }
    }

    fn draw(&mut self, answer: &Answer, seed: u64) -> (Option<Input>, Option<Play>) {
        let position = self.prefix.len() + self.drawn as usize;
        let nature = self.script.nature;
        let early = matches!(nature, Nature::EndsEarly { after } if self.drawn >= after);
        let honest = answer.tokens.get(position).copied();
        let id = match (nature, honest) {
            _ if early => None,
            (Nature::Overlong, None) => (position == answer.tokens.len()
                && answer.reason == EndReason::Length)
                .then_some(token(seed, position as u32)),
            (Nature::Invents, Some(_)) => Some(token(!seed, position as u32)),
            (_, honest) => honest,
        };
        match id {
            Some(id) => {
                self.drawn += 1;
                let text = self.screen.show(id);
                (Some(Input::Token { id, text }), Some(Play::Draw))
            }
            None => {
                let reason = match early {
                    true => EndReason::Length,
                    false => answer.reason,
                };
                let text = self.screen.flush();
                (Some(Input::Finished { reason, text }), None)
            }
        }
    }

    fn decline(&self, reason: Decline) -> Outcome {
        let award = self.award;
        Outcome {
            sends: vec![buyer::Input::Declined { award, reason }],
            ..Outcome::default()
        }
    }

    fn obey(&mut self, now: Millis, effects: Vec<Effect>) -> Outcome {
        let mut outcome = Outcome::default();
        for effect in effects {
            match effect {
                Effect::Send(news) => outcome.sends.extend(self.told(news)),
                Effect::Halt => {
                    assert!(!self.halted, "the engine is stopped twice");
                    self.halted = true;
                }
                Effect::Deliver(_) if self.script.nature == Nature::CrashesAtTheEnd => {
                    self.attempt = None;
                    return outcome;
                }
                Effect::Deliver(delivery) => {
                    assert!(self.kept.is_none(), "a second result");
                    check_timing(&delivery.timing);
                    let result = self.result(delivery);
                    self.kept = Some(result.clone());
                    outcome.sends.push(result.clone());
                    outcome.stores = Some(result);
                }
                Effect::Redeliver => {
                    let kept = self.kept.clone();
                    outcome.sends.push(kept.expect("there is a result"));
                }
                Effect::Forget => {
                    assert!(now <= self.deadline.plus(LINGER_MS), "it lingers");
                    self.attempt = None;
                }
            }
        }
        outcome
    }

    /// News as the buyer's driver would hand it to its machine.
    fn told(&mut self, news: News) -> Option<buyer::Input> {
        let award = self.award;
        match news {
            News::Accepted { .. } => Some(buyer::Input::Alive {
                award,
                accepted: true,
            }),
            News::Alive { .. } => Some(buyer::Input::Alive {
                award,
                accepted: false,
            }),
            News::Piece(piece) => Some(self.piece(piece)),
            News::Declined { .. }
            | News::Due { .. }
            | News::Refunding
            | News::Payable { .. }
            | News::RefundRefused { .. } => None,
        }
    }

    /// Each number has one piece, however often it is sent.
    fn piece(&mut self, mut piece: Piece) -> buyer::Input {
        let first = self.sent.entry(piece.seq).or_insert_with(|| piece.clone());
        assert_eq!(*first, piece, "a piece has changed");
        if matches!(self.script.nature, Nature::AltersPiece { seq } if seq == piece.seq) {
            piece.digest = Digest::from_bytes([0; 32]);
        }
        buyer::Input::Piece {
            award: self.award,
            piece,
        }
    }

    fn result(&self, delivery: Delivery) -> buyer::Input {
        let award = self.award;
        if self.script.nature == Nature::WrongHash {
            return buyer::Input::BadResult { award };
        }
        let mut tokens = delivery.tokens;
        let mut output_tokens = tokens.len() as u64;
        match self.script.nature {
            Nature::AltersResult => tokens.iter_mut().for_each(|token| *token ^= 1),
            Nature::Miscounts => output_tokens += 1,
            _ => {}
        }
        buyer::Input::Result {
            award,
            result: EventId::from_byte_array([0xee; 32]),
            ended: delivery.ended,
            usage: Usage {
                input_tokens: 9,
                prefix_tokens: self.prefix.len() as u64,
                output_tokens,
            },
            product: Product::TextGeneration {
                text: delivery.text,
                tokens,
            },
        }
    }
}

fn check_timing(timing: &Timing) {
    assert!(timing.queued_ms <= timing.first_token_ms);
    assert!(timing.first_token_ms <= timing.total_ms);
}
