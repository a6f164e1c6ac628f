//! Where websocket messages begin and end in a stream of bytes (RFC 6455 §5.2).
//!
//! The session's library takes frames of any size. A [`Scanner`] reads the headers that go by, so that a message over
//! the bound is known from its header, before anybody keeps a byte of it.

/// Bytes of the longest frame header: two, eight of extended length, four of mask.
const MAX_HEADER: usize = 14;

/// Opcode of a frame that continues the message before it.
const CONTINUATION: u8 = 0x0;

/// The first opcode of control frames, which may stand between the frames of a message.
const FIRST_CONTROL: u8 = 0x8;

/// A message is larger than the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

/// Follows the frames of one direction of a websocket.
#[derive(Debug)]
pub struct Scanner {
    max_message_bytes: u64,
    header: [u8; MAX_HEADER],
    header_len: usize,
    payload_left: u64,
    message_bytes: u64,
    message_open: bool,
}

impl Scanner {
    /// A scanner at the start of a stream.
    pub fn new(max_message_bytes: usize) -> Self {
        Self {
            max_message_bytes: max_message_bytes as u64,
            header: [0; MAX_HEADER],
            header_len: 0,
            payload_left: 0,
            message_bytes: 0,
            message_open: false,
        }
    }

    /// Whether the last message is complete, and nothing of the next one has come.
    pub fn between_messages(&self) -> bool {
        self.header_len == 0 && self.payload_left == 0 && !self.message_open
    }

    /// Takes the next bytes of the stream and answers how many frames begin their payload in them.
    ///
    /// # Errors
    /// When a message announces more bytes than the bound; the scanner is of no use then.
    pub fn advance(&mut self, mut bytes: &[u8]) -> Result<u32, TooLarge> {
        let mut frames = 0;
        while let Some((&first, rest)) = bytes.split_first() {
            if self.payload_left > 0 {
                let skipped = self.payload_left.min(bytes.len() as u64);
                self.payload_left -= skipped;
                // At most `bytes.len()`, so it fits.
                bytes = &bytes[skipped as usize..];
                continue;
            }
            self.header[self.header_len] = first;
            self.header_len += 1;
            bytes = rest;
            if self.header_len == self.header_bytes() {
                self.begin_payload()?;
                frames += 1;
            }
        }
        Ok(frames)
    }

    /// The length that the header has by what is known of it.
    fn header_bytes(&self) -> usize {
        if self.header_len < 2 {
            return 2;
        }
        let extended = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        2 + extended + mask
    }

    fn begin_payload(&mut self) -> Result<(), TooLarge> {
        let (last, opcode) = (self.header[0] & 0x80 != 0, self.header[0] & 0x0f);
        self.header_len = 0;
        self.payload_left = self.payload_bytes();
        if opcode < FIRST_CONTROL {
            if opcode != CONTINUATION {
                self.message_bytes = 0;
            }
            self.message_bytes = self.message_bytes.saturating_add(self.payload_left);
            self.message_open = !last;
        }
        if self.message_bytes.max(self.payload_left) > self.max_message_bytes {
            return Err(TooLarge);
        }
        Ok(())
    }

    fn payload_bytes(&self) -> u64 {
        let [_, short, a, b, c, d, e, f, g, h, ..] = self.header;
        match short & 0x7f {
            126 => u64::from(u16::from_be_bytes([a, b])),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            short => u64::from(short),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const TEXT: u8 = 0x81;
    const TEXT_WITH_MORE: u8 = 0x01;
    const LAST_CONTINUATION: u8 = 0x80;
    const PING: u8 = 0x89;

    /// A masked frame, as clients send it.
    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match payload {
            0..=125 => frame.push(0x80 | payload as u8),
            126..=65_535 => {
                frame.push(0x80 | 126);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend([1, 2, 3, 4]);
        frame.extend(vec![0xff; payload]);
        frame
    }

    #[test]
    fn the_bound_itself_passes_and_one_byte_more_does_not() {
        for bound in [10, 125, 126, 65_535, 65_536, 131_072] {
            let mut scanner = Scanner::new(bound);
            assert_eq!(scanner.advance(&frame(TEXT, bound)), Ok(1));
            assert!(scanner.between_messages());
            assert_eq!(scanner.advance(&frame(TEXT, bound + 1)), Err(TooLarge));
        }
    }

    #[test]
    fn a_length_of_all_ones_is_too_large() {
        let header = [
            TEXT, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4,
        ];
        assert_eq!(Scanner::new(1 << 20).advance(&header), Err(TooLarge));
    }

    #[test]
    fn the_pieces_of_a_message_count_together() {
        let mut scanner = Scanner::new(100);
        scanner.advance(&frame(TEXT_WITH_MORE, 60)).unwrap();
        assert!(!scanner.between_messages());
        scanner.advance(&frame(PING, 5)).unwrap();
        assert_eq!(
            scanner.advance(&frame(LAST_CONTINUATION, 41)),
            Err(TooLarge)
        );

        let mut scanner = Scanner::new(100);
        scanner.advance(&frame(TEXT_WITH_MORE, 60)).unwrap();
        scanner.advance(&frame(LAST_CONTINUATION, 40)).unwrap();
        assert!(scanner.between_messages());
        assert_eq!(scanner.advance(&frame(TEXT, 100)), Ok(1));
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_does_not_matter(
            sizes in proptest::collection::vec(0_usize..70_000, 1..6),
            cut in 1_usize..9_000,
        ) {
            let stream: Vec<u8> = sizes.iter().flat_map(|size| frame(TEXT, *size)).collect();
            let mut scanner = Scanner::new(70_000);
            let frames: u32 = stream.chunks(cut).map(|part| scanner.advance(part).unwrap()).sum();
            prop_assert_eq!(frames as usize, sizes.len());
            prop_assert!(scanner.between_messages());
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4_000)) {
            let _ = Scanner::new(1_000).advance(&bytes);
        }
    }
}
