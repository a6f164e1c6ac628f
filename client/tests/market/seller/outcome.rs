//! What an attempt leaves: its result and its receipt.

use infernet_payments::PaymentHash;
use infernet_payments::tab::provider::Input as TabInput;
use infernet_protocol::event::{JobResult, Receipt, ReceiptSide, TabTotals, Timing, Usage, V1};
use infernet_protocol::inference::EndReason;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{Output, Payload, Product, Vector};
use infernet_protocol::seal::{Domain, Salt, Sealed, salted_hash};
use nostr::EventId;
use nostr::secp256k1::rand::rngs::OsRng;

use super::INPUT;
use super::attempt::Attempt;

impl Attempt {
    pub(super) async fn deliver(&self, drawn: u64, ended: EndReason) {
        let award = self.id;
        self.seller
            .step(self.buyer, TabInput::Ended { award }, award);
        let due = self.seller.books().charged[&award];
        let result = self.result(drawn, ended, due);
        let event = self.seller.publish(&result).await;
        self.receipt(result.usage, due, event.id).await;
    }

    fn result(&self, drawn: u64, ended: EndReason, due_msat: Msat) -> JobResult {
        let product = match self.texts {
            0 => Product::TextGeneration {
                text: (self.prefix..self.prefix + drawn as u32)
                    .filter(|at| at + 1 != self.seller.offer.tokens)
                    .map(|at| format!("w{at} "))
                    .collect(),
                tokens: (0..drawn as u32)
                    .map(|at| 1_000 + self.prefix + at)
                    .collect(),
            },
            texts => Product::Embedding {
                vectors: vec![Vector(vec![0.6, 0.8]); texts],
            },
        };
        let output = Output {
            salt: Salt::from_bytes([9; 32]),
            product,
            proofs: vec![],
        };
        let bytes = output.to_bytes();
        let own = self.seller.key();
        JobResult {
            v: V1,
            job: self.job,
            award: self.id,
            attempt: self.award.attempt,
            buyer: self.buyer,
            ended,
            error: (ended == EndReason::Failed).then(|| "out of steam".into()),
            model: self.award.model,
            dtype: self.seller.offer.model.dtype,
            engine: "scripted/1".into(),
            usage: Usage {
                input_tokens: INPUT,
                prefix_tokens: self.prefix.into(),
                output_tokens: drawn,
            },
            timing: Timing::default(),
            due_msat,
            output_hash: salted_hash(Domain::Output, &output.salt, &self.id, &own, &bytes),
            output: Sealed::close(
                &bytes,
                self.seller.offer.keys.secret_key(),
                &self.buyer,
                &mut OsRng,
            )
            .unwrap(),
        }
    }

    async fn receipt(&self, usage: Usage, due_msat: Msat, result: EventId) {
        let (payments, carried) = {
            let books = self.seller.books();
            let payments = books.paid_for.get(&self.id).cloned().unwrap_or_default();
            (payments, books.carried[&self.buyer])
        };
        let salted = |(hash, _): &(PaymentHash, Msat)| {
            let (about, author) = (&self.id, &self.seller.key());
            salted_hash(Domain::Payment, &self.salt, about, author, hash.as_bytes())
        };
        let paid = payments.iter().map(|(_, amount)| amount.0).sum();
        let receipt = Receipt {
            v: V1,
            job: self.job,
            award: self.id,
            attempt: self.award.attempt,
            result: Some(result),
            side: ReceiptSide::Provider,
            counterparty: self.buyer,
            usage,
            due_msat,
            paid_msat: Msat(paid),
            payments: payments.iter().map(salted).collect(),
            tab: Some(TabTotals {
                due_msat: carried.due,
                paid_msat: carried.paid,
            }),
        };
        self.seller.publish(&receipt).await;
    }
}
