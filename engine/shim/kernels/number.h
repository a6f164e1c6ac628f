// Number formats, and functions of numbers that compilers turn into vector
// instructions.

// The widest head, so that one fits on the stack.
constexpr int64_t MAX_HEAD_WIDTH = 512;

struct bf16 {
  uint16_t bits;
};

inline float wide(float number) { return number; }

inline float wide(bf16 number) {
  const uint32_t bits = static_cast<uint32_t>(number.bits) << 16;
  float out;
  __builtin_memcpy(&out, &bits, sizeof out);
  return out;
}

inline void put(float number, float& out) { out = number; }

// To the nearest, of two to the even one; what is no number stays none.
inline void put(float number, bf16& out) {
  uint32_t bits;
  __builtin_memcpy(&bits, &number, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  out.bits = static_cast<uint16_t>(number == number ? rounded : 0x7fc0);
}

// e to the power of x to within two units in the last place; x is held between
// -87 and 88, where floats end.
inline float exponential(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  // Adding and taking away 1.5 * 2^23 rounds to a whole number.
  const float magic = 12582912.0f;
  const float whole = (x * 1.44269504f + magic) - magic;
  // ln 2 in two parts, so that nothing is lost in the difference.
  const float rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float sum = 1.9875691500e-4f;
  sum = sum * rest + 1.3981999507e-3f;
  sum = sum * rest + 8.3334519073e-3f;
  sum = sum * rest + 4.1665795894e-2f;
  sum = sum * rest + 1.6666665459e-1f;
  sum = sum * rest + 5.0000001201e-1f;
  sum = sum * rest * rest + rest + 1.0f;
  const int32_t exponent = (static_cast<int32_t>(whole) + 127) << 23;
  float power;
  __builtin_memcpy(&power, &exponent, sizeof power);
  return sum * power;
}

// Numbers taken together; the compiler makes of them what vectors there are.
constexpr int64_t LANES = 16;
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float))));

inline Lanes load(const float* numbers) {
  Lanes out;
  __builtin_memcpy(&out, numbers, sizeof out);
  return out;
}

inline Lanes load(const bf16* numbers) {
  typedef uint16_t Halves __attribute__((vector_size(LANES * sizeof(uint16_t))));
  typedef uint32_t Words __attribute__((vector_size(LANES * sizeof(uint32_t))));
  Halves halves;
  __builtin_memcpy(&halves, numbers, sizeof halves);
  return reinterpret_cast<Lanes>(__builtin_convertvector(halves, Words) << 16);
}

// By halves: one by one, as reductions are compiled, takes longer than the products
// of a head.
inline float total(const Lanes& lanes) {
  typedef float Half __attribute__((vector_size(LANES * sizeof(float) / 2)));
  typedef float Quarter __attribute__((vector_size(LANES * sizeof(float) / 4)));
  Half halves[2];
  __builtin_memcpy(halves, &lanes, sizeof halves);
  const Half half = halves[0] + halves[1];
  Quarter quarters[2];
  __builtin_memcpy(quarters, &half, sizeof quarters);
  const Quarter quarter = quarters[0] + quarters[1];
  return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

// The sum of products.
template <typename T>
inline float dot(const T* left, const T* right, int64_t width) {
  const int64_t whole = width / LANES * LANES;
  Lanes sums = {};
  for (int64_t i = 0; i < whole; i += LANES) sums += load(left + i) * load(right + i);
  float sum = total(sums);
  for (int64_t i = whole; i < width; i++) sum += wide(left[i]) * wide(right[i]);
  return sum;
}

// What a norm multiplies by: one over the root of the mean square.
template <typename T>
inline float norm_factor(const T* input, int64_t width, float epsilon) {
  const float mean = dot(input, input, width) / static_cast<float>(width);
  return 1.0f / __builtin_sqrtf(mean + epsilon);
}
