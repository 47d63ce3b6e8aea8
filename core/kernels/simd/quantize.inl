// Included inside the namespace of an instruction set, after these of it:
//
//   largest_magnitude(x, n)                  the largest |x|, infinity and then NaN on top
//   store_codes(x, n, scale, out, stride)    codes of n floats, quads `stride` bytes apart; returns their sum
//   store_zeros(out, stride, quads)

// q = round-to-nearest-even(x / scale), scale = max|x| / 127, over consecutive inputs of one token.
//
// Shapes: x [T][stride] floats -> quads [K_padded/4][w][4], scales and sums [blocks][w] per block of w <= 12 tokens.
// Edge cases: as ../scalar/quantize.cpp, bit for bit. A scale that is zero, infinite or NaN gives q 0.
// Cost: two passes over x (the second from L1), one division per vector, one 4-byte store per 4 inputs.

namespace {

// Blocks [begin, end) of inputs of token `t` of the `width` tokens from `first` on; `begin` begins a scale.
inline void quantize_blocks(const float* row, const Activations& a, int64_t first, int64_t width, int64_t t,
                            int64_t begin, int64_t end) {
  int8_t* quads = a.quads + first * a.cols_padded + 4 * t;
  float scale = 0.0f;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t at = i * a.block;
    const int64_t left = a.cols - at;
    const int64_t n = left < a.block ? left : a.block;
    if (at % a.scale_block == 0) {
      const float largest = largest_magnitude(row + at, left < a.scale_block ? left : a.scale_block);
      const bool finite = largest <= __FLT_MAX__;
      scale = a.fixed_scale > 0.0f && finite ? a.fixed_scale : largest / 127.0f;
    }
    const bool usable = scale > 0.0f && scale <= __FLT_MAX__;
    int8_t* out = quads + at * width;
    int32_t sum = 0;
    if (usable)
      sum = store_codes(row + at, n, scale, out, 4 * width);
    else
      store_zeros(out, 4 * width, (n + 3) / 4);
    a.scales[first * a.blocks + i * width + t] = scale;
    a.sums[first * a.blocks + i * width + t] = sum;
  }
}

inline void pad_quads(const Activations& a, int64_t first, int64_t width, int64_t t) {
  const int64_t used = (a.cols + 3) / 4;
  store_zeros(a.quads + first * a.cols_padded + 4 * t + used * 4 * width, 4 * width, a.cols_padded / 4 - used);
}

}  // namespace
