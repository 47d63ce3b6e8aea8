// Included inside the namespace of a folder, after its
//
//   sums_of(quads, width, begin, end, sums)   sums of inputs [begin, end) for each of `width` tokens
//   bias_of(w)                                what was taken off every code

int64_t describe_pieces(const Matrix& w, const Activations& x, int64_t begin, int64_t end, int64_t first,
                        const Pieces& pieces) {
  const int64_t width = smaller(x.tokens - first, kTokenBlock);
  const int32_t each_counts = bias_of(w) - (w.mins == nullptr ? w.zero : 0);
  const int8_t* quads = x.quads + first * x.cols_padded;
  Pieces to = pieces;
  int64_t count = 0;
  bool begins = true;
  each_piece(w, segment_inputs(w, x), begin, end, [&](int64_t k, int64_t piece_end, bool ends) {
    const int64_t at = first * x.blocks + k / x.block * width;
    const bool known = k % x.block == 0 && (piece_end % x.block == 0 || piece_end == w.cols);  // a whole block
    int32_t computed[16];  // kTokenBlock, and what a register holds more
    if (!known) sums_of(quads, width, k, piece_end, computed);
    const int32_t* sums = known ? x.sums + at : computed;
    for (int64_t t = 0; t < width; ++t) {
      to.start[t] = each_counts * sums[t];
      to.scale[t] = x.scales[at + t];
      const float scaled = to.scale[t] * static_cast<float>(sums[t]);
      to.group_sums[t] = begins ? scaled : to.group_sums[t] + scaled;
    }
    begins = ends;
    to.start += to.stride;
    to.scale += to.stride;
    if (ends) to.group_sums += to.stride;
    ++count;
  });
  return count;
}
