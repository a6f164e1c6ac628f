//! `jobs`: the list of this machine.

use infernet_client::history::Job;
use infernet_node::clock;

use super::table::table;
use super::{Exit, Place, print, print_json};

/// List the jobs of this machine
#[derive(Debug, clap::Args)]
pub struct Jobs {
    /// How many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    limit: u32,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Jobs {
    pub async fn run(self, place: Place) -> anyhow::Result<Exit> {
        let history = place.history().await?;
        let jobs = history.list(self.limit, clock::now()).await?;
        history.close().await;
        if self.json {
            print_json(&jobs)?;
        } else if jobs.is_empty() {
            eprintln!("No job yet. Try: infernet-client submit \"Why is the sky blue?\"");
        } else {
            let rows: Vec<_> = jobs.iter().map(row).collect();
            print(&table(
                &["TIME (UTC)", "JOB", "MODEL", "PROVIDER", "STATUS", "TOKENS"],
                &rows,
            ))?;
        }
        Ok(Exit::Done)
    }
}

fn row(job: &Job) -> Vec<String> {
    vec![
        super::show::time_of(job.began),
        job.id.to_hex()[..8].to_owned(),
        or_dash(&job.model),
        or_dash(&job.provider),
        job.status.as_str().to_owned(),
        job.tokens.to_string(),
    ]
}

/// A job that nobody bid on has neither model nor provider.
fn or_dash(text: &str) -> String {
    match text {
        "" => "-".into(),
        text => text.into(),
    }
}
