//! How a group is cut: into shards of about the same work, which one provider does at
//! a time.

use infernet_client::Request;
use infernet_protocol::bounds::{MAX_GROUP_RESULTS, MAX_REQUESTS, MAX_SEALED_BYTES, MAX_TEXTS};
use infernet_protocol::event::Limits;
use infernet_protocol::inference::Task;
use infernet_protocol::payload::{Generate, Work};

/// Shards of a group: a settlement lists what each has brought, and has to have room
/// for what was bought again.
const MAX_SHARDS: usize = MAX_GROUP_RESULTS * 3 / 4;

/// How many times faster a prompt is read than an answer is drawn.
const READ_FASTER: u64 = 8;

/// The least that a shard is worth while: below, its own overhead shows.
const LEAST_TOKENS: u64 = 256;

/// Shards that each place at a provider gets at least, if there is work enough: the
/// last ones then end at about the same time.
const SHARDS_EACH: u64 = 4;

/// Bytes of a shard's input beside its lines.
const AROUND_BYTES: usize = 512;

/// One line's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// Tokens, as a buyer guesses them.
    pub limits: Limits,
    /// How much work it is, in tokens drawn.
    pub weight: u64,
    /// Texts that it has to embed.
    pub texts: usize,
    /// Bytes of its JSON.
    pub bytes: usize,
}

impl Measure {
    /// A line's size; `None` if it is not of this task.
    pub fn of(line: &Work, task: Task) -> Option<Self> {
        let (request, texts) = match line {
            Work::TextGeneration(generate) if task == Task::TextGeneration => {
                (Request::shard("", [generate.clone()]), 0)
            }
            Work::Embedding { texts } if task == Task::Embedding => {
                (Request::embedding(None, texts), texts.len())
            }
            Work::TextGeneration(_)
            | Work::Embedding { .. }
            | Work::Tensors { .. }
            | Work::Shard { .. }
            | Work::Verify { .. } => return None,
        };
        let limits = request.limits();
        Some(Self {
            limits,
            weight: weight(&limits),
            texts,
            bytes: serde_json::to_vec(line).map_or(usize::MAX, |json| json.len()),
        })
    }
}

/// How much work so many tokens are, in tokens drawn.
pub fn weight(limits: &Limits) -> u64 {
    u64::from(limits.output_tokens) + u64::from(limits.input_tokens).div_ceil(READ_FASTER)
}

/// Sizes together.
pub fn sum<'a>(measures: impl IntoIterator<Item = &'a Measure>) -> Limits {
    let none = Limits {
        input_tokens: 0,
        output_tokens: 0,
    };
    measures.into_iter().fold(none, |sum, one| Limits {
        input_tokens: sum.input_tokens.saturating_add(one.limits.input_tokens),
        output_tokens: sum.output_tokens.saturating_add(one.limits.output_tokens),
    })
}

/// Cuts lines into shards of about `shard_tokens` of work, fewer where there are
/// `places` enough at providers for all of it to run side by side. Lines without a
/// measure are in none.
pub fn cut(measures: &[Option<Measure>], shard_tokens: u64, places: u64) -> Vec<Vec<u32>> {
    let all: u64 = measures
        .iter()
        .flatten()
        .map(|measure| measure.weight)
        .sum();
    let even = all / (SHARDS_EACH * places.max(1));
    let least = all.div_ceil(MAX_SHARDS as u64 / 2);
    let target = even
        .clamp(LEAST_TOKENS.min(shard_tokens), shard_tokens)
        .max(least);
    let mut shards = vec![];
    let mut shard = Draft::default();
    for (number, measure) in (0_u32..).zip(measures) {
        let Some(measure) = measure else { continue };
        if shard.is_full(measure, target) {
            shards.push(std::mem::take(&mut shard).lines);
        }
        shard.add(number, measure);
    }
    if !shard.lines.is_empty() {
        shards.push(shard.lines);
    }
    merge_smallest(shards)
}

/// Joins neighbours until there are not too many. Bytes and texts may have cut finer
/// than the work did.
fn merge_smallest(mut shards: Vec<Vec<u32>>) -> Vec<Vec<u32>> {
    while shards.len() > MAX_SHARDS {
        let joined = shards.chunks(2).map(<[Vec<u32>]>::concat);
        shards = joined.collect();
    }
    shards
}

#[derive(Default)]
struct Draft {
    lines: Vec<u32>,
    weight: u64,
    texts: usize,
    bytes: usize,
}

impl Draft {
    fn is_full(&self, next: &Measure, target: u64) -> bool {
        let fits = self.weight + next.weight <= target
            && self.lines.len() < MAX_REQUESTS
            && self.texts + next.texts <= MAX_TEXTS
            && self.bytes + next.bytes + AROUND_BYTES <= MAX_SEALED_BYTES;
        !self.lines.is_empty() && !fits
    }

    fn add(&mut self, number: u32, measure: &Measure) {
        self.lines.push(number);
        self.weight += measure.weight;
        self.texts += measure.texts;
        self.bytes += measure.bytes;
    }
}

/// The work of a shard: its lines' texts to generate, or to embed, together.
pub fn work(task: Task, lines: &[Work], numbers: &[u32]) -> Work {
    let of_shard = numbers
        .iter()
        .filter_map(|number| lines.get(*number as usize));
    match task {
        Task::Embedding => Work::Embedding {
            texts: of_shard.flat_map(texts).cloned().collect(),
        },
        Task::TextGeneration | Task::Tensors | Task::Verify => Work::Shard {
            requests: of_shard.filter_map(request).cloned().collect(),
        },
    }
}

const fn request(line: &Work) -> Option<&Generate> {
    match line {
        Work::TextGeneration(generate) => Some(generate),
        Work::Embedding { .. }
        | Work::Tensors { .. }
        | Work::Shard { .. }
        | Work::Verify { .. } => None,
    }
}

/// The texts that a line has embedded.
pub fn texts(line: &Work) -> &[String] {
    match line {
        Work::Embedding { texts } => texts,
        Work::TextGeneration(_)
        | Work::Tensors { .. }
        | Work::Shard { .. }
        | Work::Verify { .. } => &[],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use infernet_protocol::inference::{Prompt, Sampling};
    use proptest::prelude::*;

    use super::*;

    fn line(prompt: usize, max_tokens: u32) -> Work {
        Work::TextGeneration(Generate {
            prompt: Prompt::Text("x".repeat(prompt.max(1))),
            sampling: Sampling::default(),
            max_tokens,
            stop: vec![],
            prefix: vec![],
        })
    }

    fn measures(lines: &[Work]) -> Vec<Option<Measure>> {
        let measure = |line| Measure::of(line, Task::TextGeneration);
        lines.iter().map(measure).collect()
    }

    #[test]
    fn lines_of_another_task_are_in_no_shard() {
        let embedding = Work::Embedding {
            texts: vec!["a".into()],
        };
        let lines = [line(3, 8), embedding, line(3, 8)];
        let shards = cut(&measures(&lines), 8_192, 1);
        assert_eq!(shards, [[0, 2]]);
        let Work::Shard { requests } = work(Task::TextGeneration, &lines, &shards[0]) else {
            panic!("it is a shard of texts");
        };
        assert_eq!(requests.len(), 2);
    }

    #[test]
    fn there_are_shards_for_every_place() {
        let lines = vec![line(30, 100); 64];
        let shards = |places| cut(&measures(&lines), 8_192, places).len();
        assert_eq!(shards(1), 4);
        assert!(shards(4) >= 16);
        assert!(shards(8) >= 24);
    }

    #[test]
    fn texts_to_embed_are_joined() {
        let line = Work::Embedding {
            texts: vec!["some text".into(); 3],
        };
        let lines = vec![line; 100];
        let measures: Vec<_> = lines
            .iter()
            .map(|l| Measure::of(l, Task::Embedding))
            .collect();
        let shards = cut(&measures, 8_192, 1);
        assert!(shards.len() <= 4, "{shards:?}");
        for shard in &shards {
            let Work::Embedding { texts } = work(Task::Embedding, &lines, shard) else {
                panic!("it is texts to embed");
            };
            assert_eq!(texts.len(), 3 * shard.len());
            assert!(texts.len() <= MAX_TEXTS);
        }
    }

    proptest! {
        #[test]
        fn every_line_is_in_one_shard_and_no_shard_is_out_of_bounds(
            sizes in prop::collection::vec((1_usize..2_000, 1_u32..4_000), 1..600),
            shard_tokens in 1_u64..20_000,
            places in 0_u64..64,
        ) {
            let lines: Vec<Work> = sizes.iter().map(|(p, m)| line(*p, *m)).collect();
            let shards = cut(&measures(&lines), shard_tokens, places);
            let all: Vec<u32> = shards.concat();
            prop_assert_eq!(all, (0..sizes.len() as u32).collect::<Vec<_>>());
            prop_assert!(shards.len() <= MAX_SHARDS);
            for shard in &shards {
                prop_assert!(!shard.is_empty() && shard.len() <= MAX_REQUESTS);
            }
        }
    }
}
