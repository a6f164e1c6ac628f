//! One attempt as its provider lives it.

use nostr::EventId;

use super::{Millis, Unexpected};
use crate::bounds::{MAX_PAYLOAD_BYTES, MAX_REASON_BYTES, MAX_STOP_BYTES};
use crate::event::Timing;
use crate::inference::{EndReason, TokenId};
use crate::payload::{Chain, News, Piece};

/// How often a buyer hears from a provider that has nothing to show. A buyer
/// gives up after [`super::buyer::Patience::silence_ms`], several times this.
pub const ALIVE_EVERY_MS: u64 = 1_000;

/// How long tokens are gathered into one piece. An event costs both sides a
/// signature and an encryption, and nobody reads faster.
pub const PIECE_EVERY_MS: u64 = 30;

/// Bytes of text after which a piece is sent without waiting.
const FULL_PIECE_BYTES: usize = 4_096;

/// Tokens after which a piece is sent without waiting. With
/// [`FULL_PIECE_BYTES`], each of them escaped, it still fits in an event.
const FULL_PIECE_TOKENS: usize = 1_024;

/// Pieces that one wish brings again: a short message must not make a provider
/// sign and encrypt thousands. The buyer asks for the others once it has these.
const MAX_RESENT_PIECES: usize = 64;

/// Bytes of an output's JSON beside its text and tokens: salt, names, brackets.
const OUTPUT_FRAME_BYTES: usize = 256;

/// Bytes kept free for text that the engine holds back until the end: a stop
/// string's beginning, each byte escaped as `\u0000`.
const HELD_BACK_BYTES: usize = 6 * MAX_STOP_BYTES;

/// What a buyer is told whose answer is too long for the result that carries it.
const TOO_LONG: &str = "the answer does not fit in a result; ask for fewer tokens";

/// How long an ended attempt still answers a buyer that missed something.
pub const LINGER_MS: u64 = 60_000;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Fewer attempts are ahead in the queue.
    Moved {
        /// How many run or wait before this one.
        ahead: u32,
    },
    /// The engine has begun.
    Started,
    /// The engine drew a token.
    Token {
        /// The token.
        id: TokenId,
        /// The text that became showable.
        text: String,
    },
    /// The engine is done.
    Finished {
        /// Why.
        reason: EndReason,
        /// Text that was held back. It goes into the result alone: whoever goes on
        /// behind the pieces will hold the same text back and show it then.
        text: String,
    },
    /// The engine, or what is around it, failed.
    Broke {
        /// What to tell the buyer.
        error: String,
    },
    /// The buyer misses pieces.
    Resend {
        /// From this number on.
        from: u32,
    },
    /// The buyer wants no more of it.
    Stop,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Tell the buyer.
    Send(News),
    /// Stop the engine, if it runs, and leave the queue.
    Halt,
    /// Sign, keep and publish the result.
    Deliver(Delivery),
    /// Publish the kept result again.
    Redeliver,
    /// Forget the attempt: nothing more will come of it.
    Forget,
}

/// What a result is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Why the work ended.
    pub ended: EndReason,
    /// What went wrong, if it failed.
    pub error: Option<String>,
    /// All text of this attempt.
    pub text: String,
    /// All tokens of this attempt.
    pub tokens: Vec<TokenId>,
    /// How long it took.
    pub timing: Timing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Queued { ahead: u32 },
    Running,
    Ended { at: Millis, delivered: bool },
}

impl State {
    const fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Running => "running",
            Self::Ended { .. } => "ended",
        }
    }
}

/// One attempt at work.
#[derive(Debug)]
pub struct Attempt {
    state: State,
    deadline: Millis,
    accepted_at: Millis,
    started_at: Option<Millis>,
    first_token_at: Option<Millis>,
    last_sent: Millis,
    chain: Chain,
    pieces: Vec<Piece>,
    unsent_tokens: Vec<TokenId>,
    unsent_text: String,
    /// Bytes that the output's JSON has so far.
    output_bytes: usize,
    /// What the result can carry.
    most_bytes: usize,
}

impl Attempt {
    /// Takes an award on.
    pub fn accept(
        now: Millis,
        award: &EventId,
        ahead: u32,
        deadline: Millis,
    ) -> (Self, Vec<Effect>) {
        let attempt = Self {
            state: State::Queued { ahead },
            deadline,
            accepted_at: now,
            started_at: None,
            first_token_at: None,
            last_sent: now,
            chain: Chain::start(award),
            pieces: Vec::new(),
            unsent_tokens: Vec::new(),
            unsent_text: String::new(),
            output_bytes: OUTPUT_FRAME_BYTES,
            most_bytes: MAX_PAYLOAD_BYTES,
        };
        (attempt, vec![Effect::Send(News::Accepted { ahead })])
    }

    /// The same with a result that carries so many bytes of output, if that is more than
    /// an event does.
    #[must_use]
    pub fn carrying(mut self, bytes: usize) -> Self {
        self.most_bytes = bytes.max(MAX_PAYLOAD_BYTES);
        self
    }

    /// Whether nothing more will be done for it.
    pub const fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended { .. })
    }

    /// Tells the attempt what happened; answers what to do.
    ///
    /// # Errors
    /// [`Unexpected`] if the engine speaks while it cannot be running.
    pub fn step(&mut self, now: Millis, input: Input) -> Result<Vec<Effect>, Unexpected> {
        let mut effects = self.take(now, input)?;
        self.keep_time(now, &mut effects);
        Ok(effects)
    }

    /// When to call [`Attempt::step`] with [`Input::Tick`] at the latest.
    pub fn next_deadline(&self) -> Millis {
        match self.state {
            State::Queued { .. } => self.deadline.min(self.last_sent.plus(ALIVE_EVERY_MS)),
            State::Running if self.has_unsent() => {
                self.deadline.min(self.last_sent.plus(PIECE_EVERY_MS))
            }
            State::Running => self.deadline.min(self.last_sent.plus(ALIVE_EVERY_MS)),
            State::Ended { at, .. } => at.plus(LINGER_MS),
        }
    }

    fn take(&mut self, now: Millis, input: Input) -> Result<Vec<Effect>, Unexpected> {
        match (self.state, input) {
            (State::Queued { .. }, Input::Moved { ahead }) => Ok(self.moved(now, ahead)),
            (State::Queued { .. }, Input::Started) => {
                self.state = State::Running;
                self.started_at = Some(now);
                Ok(vec![])
            }
            (State::Running, Input::Token { id, text }) => Ok(self.token(now, id, &text)),
            (State::Running, Input::Finished { reason, text }) => {
                Ok(self.finished(now, reason, &text))
            }
            (State::Queued { .. } | State::Running, Input::Broke { error }) => {
                Ok(self.fail(now, &error))
            }
            (State::Queued { .. } | State::Running, Input::Stop) => Ok(self.stop(now)),
            (State::Queued { .. } | State::Running, Input::Resend { from }) => {
                Ok(self.resend(now, from))
            }
            (State::Ended { delivered, .. }, Input::Resend { .. }) => Ok(match delivered {
                true => vec![Effect::Redeliver],
                false => vec![],
            }),
            // The engine and the queue may still speak of an attempt that was
            // stopped a moment ago, and a buyer may stop twice.
            (
                State::Ended { .. },
                Input::Moved { .. }
                | Input::Started
                | Input::Token { .. }
                | Input::Finished { .. }
                | Input::Broke { .. }
                | Input::Stop,
            )
            | (State::Running, Input::Moved { .. })
            | (_, Input::Tick) => Ok(vec![]),
            (State::Running, Input::Started) => Err(self.unexpected("a second start")),
            (State::Queued { .. }, Input::Token { .. }) => Err(self.unexpected("a token")),
            (State::Queued { .. }, Input::Finished { .. }) => Err(self.unexpected("an end")),
        }
    }

    const fn unexpected(&self, input: &'static str) -> Unexpected {
        Unexpected {
            input,
            state: self.state.name(),
        }
    }

    fn keep_time(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if let State::Ended { at, .. } = self.state {
            if now >= at.plus(LINGER_MS) {
                effects.push(Effect::Forget);
            }
            return;
        }
        if now >= self.deadline {
            effects.extend(self.fail(now, "the deadline has come"));
            return;
        }
        effects.extend(self.send_when_due(now));
        if now >= self.last_sent.plus(ALIVE_EVERY_MS) {
            self.last_sent = now;
            effects.push(Effect::Send(News::Alive {
                ahead: self.ahead(),
            }));
        }
    }

    const fn ahead(&self) -> u32 {
        match self.state {
            State::Queued { ahead } => ahead,
            State::Running | State::Ended { .. } => 0,
        }
    }

    fn moved(&mut self, now: Millis, ahead: u32) -> Vec<Effect> {
        if self.state == (State::Queued { ahead }) {
            return vec![];
        }
        self.state = State::Queued { ahead };
        self.last_sent = now;
        vec![Effect::Send(News::Alive { ahead })]
    }

    /// Takes a token, unless the result could no longer carry it: then what there
    /// is goes out, and another attempt can go on behind it.
    fn token(&mut self, now: Millis, id: TokenId, text: &str) -> Vec<Effect> {
        let bytes = self.output_bytes + token_bytes(id) + text_bytes(text);
        if bytes > self.most_bytes - HELD_BACK_BYTES {
            return self.fail(now, TOO_LONG);
        }
        self.output_bytes = bytes;
        self.first_token_at.get_or_insert(now);
        self.unsent_tokens.push(id);
        self.unsent_text.push_str(text);
        self.send_when_due(now)
    }

    fn finished(&mut self, now: Millis, reason: EndReason, held_back: &str) -> Vec<Effect> {
        match reason {
            EndReason::Failed => self.fail(now, "the engine failed"),
            EndReason::Cancelled => self.end(now, reason, None, ""),
            EndReason::Stop | EndReason::Length => {
                let bytes = self.output_bytes + text_bytes(held_back);
                match bytes > self.most_bytes {
                    true => self.fail(now, TOO_LONG),
                    false => self.end(now, reason, None, held_back),
                }
            }
        }
    }

    fn has_unsent(&self) -> bool {
        !self.unsent_tokens.is_empty() || !self.unsent_text.is_empty()
    }

    /// The first piece goes at once; later ones gather for a moment.
    fn send_when_due(&mut self, now: Millis) -> Vec<Effect> {
        let due = self.pieces.is_empty()
            || now >= self.last_sent.plus(PIECE_EVERY_MS)
            || self.unsent_text.len() >= FULL_PIECE_BYTES
            || self.unsent_tokens.len() >= FULL_PIECE_TOKENS;
        match due {
            true => self.send_piece(now),
            false => vec![],
        }
    }

    fn send_piece(&mut self, now: Millis) -> Vec<Effect> {
        if !self.has_unsent() {
            return vec![];
        }
        let tokens = std::mem::take(&mut self.unsent_tokens);
        let text = std::mem::take(&mut self.unsent_text);
        // One piece a token at most, so far fewer than 2^32.
        let seq = self.pieces.len() as u32;
        self.chain = self.chain.after(seq, &tokens, &text);
        let piece = Piece {
            seq,
            tokens,
            text,
            digest: self.chain.digest(),
        };
        self.pieces.push(piece.clone());
        self.last_sent = now;
        vec![Effect::Send(News::Piece(piece))]
    }

    fn resend(&mut self, now: Millis, from: u32) -> Vec<Effect> {
        self.last_sent = now;
        let missing = self.pieces.iter().skip(from as usize);
        let missing = missing.take(MAX_RESENT_PIECES);
        let mut effects: Vec<_> = missing
            .map(|piece| Effect::Send(News::Piece(piece.clone())))
            .collect();
        if effects.is_empty() {
            effects.push(Effect::Send(News::Alive {
                ahead: self.ahead(),
            }));
        }
        effects
    }

    /// The buyer wants no more. What was drawn is delivered; an attempt that
    /// never began leaves nothing.
    fn stop(&mut self, now: Millis) -> Vec<Effect> {
        if self.started_at.is_some() {
            return self.end(now, EndReason::Cancelled, None, "");
        }
        self.state = State::Ended {
            at: now,
            delivered: false,
        };
        vec![Effect::Halt]
    }

    fn fail(&mut self, now: Millis, error: &str) -> Vec<Effect> {
        self.end(now, EndReason::Failed, Some(tellable(error)), "")
    }

    fn end(
        &mut self,
        now: Millis,
        ended: EndReason,
        error: Option<String>,
        held_back: &str,
    ) -> Vec<Effect> {
        let mut effects = self.send_piece(now);
        self.state = State::Ended {
            at: now,
            delivered: true,
        };
        effects.push(Effect::Halt);
        let texts = self.pieces.iter().map(|p| p.text.as_str());
        effects.push(Effect::Deliver(Delivery {
            ended,
            error,
            text: texts.chain([held_back]).collect(),
            tokens: self.pieces.iter().flat_map(|p| p.tokens.clone()).collect(),
            timing: self.timing(now),
        }));
        effects
    }

    fn timing(&self, now: Millis) -> Timing {
        let started = self.started_at.unwrap_or(now);
        Timing {
            queued_ms: started.since(self.accepted_at),
            first_token_ms: self.first_token_at.unwrap_or(now).since(self.accepted_at),
            total_ms: now.since(self.accepted_at),
        }
    }
}

/// Bytes that a token adds to an output's JSON: its digits and a comma.
fn token_bytes(id: TokenId) -> usize {
    id.checked_ilog10().unwrap_or(0) as usize + 2
}

/// Bytes that text adds to an output's JSON.
fn text_bytes(text: &str) -> usize {
    let escaped = |c: char| match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    };
    text.chars().map(escaped).sum()
}

/// An error as a result may carry it: one short line, whatever a driver or a
/// device had to say.
fn tellable(error: &str) -> String {
    let mut told = String::new();
    for c in error.chars().filter(|c| !c.is_control()) {
        if told.len() + c.len_utf8() > MAX_REASON_BYTES {
            break;
        }
        told.push(c);
    }
    told
}
