//! Questions of the aggregator's own. They must look like anybody's.

use infernet_protocol::bounds::MAX_SAFE_INTEGER;
use infernet_protocol::inference::{Message, Prompt, Role};
use infernet_protocol::payload::Generate;
use rand::seq::IndexedRandom as _;

/// Questions of one job at most.
const MOST: usize = 8;

/// Tokens of one answer at most: what is longer shows no more.
const MOST_TOKENS: u32 = 256;

const ASKED: [&str; 12] = [
    "Write two sentences about",
    "Explain to a child",
    "List five facts about",
    "What are the advantages and disadvantages of",
    "Write a short product description for",
    "Summarise what is commonly known about",
    "Give three reasons why people care about",
    "Write a headline and a first paragraph about",
    "How would you describe",
    "Name common mistakes people make with",
    "Write a polite email asking about",
    "What should a beginner know about",
];

const KINDS: [&str; 12] = [
    "second-hand",
    "traditional",
    "modern",
    "small",
    "home-made",
    "cheap",
    "reliable",
    "popular",
    "old",
    "professional",
    "local",
    "public",
];

const THINGS: [&str; 24] = [
    "bicycles",
    "libraries",
    "bread",
    "gardens",
    "railways",
    "bridges",
    "coffee",
    "chess",
    "photography",
    "insurance",
    "solar panels",
    "museums",
    "software",
    "languages",
    "furniture",
    "weather stations",
    "football clubs",
    "hospitals",
    "savings accounts",
    "dictionaries",
    "sewing machines",
    "swimming pools",
    "newspapers",
    "lighthouses",
];

const PLACES: [&str; 12] = [
    "in a small town",
    "in winter",
    "for a family of four",
    "on a tight budget",
    "in the last fifty years",
    "near the sea",
    "for students",
    "at work",
    "in Europe",
    "after a long journey",
    "for older people",
    "in a big city",
];

/// Fresh questions, in the shape of these: as many, as long, drawn in the same way.
pub(super) fn like(requests: &[Generate]) -> Vec<Generate> {
    let shapes = requests.iter().take(MOST);
    shapes.map(question_like).collect()
}

fn question_like(shape: &Generate) -> Generate {
    let mut sampling = shape.sampling;
    sampling.seed = rand::random_range(0..=MAX_SAFE_INTEGER);
    Generate {
        prompt: prompt_like(&shape.prompt),
        sampling,
        max_tokens: shape.max_tokens.min(MOST_TOKENS),
        // A stop string may be a secret of the buyer's.
        stop: Vec::new(),
        prefix: Vec::new(),
    }
}

fn prompt_like(shape: &Prompt) -> Prompt {
    match shape {
        Prompt::Text(_) => Prompt::Text(question()),
        Prompt::Chat(_) => Prompt::Chat(vec![Message {
            role: Role::User,
            content: question(),
        }]),
    }
}

fn question() -> String {
    let words = [&ASKED[..], &KINDS, &THINGS, &PLACES];
    let drawn = words.map(|words| words.choose(&mut rand::rng()).copied().unwrap_or_default());
    format!("{}.", drawn.join(" "))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use infernet_protocol::inference::Sampling;

    use super::*;

    fn shape(max_tokens: u32) -> Generate {
        Generate {
            prompt: Prompt::Text("A secret.".into()),
            sampling: Sampling {
                temperature: 0.5,
                ..Sampling::default()
            },
            max_tokens,
            stop: vec!["secret".into()],
            prefix: vec![],
        }
    }

    #[test]
    fn they_have_the_shape_of_the_work_and_nothing_of_its_words() {
        let like = like(&vec![shape(10_000); 20]);
        assert_eq!(like.len(), MOST);
        for question in like {
            assert_eq!(question.sampling.temperature, 0.5);
            assert_eq!(question.max_tokens, MOST_TOKENS);
            assert!(question.stop.is_empty());
            assert!(matches!(question.prompt, Prompt::Text(text) if !text.contains("secret")));
        }
    }

    #[test]
    fn they_seldom_come_twice() {
        let questions: HashSet<_> = (0..200).map(|_| question()).collect();
        assert!(questions.len() > 180);
    }
}
