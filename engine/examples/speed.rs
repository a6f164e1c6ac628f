//! How fast a model answers here:
//! `cargo run --release -p infernet-engine --example speed -- FOLDER [f32|bf16] [THREADS]`

use std::io::Write;
use std::time::Instant;

use infernet_engine::{Engine, Generate, ModelSource, Options, Step, TorchEngine, threads};
use infernet_protocol::inference::{Dtype, Message, Prompt, Role, Sampling};

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    threads::wait_politely()?;
    let mut arguments = std::env::args().skip(1);
    let path = arguments
        .next()
        .ok_or("which model? give its folder or GGUF")?;
    let dtype = match arguments.next().as_deref() {
        None | Some("f32") => Dtype::F32,
        Some("bf16") => Dtype::Bf16,
        Some(other) => return Err(format!("no number format {other}; take f32 or bf16").into()),
    };
    let threads = arguments.next().map(|count| count.parse()).transpose()?;
    let begin = Instant::now();
    let engine = TorchEngine::load(Options {
        models: vec![ModelSource {
            dtype,
            ..ModelSource::new(path)
        }],
        threads,
        ..Options::default()
    })?;
    println!("{} on {:?}", engine.version(), engine.hardware());
    println!("{:?}", engine.models());
    println!("loaded in {:.2} s", begin.elapsed().as_secs_f64());
    answer(&engine).await
}

async fn answer(engine: &TorchEngine) -> Result<(), Failure> {
    let question = Message {
        role: Role::User,
        content: "Tell me about the sea, and about the people who live from it.".into(),
    };
    let begin = Instant::now();
    let mut answer = engine.generate(Generate {
        model: engine.models()[0].id,
        prompt: Prompt::Chat(vec![question]),
        sampling: Sampling::default(),
        max_tokens: 128,
        stop: vec![],
        prefix: vec![],
        standing: infernet_engine::Standing::default(),
    })?;
    let (mut first, mut tokens) = (None, 0);
    while let Some(step) = answer.next().await {
        match step {
            Step::Token { text, .. } => {
                first.get_or_insert_with(Instant::now);
                tokens += 1;
                print!("{text}");
                std::io::stdout().flush()?;
            }
            Step::Ended { text, .. } => println!("{text}"),
            Step::Failed(error) => return Err(error.into()),
            Step::Started { input_tokens } => println!("{input_tokens} tokens of prompt"),
        }
    }
    let first = first.ok_or("no token came")?;
    println!(
        "first token after {:.3} s",
        first.duration_since(begin).as_secs_f64()
    );
    println!(
        "{:.1} tokens a second",
        f64::from(tokens - 1) / first.elapsed().as_secs_f64()
    );
    Ok(())
}
