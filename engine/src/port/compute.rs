//! Running a module: tensors in, tensors out.

use std::fmt;

use infernet_protocol::inference::ModelId;
use infernet_protocol::tensor::{self, Tensor};
use tokio::sync::oneshot;

use crate::error::Error;

/// Bytes of tensor data that a module takes or gives at most: far above what one
/// event of the market holds, and a guard for the machine's memory.
pub const MAX_TENSOR_BYTES: usize = 64 << 20;

/// Tensors to run a module on.
#[derive(Clone)]
pub struct Compute {
    /// Which model.
    pub model: ModelId,
    /// Its inputs, by name, in any order.
    pub inputs: Vec<Tensor>,
}

impl Compute {
    /// Refuses what is wrong whatever the model.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let bytes = self.inputs.iter().map(|tensor| tensor.data.len()).sum();
        if bytes > MAX_TENSOR_BYTES {
            let limit = MAX_TENSOR_BYTES;
            return Err(Error::PromptTooLarge { bytes, limit });
        }
        tensor::validate(&self.inputs).map_err(|error| Error::InvalidTensors(error.to_string()))
    }
}

impl fmt::Debug for Compute {
    /// Never shows the data: they must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compute({}, {:?})", self.model, self.inputs)
    }
}

/// A run of a module that is queued or under way. Dropping it stops one that is
/// queued.
#[derive(Debug)]
pub struct Computation {
    result: oneshot::Receiver<Result<Vec<Tensor>, Error>>,
}

impl Computation {
    /// The two ends.
    pub(crate) fn channel() -> (oneshot::Sender<Result<Vec<Tensor>, Error>>, Self) {
        let (sender, result) = oneshot::channel();
        (sender, Self { result })
    }

    /// Waits for what the module gives: its outputs in their order, with their
    /// names, formats and shapes as its interface says.
    ///
    /// # Errors
    /// What went wrong in the computation; [`Error::Stopped`] when the engine
    /// has gone.
    pub async fn wait(self) -> Result<Vec<Tensor>, Error> {
        self.result.await.unwrap_or(Err(Error::Stopped))
    }
}
