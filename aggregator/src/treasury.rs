//! The money: holds, claims, payouts, bonds.
