// CUDA graphs, which libtorch offers to C++ alone: recording what is told to
// the GPU, and doing it again with one call. And memory that it writes straight
// into.
//
// A library of its own (libinfernet_cuda.so; scripts/cuda_shim compiles it), opened
// behind libtorch_cuda.so by engine/src/cuda/graph.rs, which declares the same
// functions. Has not been run on a GPU yet.

#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/headeronly/version.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

namespace {

// Rounds before recording, in which libraries choose their kernels and take
// their memory: neither can be done while recording.
constexpr int kWarmUps = 2;

thread_local std::string last_error;

// Calls and answers 0, or keeps what went wrong and answers 1.
template <typename Call>
int guarded(Call call) noexcept {
  try {
    call();
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
  } catch (...) {
    last_error = "an unknown failure";
  }
  return 1;
}

using Compute = int (*)(void*);

void compute_or_throw(Compute compute, void* context) {
  if (compute(context) != 0) throw std::runtime_error("what was to be recorded failed");
}

// On a stream of its own: the usual one cannot be recorded.
std::unique_ptr<at::cuda::CUDAGraph> record_on_side(
    c10::DeviceIndex device, c10::MempoolId_t pool, Compute compute, void* context) {
  const c10::InferenceMode inference;
  const c10::cuda::CUDAGuard on(device);
  c10::cuda::getCurrentCUDAStream(device).synchronize();
  const auto side = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device);
  const c10::cuda::CUDAStreamGuard on_side(side);
  for (int round = 0; round < kWarmUps; ++round) compute_or_throw(compute, context);
  side.synchronize();
  auto graph = std::make_unique<at::cuda::CUDAGraph>();
  // Other threads, with other models, may do what they like meanwhile.
  graph->capture_begin(pool, cudaStreamCaptureModeThreadLocal);
  const bool computed = compute(context) == 0;
  // Also after a failure: the stream must stop recording.
  graph->capture_end();
  if (!computed) throw std::runtime_error("what was to be recorded failed");
  return graph;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Of the functions here.
int infernet_cuda_version() { return 1; }

// The libtorch that this was compiled for.
const char* infernet_cuda_torch() { return TORCH_VERSION; }

// What the last failed call of this thread failed with.
const char* infernet_cuda_error() { return last_error.c_str(); }

// Writes the two numbers of a new pool of memory. Recordings of one pool share it.
int infernet_cuda_pool(uint64_t* pool) {
  return guarded([&] {
    const auto made = at::cuda::graph_pool_handle();
    pool[0] = made.first;
    pool[1] = made.second;
  });
}

// Calls `compute` to warm up, and once more to record it. Null after a failure.
void* infernet_cuda_record(int device, const uint64_t* pool, Compute compute, void* context) {
  std::unique_ptr<at::cuda::CUDAGraph> graph;
  guarded([&] {
    graph = record_on_side(
        static_cast<c10::DeviceIndex>(device), {pool[0], pool[1]}, compute, context);
  });
  return graph.release();
}

// Does a recording's work on the current stream, and does not wait for it.
int infernet_cuda_replay(void* graph) {
  return guarded([&] { static_cast<at::cuda::CUDAGraph*>(graph)->replay(); });
}

void infernet_cuda_drop(void* graph) {
  guarded([&] { delete static_cast<at::cuda::CUDAGraph*>(graph); });
}

// A new f32 tensor of the processor's that a GPU writes straight into. Null after
// a failure.
void* infernet_cuda_pinned(int64_t rows, int64_t columns) {
  std::unique_ptr<at::Tensor> made;
  guarded([&] {
    const auto options = at::TensorOptions().dtype(at::kFloat).pinned_memory(true);
    made = std::make_unique<at::Tensor>(at::empty({rows, columns}, options));
  });
  return made.release();
}

}  // extern "C"
#pragma GCC visibility pop
