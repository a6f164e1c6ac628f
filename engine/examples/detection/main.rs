//! How soon cheats are found: what stands in docs/benchmarks.md under Verification.
//!
//! `detection cheat MODEL FOLDER ANSWERS` takes a folder with a model's unpacked weights,
//! and a folder for models that it makes of it. Each cheat gives so many answers at
//! temperature 1 and as many at 0; what a checker finds in them is kept in FOLDER.
//! `detection honest MODEL FOLDER ANSWERS` does the same for honest providers, in f32 and
//! bf16. `detection judge FOLDER` chooses thresholds by every second honest answer, and
//! judges the others and the cheats by them. `detection cost MODEL` says what a check
//! takes beside the work.

mod cheats;
mod cost;
mod models;
mod record;
mod sooner;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use infernet_engine::calibration::{Summary, answer, check, questions, thresholds_of_texts};
use infernet_engine::{CheckText, Engine, TorchEngine, threads};
use infernet_protocol::inference::{Dtype, Sampling};
use infernet_protocol::verification::TextFigures;

use cheats::Cheats;
use models::Models;
use record::Record;

type Failure = Box<dyn std::error::Error>;

/// Requests in a batch, and checks that wait together.
const AT_ONCE: usize = 8;
/// Tokens of an answer.
const TOKENS: u32 = 64;
/// Where lies what was found in honest work, and in that of cheats.
const HONEST: &str = "honest.jsonl";
const CHEATS: &str = "cheats.jsonl";

/// Temperature 1, and 0.
fn samplings() -> [Sampling; 2] {
    let greedy = Sampling::default();
    let plain = Sampling {
        temperature: 1.0,
        ..greedy
    };
    [plain, greedy]
}

fn main() -> Result<(), Failure> {
    threads::wait_politely()?;
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or(format!("which {what}?"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match next("part")?.as_str() {
        part @ ("cheat" | "honest") => {
            let model = PathBuf::from(next("model")?);
            let folder = PathBuf::from(next("folder")?);
            let answers = next("number of answers")?.parse()?;
            let models = Models::make(&model, &folder)?;
            match part {
                "cheat" => runtime.block_on(cheat(&models, &folder, answers)),
                _ => runtime.block_on(be_honest(&models, &folder, answers)),
            }
        }
        "judge" => judge(&PathBuf::from(next("folder")?)),
        "cost" => {
            let engine = models::load(&PathBuf::from(next("model")?), Dtype::F32)?;
            println!("{}", cost::HEADER);
            runtime.block_on(cost::measure(&engine))
        }
        _ => Err("which part: cheat, honest, judge or cost?".into()),
    }
}

/// Has each cheat give so many answers, at each temperature.
async fn cheat(models: &Models, folder: &Path, count: usize) -> Result<(), Failure> {
    let part = folder.join("cheats.part");
    let mut file = File::create(&part)?;
    let checker = models.load(Dtype::F32)?;
    let cheats = Cheats {
        models,
        count,
        honest: models.load(Dtype::Bf16)?,
    };
    for cheat in cheats::ALL {
        for sampling in samplings() {
            let is_greedy = sampling.temperature == 0.0;
            if cheat.is_one(is_greedy) {
                let work = cheats.commit(cheat, sampling).await?;
                keep(&mut file, &cheat.name(is_greedy), &checker, &work).await?;
            }
        }
    }
    Ok(std::fs::rename(part, folder.join(CHEATS))?)
}

/// Has honest providers give so many answers, in each format and at each temperature.
async fn be_honest(models: &Models, folder: &Path, count: usize) -> Result<(), Failure> {
    let part = folder.join("honest.part");
    let mut file = File::create(&part)?;
    let formats = [Dtype::F32, Dtype::Bf16];
    let engines = [models.load(formats[0])?, models.load(formats[1])?];
    for (set, (dtype, engine)) in formats.iter().zip(&engines).enumerate() {
        for sampling in samplings() {
            let asked = questions(count, set as u64, sampling, true, TOKENS);
            let work = answer(engine, engine.models()[0].id, &asked, AT_ONCE).await?;
            for (format, checker) in formats.iter().zip(&engines) {
                let name = format!("{dtype} → {format}");
                keep(&mut file, &name, checker, &work).await?;
            }
        }
    }
    Ok(std::fs::rename(part, folder.join(HONEST))?)
}

/// Checks answers, and writes down what is found.
async fn keep(
    file: &mut File,
    name: &str,
    checker: &TorchEngine,
    work: &[CheckText],
) -> Result<(), Failure> {
    let figures = check(checker, checker.models()[0].id, work, AT_ONCE).await?;
    for (figures, work) in figures.iter().zip(work) {
        let record = Record::new(name, work, figures);
        writeln!(file, "{}", serde_json::to_string(&record)?)?;
    }
    eprintln!("{name}: {} answers", work.len());
    Ok(())
}

fn judge(folder: &Path) -> Result<(), Failure> {
    let honest = record::read(&folder.join(HONEST))?;
    let cheats = record::read(&folder.join(CHEATS))?;
    let every_second = |records: &[Record], first: usize| -> Vec<TextFigures> {
        let half = records.iter().skip(first).step_by(2);
        half.map(|record| record.figures(None)).collect()
    };
    let chosen: Vec<_> = honest
        .iter()
        .map(|(_, texts)| every_second(texts, 0))
        .collect();
    let thresholds = thresholds_of_texts(&chosen);
    println!("thresholds: {}", serde_json::to_string(&thresholds)?);
    println!("\nhonest answers, judged by thresholds that others gave");
    for (name, records) in &honest {
        let judged = records.iter().skip(1).step_by(2);
        let figures: Vec<_> = judged
            .map(|record| record.figures(Some(&thresholds)))
            .collect();
        let found = Summary::of(&figures, &thresholds);
        println!("{name}: {}", serde_json::to_string(&found)?);
        println!("{name}: {}", sooner::shards(&figures, &thresholds));
    }
    println!("\n{}", sooner::HEADER);
    for (name, records) in &cheats {
        let figures = records
            .iter()
            .map(|record| record.figures(Some(&thresholds)));
        let figures: Vec<_> = figures.filter(is_long).collect();
        println!("{}", sooner::row(name, &figures, &thresholds));
        if cheats::can_be_proven(name) {
            // By one pass of the true model over the same text.
            let without = |text: TextFigures| TextFigures {
                chunks: Vec::new(),
                ..text
            };
            let figures: Vec<_> = figures.into_iter().map(without).collect();
            let name = format!("{name}, genuine proofs");
            println!("{}", sooner::row(&name, &figures, &thresholds));
        }
    }
    Ok(())
}

/// Cheats are counted in answers of 64 tokens or more.
fn is_long(figures: &TextFigures) -> bool {
    figures.margins.len() >= TOKENS as usize
}
