// Products of few rows with a matrix, as fast as memory gives the matrix: what
// libtorch has for them is slow on processors of another maker than its library's.

// So many rows at most: one sum each, so that a weight is loaded once for all.
constexpr int64_t MAX_ROWS = 8;

template <typename T, int ROWS>
inline void multiply_line(const T* input, const T* line, float more, T* out, int64_t outputs,
                          int64_t inputs) {
  float a = more, b = more, c = more, d = more, e = more, f = more, g = more, h = more;
#pragma omp simd reduction(+ : a, b, c, d, e, f, g, h)
  for (int64_t i = 0; i < inputs; i++) {
    const float weight = wide(line[i]);
    a += weight * wide(input[i]);
    if (ROWS > 1) b += weight * wide(input[inputs + i]);
    if (ROWS > 2) c += weight * wide(input[2 * inputs + i]);
    if (ROWS > 3) d += weight * wide(input[3 * inputs + i]);
    if (ROWS > 4) e += weight * wide(input[4 * inputs + i]);
    if (ROWS > 5) f += weight * wide(input[5 * inputs + i]);
    if (ROWS > 6) g += weight * wide(input[6 * inputs + i]);
    if (ROWS > 7) h += weight * wide(input[7 * inputs + i]);
  }
  const float sums[MAX_ROWS] = {a, b, c, d, e, f, g, h};
  for (int row = 0; row < ROWS; row++) put(sums[row], out[row * outputs]);
}

template <typename T, int ROWS>
void multiply_rows(const T* input, const T* weights, const T* bias, T* out, int64_t outputs,
                   int64_t inputs) {
#pragma omp parallel for
  for (int64_t output = 0; output < outputs; output++) {
    const float more = bias == nullptr ? 0.0f : wide(bias[output]);
    multiply_line<T, ROWS>(input, weights + output * inputs, more, out + output, outputs, inputs);
  }
}

// input: [rows, inputs]; weights: [outputs, inputs]; bias: [outputs] or null;
// out: [rows, outputs].
template <typename T>
void multiply_typed(const T* input, const T* weights, const T* bias, T* out, int64_t rows,
                    int64_t outputs, int64_t inputs) {
  constexpr void (*by_rows[MAX_ROWS])(const T*, const T*, const T*, T*, int64_t, int64_t) = {
      multiply_rows<T, 1>, multiply_rows<T, 2>, multiply_rows<T, 3>, multiply_rows<T, 4>,
      multiply_rows<T, 5>, multiply_rows<T, 6>, multiply_rows<T, 7>, multiply_rows<T, 8>,
  };
  by_rows[rows - 1](input, weights, bias, out, outputs, inputs);
}

void multiply(bool half, const void* input, const void* weights, const void* bias, void* out,
              int64_t rows, int64_t outputs, int64_t inputs) {
  if (half) {
    multiply_typed(static_cast<const bf16*>(input), static_cast<const bf16*>(weights),
                   static_cast<const bf16*>(bias), static_cast<bf16*>(out), rows, outputs, inputs);
  } else {
    multiply_typed(static_cast<const float*>(input), static_cast<const float*>(weights),
                   static_cast<const float*>(bias), static_cast<float*>(out), rows, outputs,
                   inputs);
  }
}
