//! Cutting a batch file into groups, which are paid for together: the same file into the same groups.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::sync::Arc;

use infernet_protocol::batch::Size;
use infernet_protocol::bounds::MAX_SAFE_INTEGER;
use infernet_protocol::event::Quote;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::Work;
use sha2::{Digest as _, Sha256};

use super::journal::{Kept, Place};
use super::line::{Flaw, Line};
use super::reader::{Raw, Reader};
use super::scan::{Scan, add, open_at};

/// Lines of a group: enough to keep several providers busy, few enough that little is at stake at a time.
const MAX_LINES: u64 = 512;

/// Bytes of its lines, which are in memory while it is sent.
const MAX_BYTES: u64 = 4 << 20;

/// Tokens that its answers may have: they come in one blob.
const MAX_OUTPUT_TOKENS: u64 = 1_000_000;

/// Texts that are embedded in it: their vectors come in one blob, 16 KiB each if they are long.
const MAX_TEXTS: u64 = 512;

/// What a group may be at most.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub quote: Quote,
    /// The most that is held for it.
    pub max_hold: Msat,
}

/// A group that was cut off. Lines that cannot be done are in it too, as far as its places say.
pub(super) struct Cut {
    pub number: u32,
    pub begin: Place,
    pub end: Place,
    pub size: Size,
    /// The works of the lines that can be done.
    pub works: Vec<Work>,
    /// Texts in them that are to be embedded.
    texts: u64,
}

impl Cut {
    /// What is written down of it. Without a line that can be done it is over.
    pub fn kept(&self) -> Kept {
        Kept {
            number: self.number,
            begin: self.begin,
            end: self.end,
            size: self.size,
            input: None,
            invoice: None,
            delivery: None,
            opens: None,
            failed: None,
            verified: 0,
            is_over: self.works.is_empty(),
        }
    }
}

/// Cuts groups off.
pub(super) struct Cutter {
    reader: Reader<BufReader<File>>,
    rules: Rules,
    bounds: Bounds,
    seed: [u8; 32],
    next: u32,
    begin: Place,
    /// A line that did not fit into the group before.
    left: Option<Read>,
}

/// How the lines of a file are read.
#[derive(Clone)]
pub(super) struct Rules {
    pub scan: Arc<Scan>,
    /// Stands for whatever model the lines name.
    pub model: Option<String>,
}

/// A line as it was read.
struct Read {
    line: Result<Line, Flaw>,
    bytes: u64,
    /// Its number, from 0.
    number: u64,
    end: Place,
}

impl Rules {
    /// The works between two places of a file, as they were cut off before.
    pub fn works(&self, path: &Path, seed: &[u8; 32], kept: &Kept) -> io::Result<Vec<Work>> {
        let begin = kept.begin;
        let mut reader = Reader::at(open_at(path, begin.byte)?, begin.byte, begin.line);
        let mut works = Vec::new();
        while reader.offset < kept.end.byte {
            let number = reader.lines;
            match self.next(&mut reader)? {
                Some(Ok(line)) => works.push(seeded(line, seed, number)),
                Some(Err(_)) => {}
                None => break,
            }
        }
        Ok(works)
    }

    /// The next line of a reader.
    pub fn next(
        &self,
        reader: &mut Reader<BufReader<File>>,
    ) -> io::Result<Option<Result<Line, Flaw>>> {
        let number = reader.lines;
        let raw = reader.next(|_| {})?;
        Ok(raw.map(|raw| self.scan.line(&raw, number, self.model.as_deref())))
    }
}

impl Cutter {
    /// A cutter that goes on behind this many groups, at this place.
    pub fn at(
        path: &Path,
        rules: Rules,
        bounds: Bounds,
        seed: [u8; 32],
        (next, begin): (u32, Place),
    ) -> io::Result<Self> {
        Ok(Self {
            reader: Reader::at(open_at(path, begin.byte)?, begin.byte, begin.line),
            rules,
            bounds,
            seed,
            next,
            begin,
            left: None,
        })
    }

    /// The next group; nothing at the end of the file.
    pub fn next(&mut self) -> io::Result<Option<Cut>> {
        let mut cut = Cut {
            number: self.next,
            begin: self.begin,
            end: self.begin,
            size: Size::default(),
            works: Vec::new(),
            texts: 0,
        };
        let mut bytes = 0;
        while let Some(read) = self.read()? {
            if let Ok(line) = &read.line
                && !self.has_room(&cut, bytes + read.bytes, &line.work)
            {
                self.left = Some(read);
                break;
            }
            bytes += read.bytes;
            cut.end = read.end;
            if let Ok(line) = read.line {
                let work = seeded(line, &self.seed, read.number);
                add(&mut cut.size, &work);
                cut.texts += texts_in(&work);
                cut.works.push(work);
            }
        }
        self.next += 1;
        self.begin = cut.end;
        Ok((cut.end != cut.begin).then_some(cut))
    }

    fn read(&mut self) -> io::Result<Option<Read>> {
        if let Some(left) = self.left.take() {
            return Ok(Some(left));
        }
        let (number, begin) = (self.reader.lines, self.reader.offset);
        let raw = self.reader.next(|_| {})?;
        let line = raw.map(|raw: Raw<'_>| {
            let model = self.rules.model.as_deref();
            self.rules.scan.line(&raw, number, model)
        });
        Ok(line.map(|line| Read {
            line,
            bytes: self.reader.offset - begin,
            number,
            end: Place {
                byte: self.reader.offset,
                line: self.reader.lines,
            },
        }))
    }

    /// Whether one more line has room in a group. The first always has.
    fn has_room(&self, cut: &Cut, bytes: u64, work: &Work) -> bool {
        let mut size = cut.size;
        add(&mut size, work);
        let most = self.bounds.quote.most_for(&size);
        let is_held = most.is_some_and(|most| most <= self.bounds.max_hold);
        let fits = size.lines <= MAX_LINES
            && bytes <= MAX_BYTES
            && size.output_tokens <= MAX_OUTPUT_TOKENS
            && cut.texts + texts_in(work) <= MAX_TEXTS
            && is_held;
        fits || cut.works.is_empty()
    }
}

fn texts_in(work: &Work) -> u64 {
    match work {
        Work::Embedding { texts } => texts.len() as u64,
        _ => 0,
    }
}

/// The work of a line; with a seed, which is always the same one, where it names none.
fn seeded(line: Line, seed: &[u8; 32], number: u64) -> Work {
    let mut work = line.work;
    if let Work::TextGeneration(generate) = &mut work
        && !line.is_seeded
    {
        let mut hash = Sha256::new();
        hash.update(b"infernet/batch-seed/1");
        hash.update(seed);
        hash.update(number.to_be_bytes());
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
        generate.sampling.seed = u64::from_be_bytes([a, b, c, d, e, f, g, h]) & MAX_SAFE_INTEGER;
    }
    work
}
