// The gated feed-forward's middle.

inline float silu(float x) { return x / (1.0f + exponential(-x)); }

// GELU by tanh; tanh(y) = 1 - 2 / (e^2y + 1).
inline float gelu(float x) {
  const float y = 0.79788456f * (x + 0.044715f * x * x * x);
  return x * (1.0f - 1.0f / (exponential(2.0f * y) + 1.0f));
}

// Each row of both is gates, then what they let through.
template <typename T, float (*activate)(float)>
void gate_rows(const T* both, T* out, int64_t rows, int64_t width) {
#pragma omp parallel for if (rows >= 16)
  for (int64_t row = 0; row < rows; row++) {
    const T* gates = both + row * 2 * width;
    T* to = out + row * width;
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
      put(activate(wide(gates[i])) * wide(gates[width + i]), to[i]);
    }
  }
}

template <typename T>
void gate_typed(bool by_gelu, const void* both, void* out, int64_t rows, int64_t width) {
  const auto* from = static_cast<const T*>(both);
  auto* to = static_cast<T*>(out);
  by_gelu ? gate_rows<T, gelu>(from, to, rows, width) : gate_rows<T, silu>(from, to, rows, width);
}

void gate(bool half, bool by_gelu, const void* both, void* out, int64_t rows, int64_t width) {
  half ? gate_typed<bf16>(by_gelu, both, out, rows, width)
       : gate_typed<float>(by_gelu, both, out, rows, width);
}
