//! Buying a channel from a seller that speaks LSPS2.
