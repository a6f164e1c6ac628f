// RMS norms.

// out = norm(input) * weight, row by row. Where something is added, it is added
// to input first, which keeps the sum.
template <typename T>
void norm_rows(T* input, const T* added, const float* weight, T* out, int64_t rows, int64_t width,
               float epsilon) {
#pragma omp parallel for if (rows >= 16)
  for (int64_t row = 0; row < rows; row++) {
    T* in = input + row * width;
    T* to = out + row * width;
    if (added != nullptr) {
      const T* more = added + row * width;
#pragma omp simd
      for (int64_t i = 0; i < width; i++) put(wide(in[i]) + wide(more[i]), in[i]);
    }
    const float factor = norm_factor(in, width, epsilon);
#pragma omp simd
    for (int64_t i = 0; i < width; i++) put(wide(in[i]) * factor * weight[i], to[i]);
  }
}

void rms_norm(bool half, void* input, const void* added, const float* weight, void* out,
              int64_t rows, int64_t width, float epsilon) {
  if (half) {
    norm_rows(static_cast<bf16*>(input), static_cast<const bf16*>(added), weight,
              static_cast<bf16*>(out), rows, width, epsilon);
  } else {
    norm_rows(static_cast<float*>(input), static_cast<const float*>(added), weight,
              static_cast<float*>(out), rows, width, epsilon);
  }
}
