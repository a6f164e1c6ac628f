//! Measures how far honest answers of a model are apart, and chooses what work of it is
//! judged by.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Context, ensure};
use infernet_engine::calibration::{
    self, Question, Summary, questions, thresholds_of_texts, thresholds_of_vectors,
};
use infernet_engine::{
    CheckText, DeviceChoice, Embed, Engine, ModelInfo, ModelSource, Options, TorchEngine,
};
use infernet_protocol::event::{ModelThresholds, V1};
use infernet_protocol::inference::{Dtype, Message, Prompt, Role, Sampling, Task};
use infernet_protocol::verification::{TextFigures, Thresholds};

use crate::arguments::Calibrate;

/// Answers that are computed together, and checks that wait together.
const AT_ONCE: usize = 8;
/// One answer in so many is computed alone.
const ALONE: usize = 10;
/// Texts that are embedded at a time.
const TEXTS_AT_ONCE: usize = 64;
/// Cheaper formats, whose work is measured beside the honest.
const CHEAPER: [Dtype; 2] = [Dtype::Int8, Dtype::Int4];
/// For each answer of an honest format so many of a cheaper one.
const SHARE_OF_CHEAPER: usize = 4;

/// Does what the command says.
pub async fn calibrate(wanted: &Calibrate) -> anyhow::Result<()> {
    ensure!(wanted.answers >= 8, "--answers must be 8 or more");
    let judged = wanted.judged();
    ensure!(
        !judged.is_empty() && !wanted.against().is_empty(),
        "name a number format"
    );
    let bench = Bench { wanted };
    let info = bench.load(judged[0])?.models()[0].clone();
    let found = match info.task {
        Task::TextGeneration => bench.texts(&info).await?,
        Task::Embedding => bench.vectors(&info).await?,
        Task::Tensors | Task::Verify => {
            anyhow::bail!("what a module computes is not compared by thresholds")
        }
    };
    let records: Vec<_> = judged
        .iter()
        .map(|dtype| found.record(&info, *dtype))
        .collect();
    if let Some(folder) = &wanted.save {
        save(folder, &info.name, &records)?;
    }
    match wanted.json {
        true => super::print_json(&records),
        false => super::print(&found.table(&info)),
    }
}

/// Writes each record to a file of its own.
fn save(folder: &Path, name: &str, records: &[ModelThresholds]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for record in records {
        let name = name.replace(['/', ' '], "-").to_lowercase();
        let path = folder.join(format!("{name}.{}.json", record.dtype));
        let text = serde_json::to_string_pretty(record)?;
        std::fs::write(&path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// What was found.
struct Found {
    thresholds: Thresholds,
    engine: String,
    /// What it rests on.
    measured: BTreeMap<String, f64>,
    rows: Vec<Row>,
}

/// What one format's work looks like to another.
struct Row {
    what: String,
    summary: Summary,
}

impl Found {
    fn record(&self, info: &ModelInfo, dtype: Dtype) -> ModelThresholds {
        ModelThresholds {
            v: V1,
            id: ModelThresholds::id_of(&info.id, dtype),
            model: info.id,
            name: info.name.clone(),
            dtype,
            engine: self.engine.clone(),
            thresholds: self.thresholds,
            measured: self.measured.clone(),
        }
    }

    fn table(&self, info: &ModelInfo) -> String {
        let mut table = format!("{} ({})\n", info.name, info.id);
        if !self.rows.is_empty() {
            table.push_str(&format!(
                "{:<34} {:>7} {:>8} {:>7} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9}\n",
                "work → checker",
                "answers",
                "tokens",
                "exact",
                "mean",
                "worst",
                "window",
                "exponents",
                "mantissas",
                "rejected",
            ));
        }
        for Row { what, summary } in &self.rows {
            table.push_str(&format!(
                "{what:<34} {:>7} {:>8} {:>6.1}% {:>8.4} {:>8.4} {:>8.4} {:>9.1} {:>9.2} {:>9}\n",
                summary.texts,
                summary.tokens,
                summary.exact * 100.0,
                summary.mean,
                summary.worst_mean,
                summary.worst_window,
                summary.exponents,
                summary.mantissa_mean,
                summary.rejected,
            ));
        }
        let thresholds = serde_json::to_string_pretty(&self.thresholds).unwrap_or_default();
        table + "thresholds: " + &thresholds + "\n"
    }
}

/// The model in whatever format is asked for, one at a time.
struct Bench<'a> {
    wanted: &'a Calibrate,
}

impl Bench<'_> {
    fn load(&self, dtype: Dtype) -> anyhow::Result<TorchEngine> {
        let model = ModelSource {
            dtype,
            ..ModelSource::new(&self.wanted.model)
        };
        let engine = TorchEngine::load(Options {
            models: vec![model],
            device: DeviceChoice::Auto,
            threads: self.wanted.threads,
            slots: Some(AT_ONCE),
            ..Options::default()
        })?;
        Ok(engine)
    }

    /// Says how far it is, to whoever watches.
    fn say(&self, what: &str) {
        if std::io::stderr().is_terminal() || self.wanted.verbose {
            eprintln!("{what}");
        }
    }

    async fn texts(&self, info: &ModelInfo) -> anyhow::Result<Found> {
        let judged = self.wanted.judged();
        let mut cheaper = CHEAPER.to_vec();
        cheaper.retain(|dtype| !judged.contains(dtype));
        let mut works = Vec::new();
        for (number, &dtype) in judged.iter().enumerate() {
            works.push((
                dtype,
                self.answers(dtype, number, self.wanted.answers).await?,
            ));
        }
        for (number, &dtype) in cheaper.iter().enumerate() {
            let answers = self.wanted.answers / SHARE_OF_CHEAPER;
            works.push((dtype, self.answers(dtype, number, answers).await?));
        }
        let (mut honest, mut others) = (Vec::new(), Vec::new());
        let mut engine_version = String::new();
        for checker in self.wanted.against() {
            let engine = self.load(checker)?;
            engine.version().clone_into(&mut engine_version);
            for (dtype, work) in &works {
                self.say(&format!(
                    "{checker} checks {} answers in {dtype}",
                    work.len()
                ));
                let figures = calibration::check(&engine, info.id, work, AT_ONCE).await?;
                match judged.contains(dtype) {
                    true => honest.push((*dtype, checker, figures)),
                    false => others.push((*dtype, checker, figures)),
                }
            }
        }
        let pairs: Vec<_> = honest
            .iter()
            .map(|(_, _, figures)| figures.clone())
            .collect();
        let thresholds = thresholds_of_texts(&pairs);
        let all = honest.iter().chain(&others);
        let rows =
            all.flat_map(|(work, checker, figures)| rows(*work, *checker, figures, &thresholds));
        Ok(Found {
            thresholds,
            engine: engine_version,
            measured: measured(&honest, &others, &thresholds),
            rows: rows.collect(),
        })
    }

    /// Answers to questions: half of them at temperature 1, the others with filters or
    /// at temperature 0; some alone, most together.
    async fn answers(
        &self,
        dtype: Dtype,
        set: usize,
        count: usize,
    ) -> anyhow::Result<Vec<CheckText>> {
        let engine = self.load(dtype)?;
        let model = engine.models()[0].id;
        let probe = Prompt::Chat(vec![Message {
            role: Role::User,
            content: "?".into(),
        }]);
        let is_chat = engine.count_tokens(&model, &probe).is_ok();
        let plain = Sampling {
            temperature: 1.0,
            ..Sampling::default()
        };
        let filtered = Sampling {
            temperature: 0.7,
            top_p: 0.95,
            ..plain
        };
        let mut answers = Vec::new();
        for (sampling, share) in [(plain, 2), (filtered, 4), (Sampling::default(), 4)] {
            let asked = questions(
                count / share,
                set as u64,
                sampling,
                is_chat,
                self.wanted.tokens,
            );
            let (alone, together): (Vec<_>, Vec<_>) = asked
                .into_iter()
                .enumerate()
                .partition(|(number, _)| number % ALONE == 0);
            for (asked, at_once) in [(alone, 1), (together, AT_ONCE)] {
                let asked: Vec<Question> = asked.into_iter().map(|(_, asked)| asked).collect();
                self.say(&format!(
                    "{dtype} answers {} questions, {at_once} at a time",
                    asked.len()
                ));
                answers.extend(calibration::answer(&engine, model, &asked, at_once).await?);
            }
        }
        Ok(answers)
    }

    async fn vectors(&self, info: &ModelInfo) -> anyhow::Result<Found> {
        let asked = questions(self.wanted.answers, 0, Sampling::default(), false, 1);
        let texts: Vec<String> = asked
            .into_iter()
            .filter_map(|asked| match asked.prompt {
                Prompt::Text(text) => Some(text),
                Prompt::Chat(_) => None,
            })
            .collect();
        let mut formats = self.wanted.judged();
        formats.extend(self.wanted.against());
        formats.dedup();
        let mut made = Vec::new();
        let mut engine_version = String::new();
        for dtype in formats {
            let engine = self.load(dtype)?;
            engine.version().clone_into(&mut engine_version);
            // Together, and one at a time.
            for at_once in [TEXTS_AT_ONCE, 1] {
                self.say(&format!(
                    "{dtype} embeds {} texts, {at_once} at a time",
                    texts.len()
                ));
                made.push(embed(&engine, info, &texts, at_once).await?);
            }
        }
        let mut least = 1.0_f64;
        for (number, left) in made.iter().enumerate() {
            for right in &made[..number] {
                least = left
                    .iter()
                    .zip(right)
                    .map(|(a, b)| cosine(a, b))
                    .fold(least, f64::min);
            }
        }
        Ok(Found {
            thresholds: thresholds_of_vectors(least),
            engine: engine_version,
            measured: BTreeMap::from([
                ("vectors".into(), texts.len() as f64),
                ("least_cosine".into(), least),
            ]),
            rows: Vec::new(),
        })
    }
}

async fn embed(
    engine: &TorchEngine,
    info: &ModelInfo,
    texts: &[String],
    at_once: usize,
) -> anyhow::Result<Vec<Vec<f32>>> {
    let mut vectors = Vec::with_capacity(texts.len());
    for texts in texts.chunks(at_once) {
        let embedding = engine.embed(Embed {
            model: info.id,
            texts: texts.to_vec(),
        })?;
        vectors.extend(embedding.wait().await?.vectors);
    }
    Ok(vectors)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}

/// A row for temperatures above 0 and one for 0.
fn rows(work: Dtype, checker: Dtype, figures: &[TextFigures], thresholds: &Thresholds) -> Vec<Row> {
    let of = |greedy: bool, name: &str| {
        let texts: Vec<_> = figures
            .iter()
            .filter(|text| text.greedy == greedy)
            .cloned()
            .collect();
        Row {
            what: format!("{work} → {checker}, {name}"),
            summary: Summary::of(&texts, thresholds),
        }
    };
    vec![of(false, "sampled"), of(true, "temperature 0")]
}

/// What thresholds rest on, by name.
fn measured(
    honest: &[(Dtype, Dtype, Vec<TextFigures>)],
    others: &[(Dtype, Dtype, Vec<TextFigures>)],
    thresholds: &Thresholds,
) -> BTreeMap<String, f64> {
    let texts: Vec<_> = honest
        .iter()
        .flat_map(|(_, _, figures)| figures)
        .cloned()
        .collect();
    let all = Summary::of(&texts, thresholds);
    let mut measured = BTreeMap::from([
        ("answers".into(), all.texts as f64),
        ("tokens".into(), all.tokens as f64),
        ("exact".into(), all.exact),
        ("mean_margin".into(), all.mean),
        ("worst_mean".into(), all.worst_mean),
        ("worst_window".into(), all.worst_window),
        ("exponents".into(), all.exponents),
        ("mantissa_mean".into(), all.mantissa_mean),
        ("worst_mantissa_mean".into(), all.worst_mantissa_mean),
        ("rejected".into(), all.rejected as f64),
    ]);
    for (work, checker, figures) in others {
        let summary = Summary::of(figures, thresholds);
        let mut put = |name: &str, figure: f64| {
            measured.insert(format!("{work}.{checker}.{name}"), figure);
        };
        put("answers", summary.texts as f64);
        put("mean_margin", summary.mean);
        put("mantissa_mean", summary.mantissa_mean);
        put("rejected", summary.rejected as f64);
    }
    measured
}
