//! Whether an invoice is the one that a provider may send.

use infernet_payments::{Invoice, PaymentHash};
use infernet_protocol::money::PaymentTerms;
use infernet_protocol::payload::invoice_description;
use nostr::{EventId, Timestamp};

/// What is wrong with an invoice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    /// It breaks what the provider itself has said, or the protocol.
    #[error("{0}")]
    Broken(&'static str),
    /// It asks for another chain's money.
    #[error("it asks for money on {theirs}, and your wallet is on {ours}")]
    Chain { theirs: String, ours: String },
    /// It can no longer be paid: there may be a newer one.
    #[error("its invoice has run out")]
    Expired,
}

/// Reads an invoice about an award, and checks all but its chain and its amount.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(
    text: &str,
    award: &EventId,
    terms: &PaymentTerms,
    now: Timestamp,
) -> Result<Invoice, Flaw> {
    let invoice: Invoice = text
        .parse()
        .map_err(|_| Flaw::Broken("its invoice cannot be read"))?;
    if invoice.description() != Some(invoice_description(award)) {
        return Err(Flaw::Broken("its invoice does not name the award"));
    }
    if let PaymentTerms::Tab {
        payee: Some(payee), ..
    } = terms
        && invoice.payee() != *payee
    {
        return Err(Flaw::Broken("its invoice is another node's"));
    }
    match invoice.is_expired(now) {
        true => Err(Flaw::Expired),
        false => Ok(invoice),
    }
}

/// Checks that an invoice is for money on this chain.
///
/// # Errors
/// It is on another one.
pub(super) fn is_on(ours: Option<String>, invoice: &Invoice) -> Result<(), Flaw> {
    let theirs = chain(invoice);
    match ours {
        Some(ours) if ours != theirs => Err(Flaw::Chain { theirs, ours }),
        // A wallet that makes no invoices does not show its chain, and refuses what is on another.
        Some(_) | None => Ok(()),
    }
}

/// The chain that an invoice is for, in words.
pub(super) fn chain(invoice: &Invoice) -> String {
    format!("{:?}", invoice.currency()).to_lowercase()
}

/// A payment's hash, short enough for a log.
pub(super) fn short(hash: &PaymentHash) -> String {
    hash.to_string().chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use infernet_payments::rail::{Ask, PaymentRail};
    use infernet_payments::test_rail::{Network, Wallet};
    use infernet_protocol::money::Msat;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    /// From BOLT-11's own examples: 2,500 µBTC on the main chain, for a cup of coffee.
    const COFFEE: &str = "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwz\
        qfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9vdx85fkpmdla2087ne\
        0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09sam30g4vgpfna3rh";

    fn terms(wallet: &Wallet) -> PaymentTerms {
        PaymentTerms::Tab {
            min_payment_msat: Msat(10_000),
            prepaid_output_tokens: 64,
            payee: Some(wallet.node()),
        }
    }

    async fn asked(wallet: &Wallet, description: String) -> Invoice {
        let ask = Ask {
            amount: Msat(10_000),
            description,
            expiry: Duration::from_secs(60),
        };
        wallet.make_invoice(&ask).await.unwrap()
    }

    #[tokio::test]
    async fn an_invoice_names_its_award_its_node_and_its_time() {
        let network = Network::new(NOW);
        let (ada, bob) = (
            network.wallet("ada", Msat::ZERO),
            network.wallet("bob", Msat::ZERO),
        );
        let award = EventId::from_byte_array([7; 32]);
        let invoice = asked(&ada, invoice_description(&award)).await;
        let judge = |of: &Wallet, award: &EventId, now| {
            read(invoice.as_str(), award, &terms(of), now).map(|invoice| invoice.hash())
        };
        assert_eq!(judge(&ada, &award, NOW), Ok(invoice.hash()));
        let another_node = Flaw::Broken("its invoice is another node's");
        assert_eq!(judge(&bob, &award, NOW), Err(another_node));
        let no_award = Flaw::Broken("its invoice does not name the award");
        assert_eq!(judge(&ada, &EventId::all_zeros(), NOW), Err(no_award));
        assert_eq!(judge(&ada, &award, NOW + 60_u64), Err(Flaw::Expired));
        let nonsense = read("lnbc1", &award, &terms(&ada), NOW);
        assert_eq!(nonsense, Err(Flaw::Broken("its invoice cannot be read")));
    }

    #[tokio::test]
    async fn money_of_another_chain_is_not_ours() {
        let network = Network::new(NOW);
        let wallet = network.wallet("ada", Msat::ZERO);
        let ours = asked(&wallet, String::new()).await;
        let coffee: Invoice = COFFEE.parse().unwrap();
        let here = chain(&ours);
        assert_eq!(
            (here.as_str(), chain(&coffee).as_str()),
            ("regtest", "bitcoin")
        );
        assert_eq!(is_on(Some(here.clone()), &ours), Ok(()));
        let flaw = is_on(Some(here), &coffee).unwrap_err();
        assert!(flaw.to_string().contains("money on bitcoin"), "{flaw}");
        assert_eq!(is_on(None, &coffee), Ok(()));
    }
}
