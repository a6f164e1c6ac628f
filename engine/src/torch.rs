//! The real engine: models on libtorch, one thread for each.

mod embedding;
mod module;
mod text;

use std::collections::HashMap;
use std::sync::Arc;

use infernet_protocol::inference::{ModelId, Prompt, Task, TokenId};
use infernet_protocol::tensor::arrange;

use crate::detokenizer::Detokenizer;
use crate::device::{self, DeviceChoice};
use crate::error::{Error, LoadError};
use crate::load::{Loaded, ModelSource, Module, Network, Served, load};
use crate::port::{
    Capacity, CheckText, Checking, Computation, Compute, Embed, Embedding, Engine, Generate,
    Generation, Hardware, ModelInfo, Score, Scoring, validate_prompt,
};
use crate::serve::Server;
use crate::telling::Vocabulary;
use crate::threads;
use crate::tokenizer::Tokenizer;
use crate::worker::{Schedule, Worker};
use embedding::{EmbeddingJob, EmbeddingModel, EmbeddingRequest};
use module::{ModuleJob, ModuleRequest};

/// What an engine loads and how it runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The models, at least one.
    pub models: Vec<ModelSource>,
    /// The device to compute on.
    pub device: DeviceChoice,
    /// Processor threads for each model; one for each core if not given.
    pub threads: Option<u32>,
    /// Requests of one model that are computed together; as many as the device is
    /// good for if not given.
    pub slots: Option<usize>,
    /// Requests of one model that may wait for a slot.
    pub queue: usize,
    /// MiB for the keys and values of each text model; what all slots can fill, within
    /// half of the free memory, if not given.
    pub cache_mib: Option<u64>,
    /// Whether a beginning that one customer has sent speeds up the same of another's.
    /// Whoever pays attention can tell from that what others have sent.
    pub shares_prefixes: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            models: Vec::new(),
            device: DeviceChoice::default(),
            threads: None,
            slots: None,
            queue: 64,
            cache_mib: None,
            shares_prefixes: false,
        }
    }
}

/// Requests of one model in a batch where nobody says: on two cores eight answers are
/// four times as much as one.
const SLOTS_ON_CPU: usize = 8;
/// The same on a GPU, which is hardly slower with as many as with one.
const SLOTS_ON_CUDA: usize = 64;

/// Models on libtorch. Dropping it fails what runs and waits for the step in
/// progress.
pub struct TorchEngine {
    models: Vec<ModelInfo>,
    services: HashMap<ModelId, Service>,
    hardware: Hardware,
    version: String,
}

/// What serves one model.
struct Service {
    info: ModelInfo,
    /// Of all but modules.
    tokenizer: Option<Arc<Tokenizer>>,
    worker: ModelWorker,
}

enum ModelWorker {
    Text(Server, Capacity),
    Embedding(Worker<EmbeddingRequest>, Capacity),
    Module(Worker<ModuleRequest>),
}

impl TorchEngine {
    /// Loads the models and starts their threads. Blocks for as long as it
    /// takes to read and hash the files.
    ///
    /// # Errors
    /// What is wrong with which file, or with the device.
    pub fn load(options: Options) -> Result<Self, LoadError> {
        if options.models.is_empty() {
            return Err(LoadError::Models("no model was given".into()));
        }
        let threads = options
            .threads
            .unwrap_or_else(threads::default_count)
            .max(1);
        let device = device::choose(options.device)?;
        let mut plan = Plan::new(&options, device, threads);
        let mut engine = Self {
            models: Vec::new(),
            services: HashMap::new(),
            hardware: device::hardware(device, threads),
            version: format!(
                "infernet-engine/{} libtorch/2.11.0",
                env!("CARGO_PKG_VERSION")
            ),
        };
        for source in &options.models {
            let service = Service::start(load(source, device)?, &mut plan)?;
            service.introduce();
            engine.add(service)?;
        }
        Ok(engine)
    }

    /// A prompt's tokens, with chat template and special tokens. Computes on
    /// the calling thread.
    ///
    /// # Errors
    /// As [`Engine::count_tokens`].
    pub fn encode(&self, model: &ModelId, prompt: &Prompt) -> Result<Vec<TokenId>, Error> {
        let service = self.service(model)?;
        validate_prompt(prompt)?;
        match (service.info.task, prompt) {
            (Task::Embedding, Prompt::Chat(_)) => Err(service.wrong_task()),
            _ => service.tokenizer()?.encode_prompt(prompt),
        }
    }

    /// The text of an answer's tokens. Tokens that the model does not know have
    /// none.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], [`Error::WrongTask`] of a module.
    pub fn decode(&self, model: &ModelId, tokens: &[TokenId]) -> Result<String, Error> {
        let tokenizer = self.service(model)?.tokenizer()?;
        let mut detokenizer = Detokenizer::new(vec![], tokenizer.adds_first_space());
        let bytes = tokens.iter().map(|&token| tokenizer.bytes(token));
        let mut text: String = bytes.map(|bytes| detokenizer.push(&bytes)).collect();
        text.push_str(&detokenizer.finish());
        Ok(text)
    }

    /// Takes a text into the queue, to say how probable the model finds it. Never
    /// blocks.
    ///
    /// # Errors
    /// As [`Engine::generate`]. A token that the model does not have, or more tokens
    /// than its context holds, come from [`Scoring::wait`].
    pub fn score(&self, request: Score) -> Result<Scoring, Error> {
        let service = self.service(&request.model)?;
        let ModelWorker::Text(server, _) = &service.worker else {
            return Err(service.wrong_task());
        };
        request.validate()?;
        let (steps, result, scoring) = Scoring::channel();
        server.score(request, result, steps)?;
        Ok(scoring)
    }

    fn add(&mut self, service: Service) -> Result<(), LoadError> {
        let info = service.info.clone();
        if let Some(other) = self.services.insert(info.id, service) {
            return Err(LoadError::Models(format!(
                "{} and {} are the same model",
                other.info.name, info.name
            )));
        }
        self.models.push(info);
        Ok(())
    }

    fn service(&self, model: &ModelId) -> Result<&Service, Error> {
        self.services.get(model).ok_or(Error::UnknownModel(*model))
    }
}

/// How models are served.
struct Plan {
    text: text::Service,
    /// Of all others.
    schedule: Schedule,
}

impl Plan {
    fn new(options: &Options, device: tch::Device, threads: u32) -> Self {
        let usual = match device {
            tch::Device::Cuda(_) => SLOTS_ON_CUDA,
            _ => SLOTS_ON_CPU,
        };
        let slots = options.slots.unwrap_or(usual).max(1);
        let queue = options.queue.max(1);
        Self {
            text: text::Service {
                device,
                threads,
                slots,
                queue,
                cache_bytes: options.cache_mib.map(|mib| mib.saturating_mul(1 << 20)),
                reserved: 0,
                shares_prefixes: options.shares_prefixes,
            },
            schedule: Schedule {
                slots,
                queue,
                threads,
            },
        }
    }
}

impl Service {
    fn start(loaded: Loaded, plan: &mut Plan) -> Result<Self, LoadError> {
        let Loaded { mut info, served } = loaded;
        let (tokenizer, network) = match served {
            Served::Network { tokenizer, network } => (tokenizer, network),
            Served::Module(module) => return Self::start_module(info, *module, plan.schedule),
        };
        let context = info.context as usize;
        let worker = match network {
            Network::Text(decoder) => {
                let tokenizer = Arc::clone(&tokenizer);
                let (server, capacity) = text::start(decoder, tokenizer, context, plan.text)?;
                // A GPU's memory is taken at once, a machine's when it is written to.
                if plan.text.device == tch::Device::Cpu {
                    plan.text.reserved += capacity.cache_bytes;
                }
                let room = u32::try_from(capacity.cache_tokens).unwrap_or(u32::MAX);
                info.context = info.context.min(room);
                ModelWorker::Text(server, capacity)
            }
            Network::Embedding(encoder) => {
                let model = EmbeddingModel::new(encoder, Arc::clone(&tokenizer), context);
                let worker = Worker::start::<EmbeddingJob>("infernet-embed", plan.schedule, model)?;
                ModelWorker::Embedding(worker, uncached(plan.schedule.slots))
            }
        };
        Ok(Self {
            info,
            tokenizer: Some(tokenizer),
            worker,
        })
    }

    fn start_module(
        info: ModelInfo,
        module: Module,
        schedule: Schedule,
    ) -> Result<Self, LoadError> {
        let worker = Worker::start::<ModuleJob>("infernet-module", schedule, module)?;
        Ok(Self {
            info,
            tokenizer: None,
            worker: ModelWorker::Module(worker),
        })
    }

    fn tokenizer(&self) -> Result<&Arc<Tokenizer>, Error> {
        self.tokenizer.as_ref().ok_or_else(|| self.wrong_task())
    }

    /// Says in the log what is served and how much of it.
    fn introduce(&self) {
        let (info, capacity) = (&self.info, self.capacity());
        tracing::info!(
            model = info.name,
            id = %info.id,
            dtype = %info.dtype,
            context = info.context,
            slots = capacity.slots,
            cache_tokens = capacity.cache_tokens,
            cache_mib = capacity.cache_bytes >> 20,
            "model loaded"
        );
    }

    fn capacity(&self) -> Capacity {
        match &self.worker {
            ModelWorker::Text(_, capacity) | ModelWorker::Embedding(_, capacity) => *capacity,
            ModelWorker::Module(_) => uncached(1),
        }
    }

    fn wrong_task(&self) -> Error {
        Error::WrongTask {
            model: self.info.id,
            task: self.info.task,
        }
    }
}

/// Of a model that keeps nothing between steps.
fn uncached(slots: usize) -> Capacity {
    Capacity {
        slots: u32::try_from(slots).unwrap_or(u32::MAX),
        cache_tokens: 0,
        cache_bytes: 0,
    }
}

impl Engine for TorchEngine {
    fn models(&self) -> &[ModelInfo] {
        &self.models
    }

    fn hardware(&self) -> Hardware {
        self.hardware.clone()
    }

    fn capacity(&self, model: &ModelId) -> Option<Capacity> {
        self.services.get(model).map(Service::capacity)
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn count_tokens(&self, model: &ModelId, prompt: &Prompt) -> Result<u32, Error> {
        let tokens = self.encode(model, prompt)?.len();
        Ok(u32::try_from(tokens).unwrap_or(u32::MAX))
    }

    fn generate(&self, request: Generate) -> Result<Generation, Error> {
        let service = self.service(&request.model)?;
        let ModelWorker::Text(server, _) = &service.worker else {
            return Err(service.wrong_task());
        };
        request.validate()?;
        let (steps, generation) = Generation::channel();
        server.submit(request, steps)?;
        Ok(generation)
    }

    fn embed(&self, request: Embed) -> Result<Embedding, Error> {
        let service = self.service(&request.model)?;
        let ModelWorker::Embedding(worker, _) = &service.worker else {
            return Err(service.wrong_task());
        };
        request.validate()?;
        let (result, embedding) = Embedding::channel();
        let texts = request.texts;
        worker.submit(EmbeddingRequest { texts, result })?;
        Ok(embedding)
    }

    fn compute(&self, request: Compute) -> Result<Computation, Error> {
        let service = self.service(&request.model)?;
        let ModelWorker::Module(worker) = &service.worker else {
            return Err(service.wrong_task());
        };
        request.validate()?;
        if let Some(interface) = &service.info.interface {
            arrange(&interface.inputs, &request.inputs)
                .map_err(|misfit| Error::InvalidTensors(misfit.to_string()))?;
        }
        let (result, computation) = Computation::channel();
        let inputs = request.inputs;
        worker.submit(ModuleRequest { inputs, result })?;
        Ok(computation)
    }

    fn check(&self, request: CheckText) -> Result<Checking, Error> {
        let service = self.service(&request.model)?;
        let ModelWorker::Text(server, _) = &service.worker else {
            return Err(service.wrong_task());
        };
        request.validate()?;
        let (steps, result, checking) = Checking::channel();
        server.check(request, result, steps)?;
        Ok(checking)
    }
}
