//! One result is looked at: checkers are hired, one after the other, until it is known
//! what the result is.

use std::collections::HashSet;
use std::time::Instant;

use infernet_client::{Request, Summary};
use infernet_node::clock;
use infernet_protocol::event::Judgement;
use infernet_protocol::inference::Task;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::Work;
use infernet_protocol::verification::{Texts, Thresholds};
use nostr::PublicKey;
use rand::seq::SliceRandom as _;
use tokio::time::sleep;

use super::hiring::{Checker, Market, Sought};
use super::panel::{Opinion, Panel};
use super::reading::{self, Read};
use super::samples::Sample;
use super::traps::{Maker, Trap};
use super::twins;
use super::{Caught, Chances, Error, Finding, Hire, Inner, LOOK_EVERY, PATIENCE, Policy};
use crate::Bought;

/// A bound on exponents that nothing exceeds.
const ALL_EXPONENTS: f64 = 128.0;

/// What checkers said of one result.
pub(super) struct Hearing<'a> {
    checks: &'a Inner,
    work: &'a Bought,
    policy: &'a Policy,
    thresholds: Thresholds,
    /// Who is not asked: the provider itself, who was asked, who failed.
    shunned: HashSet<PublicKey>,
    pub panel: Panel,
    pub reads: Vec<Read>,
    pub hired: Vec<Hire>,
}

impl<'a> Hearing<'a> {
    pub fn new(checks: &'a Inner, work: &'a Bought, policy: &'a Policy) -> Self {
        Self {
            checks,
            work,
            policy,
            thresholds: checks.shelf.of(&work.model, work.dtype()),
            shunned: HashSet::from([work.provider, checks.keys.public_key()]),
            panel: Panel::default(),
            reads: Vec::new(),
            hired: Vec::new(),
        }
    }

    /// Hears as many as are needed and can be had. `doubted`: a second stranger also
    /// where the first accepts.
    pub async fn held(mut self, doubted: bool) -> Result<Self, Error> {
        self.shunned.extend(self.checks.books.shunned().await?);
        while self.panel.wants_more(doubted || self.accuses()) {
            let Some(checker) = self.next().await else {
                break;
            };
            self.shunned.insert(checker.key);
            self.ask(&checker).await?;
        }
        for liar in self.panel.refuted() {
            self.refute(liar, "its verdict was refuted by two others")
                .await?;
        }
        for checker in self.panel.upheld() {
            self.checks.books.confirm(&checker).await?;
        }
        Ok(self)
    }

    /// Whether somebody who accepts it says something against its provider all the same.
    fn accuses(&self) -> bool {
        let mut texts = self.reads.iter().filter_map(Read::texts);
        texts.any(|texts| texts.evidence > 0.0)
    }

    /// What goes into the provider's pool; nothing of what is rejected anyway. It is what
    /// the owner's checker measured, else the mildest of those who came to the judgement;
    /// what one stranger alone measured counts only in the provider's favour.
    pub fn for_the_pool(&self) -> Option<Texts> {
        let judgement = self.panel.judgement();
        if judgement == Judgement::Rejected {
            return None;
        }
        let agree = |read: &&Read| read.verdict.judgement == judgement;
        let is_own = |read: &&Read| self.checks.own.contains(&read.verdict.author());
        let all: Vec<&Read> = self.reads.iter().filter(agree).collect();
        if let Some(own) = all.iter().copied().find(is_own) {
            return own.texts().cloned();
        }
        let measured = all.iter().filter_map(|read| read.texts());
        let mildest = measured.min_by(|a, b| a.evidence.total_cmp(&b.evidence));
        let mut mildest = mildest?.clone();
        if all.len() < 2 {
            mildest.evidence = mildest.evidence.min(0.0);
        }
        Some(mildest)
    }

    /// Who is asked next. The first is waited for; what one has said stands if there is
    /// nobody else.
    async fn next(&self) -> Option<Checker> {
        let patience = Instant::now() + PATIENCE;
        let until = self.policy.until.min(patience);
        let sought = Sought {
            task: self.work.work.task(),
            model: &self.work.model,
            allowed: self.policy.checkers,
            is_paid: self.policy.most > Msat::ZERO,
            shunned: &self.shunned,
        };
        loop {
            let drawn = self.market().draw(&sought);
            let is_over = Instant::now() >= until || !self.reads.is_empty();
            match drawn {
                Some(checker) => return Some(checker),
                None if is_over => return None,
                None => sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Asks one checker. One that fails says nothing.
    async fn ask(&mut self, checker: &Checker) -> Result<(), Error> {
        let within = self.policy.until.saturating_duration_since(Instant::now());
        let spent = self.hired.iter().map(|hire| hire.cost.0);
        let left = Msat(self.policy.most.0.saturating_sub(spent.sum()));
        let trap = self.trap(checker).await?;
        let request = self.request(checker, trap.as_ref());
        let hired = self.market().hire(checker, request, within, left).await;
        match hired {
            Ok(summary) => self.hear(checker, &summary, trap).await,
            Err(error) => {
                tracing::info!(checker = %checker.key, %error, "a checker did not check");
                Ok(())
            }
        }
    }

    /// What is asked of a checker.
    fn request(&self, checker: &Checker, trap: Option<&Trap>) -> Request {
        let model = self.work.model.to_string();
        match &self.work.work {
            Work::Embedding { texts } if checker.task == Task::Embedding => {
                Request::embedding(Some(model), texts)
            }
            _ => {
                let mut checks = vec![self.work.check()];
                checks.extend(trap.map(|trap| trap.check.clone()));
                checks.shuffle(&mut rand::rng());
                Request::verify(model, checks, self.thresholds)
            }
        }
    }

    /// A trap for a stranger, now and then, if there is anything to make it of.
    async fn trap(&self, checker: &Checker) -> Result<Option<Trap>, Error> {
        if checker.is_own
            || checker.task != Task::Verify
            || !Chances::draw(self.checks.chances.trap_ppm)
        {
            return Ok(None);
        }
        // Judged by other thresholds, honest work of another format would look bad.
        let (model, dtype) = (&self.work.model, self.work.dtype());
        let sample = self.checks.samples.draw(model, dtype, &checker.key);
        let sample = sample.await?;
        let maker = Maker {
            keys: &self.checks.keys,
            relays: &self.checks.relays,
            now: clock::now(),
        };
        // Accepting everything is the lie that pays, so most traps are bad. Short answers
        // under other questions are told for certain by their activations alone.
        let tells = self.thresholds.activations.worst_exponents < ALL_EXPONENTS;
        let is_sound = !tells || rand::random_ratio(1, 4);
        Ok(sample.and_then(|sample: Sample| maker.make(&sample, is_sound)))
    }

    async fn hear(
        &mut self,
        checker: &Checker,
        summary: &Summary,
        trap: Option<Trap>,
    ) -> Result<(), Error> {
        self.hired.push(Hire {
            checker: checker.key,
            award: summary.award,
            result: summary.result,
            cost: summary.due_msat,
        });
        let on = |result| summary.verdicts.iter().find(move |v| v.result == result);
        if let Some(trap) = trap {
            let said = on(trap.result).map_or(Judgement::Inconclusive, |v| v.judgement);
            if trap.catches(said) {
                return self
                    .refute(checker.key, "it did not look at what it judged")
                    .await;
            }
            if trap.is_seen_through(said) {
                self.checks.books.confirm(&checker.key).await?;
            }
        }
        let (keys, thresholds) = (&self.checks.keys, &self.thresholds);
        let read = match checker.task {
            Task::Embedding => twins::compare(self.work, summary, thresholds, keys),
            _ => on(self.work.result.id()).and_then(|v| reading::read(v, self.work, thresholds)),
        };
        let Some(read) = read else {
            return self
                .refute(checker.key, "its verdict contradicts itself")
                .await;
        };
        self.panel.hear(Opinion {
            checker: checker.key,
            is_own: checker.is_own,
            judgement: read.verdict.judgement,
        });
        self.reads.push(read);
        Ok(())
    }

    /// A checker's word turned out to be wrong: it is hired no more, and is not paid.
    async fn refute(&mut self, checker: PublicKey, reason: &str) -> Result<(), Error> {
        let Some(at) = self.hired.iter().position(|hire| hire.checker == checker) else {
            return Ok(());
        };
        let hire = self.hired.remove(at);
        let is_new = self.checks.books.refute(&checker, clock::now()).await?;
        let own = self
            .reads
            .iter()
            .find(|read| read.verdict.author() == checker);
        let caught = Caught {
            who: checker,
            award: hire.award,
            result: hire.result,
            verdict: own.map(|read| read.verdict.clone()),
            job: hire.award,
            model: self.work.model,
            reason: reason.to_owned(),
        };
        if is_new {
            self.checks.tell(Finding::Caught(Box::new(caught)));
        }
        Ok(())
    }

    fn market(&self) -> Market<'a> {
        self.checks.market()
    }
}
