//! What the opinions of several checkers on one result come to.
//!
//! One checker that is the owner's decides. A stranger's word is enough to accept, but
//! never alone to reject: nobody loses its pay and its name because one stranger says
//! so. Where two strangers contradict each other a third decides, and who was wrong is
//! refuted.

use infernet_protocol::event::Judgement;
use nostr::PublicKey;

/// Checkers that are asked about one result at most.
pub const MOST_OPINIONS: usize = 3;

/// What one checker thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opinion {
    /// Who.
    pub checker: PublicKey,
    /// Whether it is the owner's own.
    pub is_own: bool,
    /// What.
    pub judgement: Judgement,
}

/// The opinions so far.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    opinions: Vec<Opinion>,
}

impl Panel {
    /// Hears one opinion more.
    pub fn hear(&mut self, opinion: Opinion) {
        self.opinions.push(opinion);
    }

    /// Whether another opinion is needed. `doubted`: even if the first accepts, since
    /// checkers are checked too.
    pub fn wants_more(&self, doubted: bool) -> bool {
        if self.opinions.len() >= MOST_OPINIONS || self.own().is_some() {
            return false;
        }
        let (accepted, rejected) = (
            self.count(Judgement::Accepted),
            self.count(Judgement::Rejected),
        );
        match (accepted, rejected) {
            (1, 0) => doubted && self.opinions.len() == 1,
            (0, 0 | 1) | (1, 1) => true,
            (_, _) => false,
        }
    }

    /// What they come to.
    pub fn judgement(&self) -> Judgement {
        if let Some(own) = self.own() {
            return own;
        }
        let (accepted, rejected) = (
            self.count(Judgement::Accepted),
            self.count(Judgement::Rejected),
        );
        match () {
            () if rejected >= 2 && rejected > accepted => Judgement::Rejected,
            () if accepted > rejected => Judgement::Accepted,
            () => Judgement::Inconclusive,
        }
    }

    /// Who said the opposite of what it came to.
    pub fn refuted(&self) -> Vec<PublicKey> {
        match self.judgement() {
            Judgement::Accepted => self.strangers(Judgement::Rejected),
            Judgement::Rejected => self.strangers(Judgement::Accepted),
            Judgement::Inconclusive => Vec::new(),
        }
    }

    /// Strangers with whom another agreed.
    pub fn upheld(&self) -> Vec<PublicKey> {
        let judgement = self.judgement();
        let agreed = self.opinions.iter().filter(|o| o.judgement == judgement);
        match judgement != Judgement::Inconclusive && agreed.count() >= 2 {
            true => self.strangers(judgement),
            false => Vec::new(),
        }
    }

    fn strangers(&self, judgement: Judgement) -> Vec<PublicKey> {
        let strangers = self.opinions.iter().filter(|opinion| !opinion.is_own);
        let same = strangers.filter(|opinion| opinion.judgement == judgement);
        same.map(|opinion| opinion.checker).collect()
    }

    fn count(&self, judgement: Judgement) -> usize {
        let same = self.opinions.iter().filter(|o| o.judgement == judgement);
        same.count()
    }

    fn own(&self) -> Option<Judgement> {
        let own = self.opinions.iter().rev();
        let mut told = own.filter(|o| o.is_own && o.judgement != Judgement::Inconclusive);
        told.next().map(|opinion| opinion.judgement)
    }
}

#[cfg(test)]
mod tests {
    use infernet_protocol::event::Judgement::{Accepted, Inconclusive, Rejected};
    use nostr::Keys;

    use super::*;

    /// Strangers that say this, as long as any are wanted; and how many were asked.
    fn strangers(doubted: bool, say: &[Judgement]) -> (Panel, usize) {
        let mut panel = Panel::default();
        let mut asked = 0;
        for judgement in say {
            if !panel.wants_more(doubted) {
                break;
            }
            asked += 1;
            panel.hear(Opinion {
                checker: Keys::generate().public_key(),
                is_own: false,
                judgement: *judgement,
            });
        }
        (panel, asked)
    }

    #[test]
    fn strangers_decide_by_two() {
        for (doubted, say, asked, judgement, refuted) in [
            (false, &[Accepted][..], 1, Accepted, 0),
            (false, &[Accepted, Rejected, Rejected], 1, Accepted, 0),
            (true, &[Accepted, Accepted], 2, Accepted, 0),
            (true, &[Accepted, Rejected, Rejected], 3, Rejected, 1),
            (true, &[Accepted, Rejected, Accepted], 3, Accepted, 1),
            (true, &[Accepted, Inconclusive], 2, Accepted, 0),
            // One stranger alone rejects nobody.
            (false, &[Rejected], 1, Inconclusive, 0),
            (false, &[Rejected, Rejected], 2, Rejected, 0),
            (false, &[Rejected, Accepted, Accepted], 3, Accepted, 1),
            (
                false,
                &[Rejected, Accepted, Inconclusive],
                3,
                Inconclusive,
                0,
            ),
            (false, &[Rejected, Inconclusive, Rejected], 3, Rejected, 0),
            (false, &[Inconclusive, Accepted], 2, Accepted, 0),
            (
                false,
                &[Inconclusive, Inconclusive, Inconclusive],
                3,
                Inconclusive,
                0,
            ),
            (false, &[], 0, Inconclusive, 0),
        ] {
            let (panel, were) = strangers(doubted, say);
            assert_eq!(were, asked, "{say:?}");
            assert_eq!(panel.judgement(), judgement, "{say:?}");
            assert_eq!(panel.refuted().len(), refuted, "{say:?}");
        }
    }

    #[test]
    fn the_owners_checker_decides_alone() {
        for judgement in [Accepted, Rejected] {
            let mut panel = Panel::default();
            let own = Keys::generate().public_key();
            panel.hear(Opinion {
                checker: own,
                is_own: true,
                judgement,
            });
            assert!(!panel.wants_more(true));
            assert_eq!(panel.judgement(), judgement);
            assert!(panel.refuted().is_empty() && panel.upheld().is_empty());
        }
    }

    #[test]
    fn who_agrees_with_another_is_upheld() {
        let (panel, _) = strangers(true, &[Accepted, Accepted]);
        assert_eq!(panel.upheld().len(), 2);
        let (panel, _) = strangers(false, &[Accepted]);
        assert!(panel.upheld().is_empty());
    }
}
