//! `embed`: turn texts into vectors.

use std::path::PathBuf;

use infernet_client::Request;

use super::submit::{object, read_file, read_input};
use super::terminal::{Terminal, speed_of};
use super::work::{Terms, run};
use super::{Exit, Misunderstood, Place, print, print_json};

/// Turn texts into vectors
#[derive(Debug, clap::Args)]
pub struct Embed {
    /// The texts; none reads standard input, one text a line
    texts: Vec<String>,

    /// Read the texts from a file, one a line
    #[arg(long, short, value_name = "PATH", conflicts_with = "texts")]
    file: Option<PathBuf>,

    #[command(flatten)]
    terms: Terms,
}

impl Embed {
    pub async fn run(self, place: Place) -> anyhow::Result<Exit> {
        let texts = self.texts()?;
        let default = &place.settings.defaults.embedding_model;
        let model = self.terms.model.clone().or_else(|| default.clone());
        let mut request = Request::embedding(model, texts);
        self.terms.lay_over(&mut request, &place);
        let client = place.paying_client().await?;
        let history = place.history().await?;
        let mut terminal = Terminal::new(false);
        let finished = run(&client, &history, request, &mut terminal).await;
        client.close().await;
        history.close().await;
        let finished = finished?;
        if self.terms.json {
            print_json(&object(&finished))?;
        }
        let summary = finished.outcome?;
        if !self.terms.json {
            for vector in &summary.vectors {
                print(&format!("{}\n", serde_json::to_string(&vector.0)?))?;
            }
        }
        terminal.say(&speed_of(&summary));
        Ok(Exit::Done)
    }

    fn texts(&self) -> anyhow::Result<Vec<String>> {
        if !self.texts.is_empty() {
            return Ok(self.texts.clone());
        }
        let text = match &self.file {
            Some(path) => read_file(path)?,
            None => read_input()?,
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let texts: Vec<_> = lines.map(str::to_owned).collect();
        match texts.is_empty() {
            true => Err(Misunderstood("there is no text to embed".into()).into()),
            false => Ok(texts),
        }
    }
}
