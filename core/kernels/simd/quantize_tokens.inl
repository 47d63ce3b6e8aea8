// Behind quantize.inl, where an instruction set has nothing for many blocks at once.

void quantize(const float* x, int64_t stride, int64_t block_begin, int64_t block_end, const Activations& a) {
  for (int64_t first = block_begin * kTokenBlock; first < block_end * kTokenBlock; first += kTokenBlock) {
    const int64_t width = a.tokens - first < kTokenBlock ? a.tokens - first : kTokenBlock;
    for (int64_t t = 0; t < width; ++t) {
      quantize_blocks(x + (first + t) * stride, a, first, width, t, 0, a.blocks);
      pad_quads(a, first, width, t);
    }
  }
}
