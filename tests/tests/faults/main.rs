//! No crash and no fault loses or doubles a sat: real processes, real Lightning on a private regtest.
//!
//! [`kill_points`] kills a process at each named point of a paid job, one after the other; [`outages`] takes away the
//! relay, a wallet, an answer; [`interrupted`] stops jobs again and again. After each, [`books`] compares what both
//! sides' ledgers, both wallets and all receipts say, to the last msat.
//!
//! `make faults` runs all of it; `make test` runs what [`shop::is_left_out`] does not leave out. A single row of the table:
//! `INFERNET_FAULTS=client/wallet-told cargo test -p infernet-tests --test faults kills`.
//!
//! What one side alone has to stand is tried there, in virtual time where it takes minutes:
//!
//! | fault | test |
//! |---|---|
//! | a payment that stays pending | here: `outages`; client: `a_payment_that_is_stuck_is_paid_once_and_found_on_the_tab_later` |
//! | a payment that fails after minutes | client: `a_payment_that_fails_after_minutes_costs_nothing` |
//! | a payment whose answer is lost | client: `a_lost_answer_and_doubled_news_pay_nothing_twice` |
//! | an invoice that expires | client: `an_invoice_that_has_run_out_is_asked_for_anew_and_one_that_comes_twice_is_paid_once`; provider: `an_invoice_that_has_run_out_is_made_anew` |
//! | an invoice for another node or award | client: `who_claims_what_is_not_so_is_invalid` |
//! | an invoice for too much | client: `who_asks_for_too_much_is_asked_for_less`, `more_is_not_paid_ahead_than_is_risked` |
//! | an underpaid top-up | provider: `a_top_up_of_which_less_has_come_counts_for_that_much` |
//! | totals that disagree | client: `who_claims_more_than_it_sends_is_not_acknowledged_and_charges_nothing_for_it`; provider: `a_buyer_that_counts_differently_ends_it` |
//! | a buyer who never pays | here: `outages`; provider: `who_never_pays_is_declined_and_nothing_is_published`, `who_stops_paying_gets_what_was_paid_for` |
//! | a provider who takes the money and stops | here: `outages`; client: `who_takes_the_money_and_stops_has_one_top_up_and_a_bad_word` |
//! | a flood of awards that ask for invoices | provider: `a_flood_of_awards_that_nobody_pays_keeps_no_paying_buyer_out`, `one_stranger_has_few_invoices_at_a_time` |
//! | the wallet unreachable | here: `outages`; client: `a_wallet_that_stays_away_ends_the_job_and_blames_nobody`; provider: `what_is_paid_for_goes_on_without_the_wallet` |
//! | the relay cut off | here: `outages`, and the relay's rows of `kill_points` |
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod books;
mod escrow;
mod interrupted;
mod kill_points;
mod outages;
mod shop;
mod wire;
