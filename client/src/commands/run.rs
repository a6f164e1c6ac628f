//! `run`: run a module on tensors.

mod npy;
mod values;

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use infernet_client::Request;
use infernet_protocol::bounds::MAX_BLOB_PAYLOAD_BYTES;
use infernet_protocol::tensor::Tensor;

use super::submit::object;
use super::terminal::{Terminal, speed_of};
use super::work::{Terms, run};
use super::{Exit, Misunderstood, Place, print, print_json};

/// Bytes of a file of one tensor at most: as JSON it is larger than what a job carries.
const MAX_FILE_BYTES: u64 = 4 * MAX_BLOB_PAYLOAD_BYTES as u64;

/// Run a module: tensors in, tensors out
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Run {
    /// One of the module's inputs, and the file that holds it: .npy, or .json
    #[arg(long, short, value_name = "NAME=FILE", required = true)]
    input: Vec<String>,

    /// Write each output into this folder as NAME.npy, instead of JSON to standard output
    #[arg(long, short, value_name = "FOLDER")]
    output_dir: Option<PathBuf>,

    #[command(flatten)]
    terms: Terms,
}

const AFTER_HELP: &str = "\
A .json file holds numbers in brackets, as [[1, 2], [3, 4]], which are taken for f32, or
{\"dtype\": \"u8\", \"values\": [[1, 2], [3, 4]]}. Outputs are printed in the second way.

Example:
  infernet-client run --model digits --input image=seven.npy";

impl Run {
    pub async fn run(self, place: Place) -> anyhow::Result<Exit> {
        let Some(model) = self.terms.model.clone() else {
            let how = "which module? name it with --model; infernet-client providers lists them";
            return Err(Misunderstood(how.into()).into());
        };
        let inputs = self.input.iter().map(|input| read(input));
        let inputs = inputs.collect::<anyhow::Result<Vec<_>>>()?;
        let mut request = Request::tensors(model, inputs);
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
        self.give(&summary.tensors)?;
        terminal.say(&speed_of(&summary));
        Ok(Exit::Done)
    }

    fn give(&self, outputs: &[Tensor]) -> anyhow::Result<()> {
        if let Some(folder) = &self.output_dir {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            for output in outputs {
                let path = write(folder, output)?;
                // The JSON stands alone.
                if !self.terms.json {
                    print(&format!("{}\n", path.display()))?;
                }
            }
            return Ok(());
        }
        if self.terms.json {
            return Ok(());
        }
        for output in outputs {
            print(&format!("{}\n", values::to_json(output)))?;
        }
        Ok(())
    }
}

/// Writes a tensor into a folder, and says where. Its name has been checked to be good
/// as a file's.
fn write(folder: &Path, output: &Tensor) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("{}.npy", output.name));
    let written = fs::write(&path, npy::to_bytes(output));
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The tensor that `NAME=FILE` means.
fn read(input: &str) -> anyhow::Result<Tensor> {
    let Some((name, file)) = input.split_once('=') else {
        let how = format!("--input wants NAME=FILE, and {input} has no =");
        return Err(Misunderstood(how).into());
    };
    let path = Path::new(file);
    let tensor = read_file(path).with_context(|| format!("cannot take {file}"))?;
    let named = Tensor {
        name: name.to_owned(),
        ..tensor
    };
    named.validate().map_err(|e| Misunderstood(e.to_string()))?;
    Ok(named)
}

fn read_file(path: &Path) -> anyhow::Result<Tensor> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= MAX_FILE_BYTES,
        "it is too large: one job carries at most {MAX_BLOB_PAYLOAD_BYTES} bytes"
    );
    match path.extension().and_then(OsStr::to_str) {
        Some("npy") => npy::from_bytes(&bytes),
        Some("json") => values::from_json(&bytes),
        _ => bail!("its name ends neither in .npy nor in .json"),
    }
}
