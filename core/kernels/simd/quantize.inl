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
void quantize(const float* x, int64_t stride, int64_t block_begin, int64_t block_end, const Activations& a) {
  for (int64_t block = block_begin; block < block_end; ++block) {
    const int64_t first = block * kTokenBlock;
    const int64_t width = a.tokens - first < kTokenBlock ? a.tokens - first : kTokenBlock;
    for (int64_t t = 0; t < width; ++t) {
      const float* row = x + (first + t) * stride;
      int8_t* quads = a.quads + first * a.cols_padded + 4 * t;
      float scale = 0.0f;
      for (int64_t i = 0; i < a.blocks; ++i) {
        const int64_t begin = i * a.block;
        const int64_t left = a.cols - begin;
        const int64_t n = left < a.block ? left : a.block;
        if (begin % a.scale_block == 0) {
          const float largest = largest_magnitude(row + begin, left < a.scale_block ? left : a.scale_block);
          const bool finite = largest <= __FLT_MAX__;
          scale = a.fixed_scale > 0.0f && finite ? a.fixed_scale : largest / 127.0f;
        }
        const bool usable = scale > 0.0f && scale <= __FLT_MAX__;
        int8_t* out = quads + begin * width;
        int32_t sum = 0;
        if (usable)
          sum = store_codes(row + begin, n, scale, out, 4 * width);
        else
          store_zeros(out, 4 * width, (n + 3) / 4);
        a.scales[first * a.blocks + i * width + t] = scale;
        a.sums[first * a.blocks + i * width + t] = sum;
      }
      const int64_t used = (a.cols + 3) / 4;
      store_zeros(quads + used * 4 * width, 4 * width, a.cols_padded / 4 - used);
    }
  }
}
