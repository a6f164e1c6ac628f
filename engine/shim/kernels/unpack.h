// Four-bit weights out of the layout that libtorch packs them into (its
// weight_to_int4pack_kernel).

// The most rows in one of libtorch's blocks.
constexpr int64_t MAX_BLOCK_ROWS = 64;

// packed: blocks of block_rows rows, the last one of what is left; a block is
// [columns, its rows / 2] bytes. In a whole block of the vector layouts a byte
// holds two rows that are half a block apart, else two neighbours.
// scales_and_zeros: bf16 [columns / group, rows, 2]. out: bf16 [columns, rows],
// (quant - 8) * scale + zero.
void unpack_four_bit(const uint8_t* packed, const void* scales_and_zeros, void* out, int64_t rows,
                     int64_t columns, int64_t group, int64_t block_rows, bool halves) {
  const auto* factors = static_cast<const bf16*>(scales_and_zeros);
  auto* to = static_cast<bf16*>(out);
  const int64_t blocks = (rows + block_rows - 1) / block_rows;
#pragma omp parallel for
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t first = block * block_rows;
    const int64_t own = block_rows < rows - first ? block_rows : rows - first, half = own / 2;
    const bool apart = halves && own == block_rows;
    const uint8_t* bytes = packed + first * columns / 2;
    float scales[MAX_BLOCK_ROWS], zeros[MAX_BLOCK_ROWS];
    for (int64_t column = 0; column < columns; column++, bytes += half) {
      if (column % group == 0) {
        const bf16* pairs = factors + (column / group * rows + first) * 2;
        for (int64_t row = 0; row < own; row++) {
          scales[row] = wide(pairs[2 * row]);
          zeros[row] = wide(pairs[2 * row + 1]) - 8.0f * scales[row];
        }
      }
      bf16* line = to + column * rows + first;
      if (apart) {
#pragma omp simd
        for (int64_t i = 0; i < half; i++) {
          put(static_cast<float>(bytes[i] & 15) * scales[i] + zeros[i], line[i]);
        }
#pragma omp simd
        for (int64_t i = 0; i < half; i++) {
          put(static_cast<float>(bytes[i] >> 4) * scales[half + i] + zeros[half + i],
              line[half + i]);
        }
      } else {
        for (int64_t i = 0; i < half; i++) {
          put(static_cast<float>(bytes[i] & 15) * scales[2 * i] + zeros[2 * i], line[2 * i]);
          put(static_cast<float>(bytes[i] >> 4) * scales[2 * i + 1] + zeros[2 * i + 1],
              line[2 * i + 1]);
        }
      }
    }
  }
}
