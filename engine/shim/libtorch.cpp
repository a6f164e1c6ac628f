// What libtorch offers and tch does not.

#include <ATen/Version.h>
#include <c10/core/InferenceMode.h>

#include <string>

// Threads that only compute need no record for gradients: lighter than no_grad.
extern "C" void* infernet_inference_begin() { return new c10::InferenceMode(true); }

// Of the thread that began it, and in the opposite order.
extern "C" void infernet_inference_end(void* mode) {
  delete static_cast<c10::InferenceMode*>(mode);
}

// Bits of the vectors that libtorch's own kernels use here; 0 for none.
extern "C" int infernet_vector_bits() {
  const std::string capability = at::get_cpu_capability();
  return capability == "AVX512" ? 512 : capability == "AVX2" ? 256 : 0;
}
