//! Models in a GGUF.

use std::path::Path;

use infernet_protocol::inference::Task;

use super::Parts;
use crate::chat::ChatTemplate;
use crate::error::LoadError;
use crate::formats::gguf::Gguf;
use crate::formats::{damaged, unsupported};
use crate::manifest::{Digest, File, FileRole, Manifest};
use crate::models::Placement;
use crate::models::family::{Family, Metadata};
use crate::tokenizer::Tokenizer;

pub(super) fn load(path: &Path, placement: Placement) -> Result<Parts, LoadError> {
    let gguf = Gguf::open(path)?;
    let Some((family, own)) = Family::in_gguf(gguf.architecture()) else {
        let what = format!(
            "the architecture {} (there are {})",
            gguf.architecture(),
            Family::all_in_gguf().collect::<Vec<_>>().join(", ")
        );
        return Err(unsupported(path, what));
    };
    let config = (own.config)(&Metadata::new(&gguf)).map_err(|unfit| unfit.of(path))?;
    let tokenizer = tokenizer(&gguf)?;
    let manifest = Manifest {
        architecture: family.name.into(),
        task: Task::TextGeneration,
        chat_template: gguf.chat_template().map(|text| Digest::of(text.as_bytes())),
        context: u32::try_from(config.context).unwrap_or(u32::MAX),
        end_tokens: gguf.end_tokens(),
        files: gguf
            .bytes()
            .map(|bytes| File {
                role: FileRole::Gguf,
                sha256: Digest::of(bytes),
            })
            .collect(),
    };
    super::decoder(
        path,
        config,
        &gguf.laid_out(&own.layout),
        placement,
        tokenizer,
        manifest,
    )
}

fn tokenizer(gguf: &Gguf) -> Result<Tokenizer, LoadError> {
    let damaged = |reason: String| damaged(gguf.path(), reason);
    let template = gguf
        .chat_template()
        .map(|text| {
            let (begin, end) = (
                gguf.token_text("bos_token_id"),
                gguf.token_text("eos_token_id"),
            );
            ChatTemplate::new(text.to_owned(), begin, end)
        })
        .transpose()
        .map_err(damaged)?;
    gguf.tokenizer()?
        .for_answers(template, gguf.end_tokens())
        .map_err(damaged)
}
