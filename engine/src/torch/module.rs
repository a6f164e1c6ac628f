//! A module's outputs for some inputs.

use infernet_protocol::tensor::{Element, Slot, Tensor, arrange};
use tch::{Device, IValue, Kind, TchError};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::load::Module;
use crate::port::MAX_TENSOR_BYTES;
use crate::worker::Job;

/// Tensors that fit the module's interface, and where its outputs go.
pub(super) struct ModuleRequest {
    pub(super) inputs: Vec<Tensor>,
    pub(super) result: oneshot::Sender<Result<Vec<Tensor>, Error>>,
}

/// One run of a module.
pub(super) struct ModuleJob(Option<ModuleRequest>);

impl Job for ModuleJob {
    type Model = Module;
    type Request = ModuleRequest;

    fn begin(_: &Module, request: ModuleRequest) -> Option<Self> {
        Some(Self(Some(request)))
    }

    fn step(&mut self, module: &Module) -> Result<bool, Error> {
        let Some(request) = &self.0 else {
            return Ok(false);
        };
        if request.result.is_closed() {
            return Ok(false);
        }
        let outputs = run(module, &request.inputs)?;
        self.answer(Ok(outputs));
        Ok(false)
    }

    fn fail(mut self, error: Error) {
        self.answer(Err(error));
    }
}

impl ModuleJob {
    /// Sends the answer, to whoever may still wait for it.
    fn answer(&mut self, answer: Result<Vec<Tensor>, Error>) {
        if let Some(request) = self.0.take() {
            let _ = request.result.send(answer);
        }
    }
}

fn run(module: &Module, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    let arranged = arrange(&module.interface.inputs, inputs)
        .map_err(|misfit| Error::InvalidTensors(misfit.to_string()))?;
    let inputs = arranged
        .into_iter()
        .map(|tensor| Ok(IValue::Tensor(to_torch(tensor, module.device)?)))
        .collect::<Result<Vec<_>, TchError>>()?;
    let given = flatten(module.script.forward_is(&inputs)?)?;
    let slots = &module.interface.outputs;
    if given.len() != slots.len() {
        let (found, expected) = (given.len(), slots.len());
        return Err(broken(format!(
            "the module gave {found} tensors, and {expected} were announced"
        )));
    }
    let mut room = MAX_TENSOR_BYTES;
    let outputs = given
        .iter()
        .zip(slots)
        .map(|(tensor, slot)| from_torch(tensor, slot, &mut room))
        .collect::<Result<Vec<_>, Error>>()?;
    arrange(slots, &outputs).map_err(|misfit| broken(format!("of the outputs, {misfit}")))?;
    Ok(outputs)
}

/// What a module returned: a tensor, or a tuple or list of them.
fn flatten(value: IValue) -> Result<Vec<tch::Tensor>, Error> {
    let parts = match value {
        IValue::Tensor(tensor) => return Ok(vec![tensor]),
        IValue::TensorList(tensors) => return Ok(tensors),
        IValue::Tuple(parts) | IValue::GenericList(parts) => parts,
        _ => return Err(broken("the module gave no tensors")),
    };
    let tensor = |part| match part {
        IValue::Tensor(tensor) => Ok(tensor),
        _ => Err(broken("the module gave something that is no tensor")),
    };
    parts.into_iter().map(tensor).collect()
}

fn broken(reason: impl Into<String>) -> Error {
    Error::Computation(reason.into())
}

/// A tensor's elements were counted against its shape before ([`Tensor::validate`]).
fn to_torch(tensor: &Tensor, device: Device) -> Result<tch::Tensor, TchError> {
    // Bounded by the data's size, unless another length is 0.
    let length = |&length: &u64| i64::try_from(length).unwrap_or(i64::MAX);
    let shape: Vec<i64> = tensor.shape.iter().map(length).collect();
    tch::Tensor::f_from_data_size(&tensor.data, &shape, kind(tensor.dtype))?.f_to_device(device)
}

/// A named copy of a tensor in the processor's memory, if there is room for it.
fn from_torch(tensor: &tch::Tensor, slot: &Slot, room: &mut usize) -> Result<Tensor, Error> {
    let found = tensor.f_kind()?;
    let dtype = element(found)
        .ok_or_else(|| broken(format!("the module gave a tensor of kind {found:?}")))?;
    let elements = tensor.numel();
    let bytes = elements
        .checked_mul(dtype.bytes())
        .filter(|bytes| *bytes <= *room)
        .ok_or_else(|| broken("the module gave more than is allowed"))?;
    *room -= bytes;
    let tensor = tensor.f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut data = vec![0; bytes];
    tensor.f_copy_data_u8(&mut data, elements)?;
    let length = |length: i64| u64::try_from(length).unwrap_or(0);
    Ok(Tensor {
        name: slot.name.clone(),
        dtype,
        shape: tensor.size().into_iter().map(length).collect(),
        data,
    })
}

const fn kind(element: Element) -> Kind {
    match element {
        Element::F32 => Kind::Float,
        Element::F64 => Kind::Double,
        Element::F16 => Kind::Half,
        Element::Bf16 => Kind::BFloat16,
        Element::U8 => Kind::Uint8,
        Element::I8 => Kind::Int8,
        Element::I16 => Kind::Int16,
        Element::I32 => Kind::Int,
        Element::I64 => Kind::Int64,
        Element::Bool => Kind::Bool,
    }
}

const fn element(kind: Kind) -> Option<Element> {
    match kind {
        Kind::Float => Some(Element::F32),
        Kind::Double => Some(Element::F64),
        Kind::Half => Some(Element::F16),
        Kind::BFloat16 => Some(Element::Bf16),
        Kind::Uint8 => Some(Element::U8),
        Kind::Int8 => Some(Element::I8),
        Kind::Int16 => Some(Element::I16),
        Kind::Int => Some(Element::I32),
        Kind::Int64 => Some(Element::I64),
        Kind::Bool => Some(Element::Bool),
        _ => None,
    }
}
