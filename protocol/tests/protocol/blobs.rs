//! Payloads that are sealed into blobs.

use infernet_protocol::batch::Blob;
use infernet_protocol::bounds::{MAX_BLOB_BYTES, MAX_BLOB_PAYLOAD_BYTES};
use infernet_protocol::seal::blob::{Outsized, decrypt, encrypt};
use infernet_protocol::seal::{Error, Sealed};
use nostr::secp256k1::rand::SeedableRng as _;
use nostr::secp256k1::rand::rngs::StdRng;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::parties::{buyer, provider, stranger};

const KEY: [u8; 32] = [7; 32];

fn made(payload: &[u8], seed: u64) -> Vec<u8> {
    encrypt(&KEY, payload, &mut StdRng::seed_from_u64(seed)).unwrap()
}

fn close(payload: &[u8]) -> Result<Outsized, Error> {
    let mut rng = StdRng::seed_from_u64(1);
    let reader = provider().public_key();
    Sealed::close_outsized(payload, buyer().secret_key(), &reader, &mut rng)
}

fn at_a_server(outsized: Outsized) -> (Sealed, Vec<u8>) {
    let bytes = outsized.bytes().to_vec();
    let blob = Blob::of(&bytes, vec!["https://blobs.example".into()]);
    (outsized.lies_in(blob), bytes)
}

proptest! {
    #![proptest_config(crate::cases(100))]

    #[test]
    fn what_is_encrypted_is_decrypted(payload in vec(any::<u8>(), 1..5_000), seed: u64) {
        let blob = made(&payload, seed);
        prop_assert!(blob.len() <= (payload.len() + 44).max(64) * 5 / 4 + 32);
        prop_assert_eq!(decrypt(&[8; 32], blob.clone()), Err(Error::Closed));
        prop_assert_eq!(decrypt(&KEY, blob), Ok(payload));
    }

    #[test]
    fn an_altered_byte_or_a_cut_keeps_it_closed(
        payload in vec(any::<u8>(), 1..500),
        at in any::<prop::sample::Index>(),
        cut: bool,
    ) {
        let mut blob = made(&payload, 1);
        let at = at.index(blob.len());
        match cut {
            true => blob.truncate(at),
            false => blob[at] ^= 1,
        }
        prop_assert_eq!(decrypt(&KEY, blob), Err(Error::Closed));
    }
}

#[test]
fn a_size_tells_little() {
    let of = |bytes| made(&vec![1; bytes], 1).len();
    assert_eq!(of(33_000), of(36_000));
    assert_eq!(of(MAX_BLOB_PAYLOAD_BYTES) as u64, MAX_BLOB_BYTES);
}

#[test]
fn nothing_and_too_much_is_no_blob() {
    for bytes in [0, MAX_BLOB_PAYLOAD_BYTES + 1] {
        let refused = close(&vec![1; bytes]);
        assert_eq!(refused, Err(Error::TooLargeForBlob { bytes }));
    }
}

#[test]
fn both_sides_open_what_was_fetched_and_nobody_else() {
    let payload = vec![b'x'; 100_000];
    let (sealed, bytes) = at_a_server(close(&payload).unwrap());
    let (buyer, provider, stranger) = (buyer(), provider(), stranger());
    let opened = |own: &nostr::Keys, other: &nostr::Keys| {
        sealed.open_fetched(bytes.clone(), own.secret_key(), &other.public_key())
    };
    assert_eq!(opened(&provider, &buyer), Ok(payload.clone()));
    assert_eq!(opened(&buyer, &provider), Ok(payload.clone()));
    assert_eq!(opened(&stranger, &buyer), Err(Error::Closed));
    let key = sealed.unwrap_key(provider.secret_key(), &buyer.public_key());
    assert_eq!(sealed.open_fetched_with(bytes, &key.unwrap()), Ok(payload));
}

#[test]
fn another_blob_is_not_opened_nor_one_that_is_not_fetched() {
    let (sealed, _) = at_a_server(close(&[1; 100]).unwrap());
    let (_, others) = at_a_server(close(&[2; 100]).unwrap());
    let (own, other) = (provider(), buyer().public_key());
    let opened = sealed.open_fetched(others, own.secret_key(), &other);
    assert_eq!(opened, Err(Error::WrongHash));
    let opened = sealed.open(own.secret_key(), &other);
    assert_eq!(opened, Err(Error::Elsewhere));
}
