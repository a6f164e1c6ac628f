//! Polynomials over the whole numbers modulo a prime.

use std::sync::OnceLock;

/// The greatest prime by which all bits of a bf16 that is a number, read as a whole
/// number, leave different remainders, as in TOPLOC.
pub(super) const PRIME: u32 = 65_497;

/// A polynomial, its coefficients from the constant on, each below [`PRIME`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Polynomial(Vec<u32>);

impl Polynomial {
    /// Of these coefficients.
    pub(super) fn of(coefficients: impl Iterator<Item = u16>) -> Self {
        Self(coefficients.map(|c| u32::from(c) % PRIME).collect())
    }

    /// The one of least degree through these points, whose places differ; all numbers
    /// are below [`PRIME`]. By Newton's divided differences.
    pub(super) fn through(points: &[(u32, u32)]) -> Self {
        let mut differences: Vec<u32> = points.iter().map(|&(_, value)| value).collect();
        for order in 1..points.len() {
            for at in (order..points.len()).rev() {
                let run = subtract(points[at].0, points[at - order].0);
                let rise = subtract(differences[at], differences[at - 1]);
                differences[at] = multiply(rise, inverse(run));
            }
        }
        // From the innermost bracket out: p := p · (x − place) + difference.
        let mut coefficients: Vec<u32> = Vec::with_capacity(points.len());
        for (&(place, _), &difference) in points.iter().zip(&differences).rev() {
            coefficients.insert(0, 0);
            for at in 1..coefficients.len() {
                let down = multiply(coefficients[at], place);
                coefficients[at - 1] = subtract(coefficients[at - 1], down);
            }
            coefficients[0] = add(coefficients[0], difference);
        }
        Self(coefficients)
    }

    /// Its value there.
    pub(super) fn at(&self, place: u32) -> u32 {
        let place = place % PRIME;
        let coefficients = self.0.iter().rev();
        coefficients.fold(0, |sum, &next| add(multiply(sum, place), next))
    }

    /// Its coefficients, from the constant on.
    pub(super) fn coefficients(&self) -> impl Iterator<Item = u16> {
        self.0.iter().map(|&coefficient| coefficient as u16)
    }
}

const fn add(a: u32, b: u32) -> u32 {
    (a + b) % PRIME
}

const fn subtract(a: u32, b: u32) -> u32 {
    (a + PRIME - b) % PRIME
}

const fn multiply(a: u32, b: u32) -> u32 {
    // The square of a number below 2^16 fits.
    a * b % PRIME
}

/// What a number other than 0 is to be multiplied with to give 1.
fn inverse(number: u32) -> u32 {
    static INVERSES: OnceLock<Vec<u16>> = OnceLock::new();
    let inverses = INVERSES.get_or_init(|| {
        let mut inverses = vec![0, 1];
        for number in 2..PRIME {
            // PRIME = quotient · number + remainder.
            let (quotient, remainder) = (PRIME / number, PRIME % number);
            let of_remainder = u32::from(inverses[remainder as usize]);
            inverses.push(multiply(PRIME - quotient, of_remainder) as u16);
        }
        inverses
    });
    u32::from(inverses[number as usize])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_number_has_an_inverse() {
        assert!((1..PRIME).all(|number| multiply(number, inverse(number)) == 1));
    }

    proptest! {
        #[test]
        fn it_goes_through_its_points(
            points in prop::collection::btree_map(0..PRIME, 0..PRIME, 0..129),
        ) {
            let points: Vec<_> = points.into_iter().collect();
            let polynomial = Polynomial::through(&points);
            prop_assert_eq!(polynomial.coefficients().count(), points.len());
            for (place, value) in points {
                prop_assert_eq!(polynomial.at(place), value);
            }
        }
    }
}
