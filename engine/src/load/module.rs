//! Modules: a TorchScript file beside a `module.json` that says what it takes and
//! gives (`nips/models.md`). TorchScript is code, and runs with our rights: only
//! files that the operator named come here.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use infernet_protocol::inference::{Dtype, Task};
use infernet_protocol::tensor::{Interface, Slot};
use serde::Deserialize;
use tch::{CModule, Device, Kind};

use crate::error::{LoadError, first_line};
use crate::formats::{damaged, map, read, unsupported};
use crate::manifest::{Digest, File, FileRole, Manifest};

/// The file that says what a module takes and gives.
pub(super) const INTERFACE_FILE: &str = "module.json";
/// How TorchScript files' names end.
const ENDINGS: [&str; 2] = ["pt", "ts"];
/// The context of a module whose inputs may have any length, in tokens: the
/// largest that may be announced.
const FREE_CONTEXT: u32 = infernet_protocol::bounds::MAX_CONTEXT_TOKENS;

/// A module that is ready to run.
pub(crate) struct Module {
    pub(crate) script: CModule,
    pub(crate) interface: Interface,
    pub(crate) device: Device,
}

/// What was found.
pub(super) struct Found {
    pub(super) module: Module,
    pub(super) manifest: Manifest,
    /// What its `module.json` calls it.
    pub(super) name: Option<String>,
    /// The number format of its weights.
    pub(super) dtype: Dtype,
    pub(super) parameters: u64,
}

/// `module.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InterfaceFile {
    name: Option<String>,
    label: String,
    inputs: Vec<Slot>,
    outputs: Vec<Slot>,
}

/// Does a path mean a module: a folder with a `module.json`, or a TorchScript
/// file?
///
/// Only one without a `config.json`: what looks like plain weights runs no code.
pub(super) fn is_module(path: &Path) -> bool {
    is_script(path) || (path.join(INTERFACE_FILE).exists() && !path.join("config.json").exists())
}

fn is_script(path: &Path) -> bool {
    let ending = path.extension().and_then(OsStr::to_str);
    ending.is_some_and(|ending| ENDINGS.contains(&ending)) && path.is_file()
}

pub(super) fn load(path: &Path, device: Device) -> Result<Found, LoadError> {
    let (folder, script_path) = match path.is_dir() {
        true => (path, find_script(path)?),
        false => (path.parent().unwrap_or(path), path.to_owned()),
    };
    let interface_path = folder.join(INTERFACE_FILE);
    let interface_bytes = read(&interface_path)?;
    let file: InterfaceFile = serde_json::from_slice(&interface_bytes)
        .map_err(|error| damaged(&interface_path, error.to_string()))?;
    let interface = Interface {
        label: file.label,
        inputs: file.inputs,
        outputs: file.outputs,
    };
    let refused = |error: infernet_protocol::event::Refusal| error.to_string();
    interface
        .validate()
        .map_err(|error| damaged(&interface_path, refused(error)))?;
    // Nobody writes into a file that is loaded (`MappedFile`): what is hashed is what
    // is loaded.
    let bytes = map(&script_path)?;
    let script = load_script(&bytes, device).map_err(|reason| damaged(&script_path, reason))?;
    let (dtype, parameters) = weights(&script, &script_path)?;
    Ok(Found {
        manifest: Manifest {
            architecture: "torchscript".into(),
            chat_template: None,
            context: context(&interface),
            end_tokens: vec![],
            files: vec![
                File {
                    role: FileRole::Interface,
                    sha256: Digest::of(&interface_bytes),
                },
                File {
                    role: FileRole::Script,
                    sha256: Digest::of(&bytes),
                },
            ],
            task: Task::Tensors,
        },
        module: Module {
            script,
            interface,
            device,
        },
        name: file.name,
        dtype,
        parameters,
    })
}

/// The one TorchScript file of a folder.
fn find_script(folder: &Path) -> Result<PathBuf, LoadError> {
    let unreadable = |source| LoadError::Unreadable {
        path: folder.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if is_script(&file) {
            found.push(file);
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(file), true) => Ok(file),
        (Some(_), false) => Err(unsupported(folder, "a folder of several TorchScript files")),
        (None, _) => {
            let reason = format!("beside {INTERFACE_FILE} is no .pt or .ts file");
            Err(damaged(folder, reason))
        }
    }
}

fn load_script(mut bytes: &[u8], device: Device) -> Result<CModule, String> {
    let no_script = |error: tch::TchError| {
        let reason = first_line(&error.to_string());
        format!("it is no TorchScript module that this libtorch can load: {reason}")
    };
    let mut script = CModule::load_data_on_device(&mut bytes, device).map_err(no_script)?;
    script.f_set_eval().map_err(no_script)?;
    Ok(script)
}

/// The number format of the weights, and how many there are. A module without
/// weights is computed in f32.
fn weights(script: &CModule, path: &Path) -> Result<(Dtype, u64), LoadError> {
    let weights = script
        .named_parameters()
        .map_err(|error| damaged(path, first_line(&error.to_string())))?;
    let (mut dtype, mut parameters) = (Dtype::F32, 0);
    for (_, weight) in &weights {
        parameters += weight.numel() as u64;
        match weight.kind() {
            Kind::Half => return Err(unsupported(path, "a module with weights in f16")),
            Kind::BFloat16 => dtype = Dtype::Bf16,
            _ => {}
        }
    }
    Ok((dtype, parameters))
}

/// The largest input in tokens.
fn context(interface: &Interface) -> u32 {
    let most = interface.most_input_tokens();
    let most = most.and_then(|most| u32::try_from(most).ok());
    most.map_or(FREE_CONTEXT, |most| most.min(FREE_CONTEXT))
}
