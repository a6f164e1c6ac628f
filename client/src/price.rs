//! Prices for people: what a buyer pays is some satoshis, and what it asks for some hundred tokens.

use std::fmt;

use infernet_protocol::money::Price;

/// From here on, in msat per million tokens, a price is shown for a thousand tokens: a satoshi of them.
const A_SAT_PER_THOUSAND: u64 = 1_000_000;

/// The smallest amount that is shown, in satoshis.
const LEAST: f64 = 0.001;

/// A price in words, rounded to three digits: "50 + 200 sat per 1,000 tokens" of input and of output.
#[derive(Debug, Clone, Copy)]
pub struct InWords<'a>(pub &'a Price);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let price = self.0;
        if price.is_free() {
            return f.write_str("free");
        }
        let (msat_of_a_sat, tokens) = match price.input_msat.max(price.output_msat) {
            A_SAT_PER_THOUSAND.. => (1e6, "1,000"),
            _ => (1e3, "million"),
        };
        let [input, output] =
            [price.input_msat, price.output_msat].map(|msat| rounded(msat as f64 / msat_of_a_sat));
        write!(f, "{input} + {output} sat per {tokens} tokens")
    }
}

/// An amount with three digits, or with all that it has before the point.
fn rounded(sat: f64) -> String {
    if sat > 0.0 && sat < LEAST {
        return format!("<{LEAST}");
    }
    let decimals = match sat {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let shown = format!("{sat:.decimals$}");
    match shown.contains('.') {
        true => shown.trim_end_matches('0').trim_end_matches('.').into(),
        false => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_shown_for_as_many_tokens_as_cost_something() {
        let cases = [
            (0, 0, "free"),
            (50_000_000, 200_000_000, "50 + 200 sat per 1,000 tokens"),
            (
                1_000_000_000,
                1_000_000_000,
                "1000 + 1000 sat per 1,000 tokens",
            ),
            (1_234_567, 12_345_678, "1.23 + 12.3 sat per 1,000 tokens"),
            (0, 1_000_000, "0 + 1 sat per 1,000 tokens"),
            (1, 123_456_789, "<0.001 + 123 sat per 1,000 tokens"),
            (10_000, 80_000, "10 + 80 sat per million tokens"),
            (0, 999_999, "0 + 1000 sat per million tokens"),
            (0, 1, "0 + 0.001 sat per million tokens"),
            (100, 400, "0.1 + 0.4 sat per million tokens"),
        ];
        for (input_msat, output_msat, shown) in cases {
            let price = Price {
                input_msat,
                output_msat,
            };
            assert_eq!(InWords(&price).to_string(), shown);
        }
    }
}
