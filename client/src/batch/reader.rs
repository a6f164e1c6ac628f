//! Reading a batch file line by line, whatever is in it, in bounded memory.

use std::io::{self, BufRead};

use super::line::MAX_LINE_BYTES;

/// A line as it stands in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Raw<'a> {
    /// Its bytes, without the end of the line.
    Bytes(&'a [u8]),
    /// It is longer than a line may be; the rest of it was passed over.
    TooLong,
}

/// What some programs put before the first line of a text. It is no part of it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads lines. Empty ones are passed over.
pub(super) struct Reader<R> {
    source: R,
    buffer: Vec<u8>,
    /// Bytes read so far, ends of lines counted in.
    pub offset: u64,
    /// Lines read so far, empty ones not counted.
    pub lines: u64,
}

impl<R: BufRead> Reader<R> {
    pub const fn new(source: R) -> Self {
        Self::at(source, 0, 0)
    }

    /// A reader of a source that begins at this place of the file.
    pub const fn at(source: R, offset: u64, lines: u64) -> Self {
        Self {
            source,
            buffer: Vec::new(),
            offset,
            lines,
        }
    }

    /// The next line, and whatever `see` wants to do with all bytes of the file.
    pub fn next(&mut self, mut see: impl FnMut(&[u8])) -> io::Result<Option<Raw<'_>>> {
        loop {
            let is_first = self.offset == 0;
            let Some(is_too_long) = self.fill(&mut see)? else {
                return Ok(None);
            };
            let skipped = match is_first && self.buffer.starts_with(BYTE_ORDER_MARK) {
                true => BYTE_ORDER_MARK.len(),
                false => 0,
            };
            let is_blank = self.buffer[skipped..].iter().all(u8::is_ascii_whitespace);
            if is_too_long || !is_blank {
                self.lines += 1;
                return Ok(Some(match is_too_long {
                    true => Raw::TooLong,
                    false => Raw::Bytes(&self.buffer[skipped..]),
                }));
            }
        }
    }

    /// Reads up to the end of a line; nothing at the end of the file.
    fn fill(&mut self, see: &mut impl FnMut(&[u8])) -> io::Result<Option<bool>> {
        self.buffer.clear();
        let (mut is_too_long, mut is_any) = (false, false);
        loop {
            let chunk = self.source.fill_buf()?;
            if chunk.is_empty() {
                return Ok(is_any.then_some(is_too_long));
            }
            is_any = true;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            let line = &chunk[..end.unwrap_or(chunk.len())];
            is_too_long |= self.buffer.len() + line.len() > MAX_LINE_BYTES;
            if !is_too_long {
                self.buffer.extend_from_slice(line);
            }
            see(&chunk[..taken]);
            self.offset += taken as u64;
            self.source.consume(taken);
            if end.is_some() {
                return Ok(Some(is_too_long));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn lines_come_with_their_places_and_empty_ones_do_not_count() {
        let text = b"one\n\n  \r\ntwo\r\nthree";
        let mut seen = Vec::new();
        let mut reader = Reader::new(&text[..]);
        let mut lines = Vec::new();
        while let Some(line) = reader.next(|bytes| seen.extend_from_slice(bytes)).unwrap() {
            let Raw::Bytes(line) = line else {
                panic!("none is too long")
            };
            lines.push(String::from_utf8(line.to_vec()).unwrap());
        }
        assert_eq!(lines, ["one", "two\r", "three"]);
        assert_eq!((reader.offset, reader.lines), (text.len() as u64, 3));
        assert_eq!(seen, text);
    }

    #[test]
    fn a_mark_before_the_first_line_is_no_part_of_it() {
        let text = b"\xef\xbb\xbfone\n\xef\xbb\xbftwo\n";
        let mut seen = Vec::new();
        let mut reader = Reader::new(&text[..]);
        let first = reader.next(|bytes| seen.extend_from_slice(bytes)).unwrap();
        assert_eq!(first, Some(Raw::Bytes(b"one")));
        let second = reader.next(|bytes| seen.extend_from_slice(bytes)).unwrap();
        assert_eq!(second, Some(Raw::Bytes(b"\xef\xbb\xbftwo")));
        assert_eq!(seen, text, "it is of the file that is hashed");
        let mut marked = Reader::new(&b"\xef\xbb\xbf\n"[..]);
        assert_eq!(marked.next(|_| {}).unwrap(), None);
    }

    #[test]
    fn a_line_without_end_is_passed_over_without_being_kept() {
        let mut text = vec![b'x'; 3 * MAX_LINE_BYTES];
        text.extend_from_slice(b"\nnext\n");
        let mut reader = Reader::new(io::BufReader::new(&text[..]));
        assert_eq!(reader.next(|_| {}).unwrap(), Some(Raw::TooLong));
        assert_eq!(reader.next(|_| {}).unwrap(), Some(Raw::Bytes(b"next")));
        assert!(reader.buffer.capacity() <= 2 * MAX_LINE_BYTES);
        assert_eq!(reader.next(|_| {}).unwrap(), None);
    }
}
