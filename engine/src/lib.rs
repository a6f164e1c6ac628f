//! Inference on libtorch: loads a model, tokenizes, schedules, streams.
