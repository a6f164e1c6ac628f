//! Places in the batch and blocks of the cache: who gets them, and who gives them up.

use crate::serve::{Network, Sequence};

use super::{PATIENCE, Scheduler};

impl<N: Network> Scheduler<N> {
    /// Takes in those who are next, as far as there are places and blocks.
    pub(super) fn admit(&mut self) {
        while let Some(at) = self.next() {
            let mut sequence = self.waiting.remove(at);
            if let Some(reason) = sequence.over() {
                let mut sequence = self.dismiss(sequence);
                sequence.start();
                sequence.end(reason);
                continue;
            }
            if !self.make_room(&mut sequence) {
                sequence.release(&mut self.blocks);
                self.waiting.push(sequence);
                return;
            }
            sequence.steps.set_waiting(false);
            sequence.steps.advance();
            sequence.start();
            self.running.push(sequence);
        }
    }

    /// Who is next of those who wait: not one whose reader is behind, so that it goes
    /// on for a while once it has a place again.
    fn next(&self) -> Option<usize> {
        let ready = self.waiting.iter().enumerate();
        ready
            .filter(|(_, sequence)| sequence.steps.has_caught_up())
            .min_by(|(_, a), (_, b)| self.by_claim(a, b))
            .map(|(at, _)| at)
    }

    /// Finds a place for it, and blocks for all its tokens and one more, beside one
    /// more for each that runs: `false` if there is no room.
    fn make_room(&mut self, sequence: &mut Sequence) -> bool {
        sequence.reuse(&mut self.blocks);
        loop {
            let needed = sequence.lacks(sequence.pending() + 1) + self.running.len();
            // One that runs alone has room for all of its context.
            let has_blocks = self.running.is_empty() || needed <= self.blocks.available();
            if has_blocks && self.running.len() < self.limits.slots {
                return true;
            }
            let Some(other) = self.who_yields_to(sequence) else {
                return false;
            };
            self.park(other);
        }
    }

    /// Who gives up its place to one that waits: one whose reader is behind, else
    /// one whose customer was given much more than that one's, and that has got
    /// something of its place. Else those whose prompts have no room beside each
    /// other would forever take each other's blocks before any has an answer.
    fn who_yields_to(&self, waiting: &Sequence) -> Option<usize> {
        let clock = |sequence: &Sequence| self.shares.clock(sequence.standing.customer);
        let limit = clock(waiting) + PATIENCE;
        self.last_of(|running| {
            running.steps.is_ahead() || (running.had_its_turn() && clock(running) > limit)
        })
    }

    /// Who of those who run has the least claim.
    fn last_in_line(&self) -> Option<usize> {
        self.last_of(|_| true)
    }

    /// Who of some that run has the least claim: first those whose readers are behind.
    fn last_of(&self, counts: impl Fn(&Sequence) -> bool) -> Option<usize> {
        let running = self.running.iter().enumerate();
        running
            .filter(|(_, sequence)| counts(sequence))
            .max_by(|(_, a), (_, b)| {
                let behind = a.steps.is_ahead().cmp(&b.steps.is_ahead());
                behind.then_with(|| self.by_claim(a, b))
            })
            .map(|(at, _)| at)
    }

    /// Has one that runs wait again. What it has computed stays in the cache until
    /// its room is needed.
    fn park(&mut self, at: usize) {
        let mut sequence = self.running.swap_remove(at);
        sequence.release(&mut self.blocks);
        self.wait(sequence);
    }

    /// Decides what each that runs has computed in this round: one token of every
    /// answer, and beside these so many of prompts as do not hold them up.
    pub(super) fn plan(&mut self) {
        let mut order: Vec<u64> = self.in_line();
        order.retain(|&number| self.plan_answer(number));
        let answers = self.running.iter().any(|sequence| sequence.piece > 0);
        let mut left = match answers {
            true => self.limits.prompt_beside,
            false => self.limits.prompt_alone,
        };
        for number in order {
            left -= self.plan_prompt(number, left);
        }
    }

    /// Those who run and whose readers keep up, by claim.
    fn in_line(&self) -> Vec<u64> {
        let mut ready: Vec<&Sequence> = self.running.iter().collect();
        ready.retain(|sequence| !sequence.steps.is_ahead());
        ready.sort_by(|a, b| self.by_claim(a, b));
        ready.iter().map(|sequence| sequence.number).collect()
    }

    /// Plans the next token of an answer; `true` if it is a prompt that is left.
    fn plan_answer(&mut self, number: u64) -> bool {
        let Some(at) = self.find(number) else {
            return false;
        };
        if self.running[at].pending() > 1 {
            return true;
        }
        self.plan_piece(number, 1);
        false
    }

    /// Plans a piece of a prompt of at most so many tokens; how many it has.
    fn plan_prompt(&mut self, number: u64, most: usize) -> usize {
        if let Some(at) = self.find(number) {
            self.running[at].reuse(&mut self.blocks);
        }
        self.plan_piece(number, most)
    }

    fn plan_piece(&mut self, number: u64, most: usize) -> usize {
        let Some(at) = self.find(number) else {
            return 0;
        };
        self.running[at].plan(most);
        let piece = self.running[at].piece;
        while let Some(at) = self.find(number) {
            if self.running[at].lacks(piece) == 0 {
                return piece;
            }
            match self.blocks.take() {
                Some(block) => self.running[at].push(block),
                // Itself, if nobody has less claim.
                None => match self.last_in_line() {
                    Some(last) => self.park(last),
                    None => break,
                },
            }
        }
        0
    }

    /// Where it runs, if it still does.
    fn find(&self, number: u64) -> Option<usize> {
        let mut running = self.running.iter();
        running.position(|sequence| sequence.number == number)
    }
}
