// y = W x with weights decoded to float32 and float32 activations. Included inside the namespace of an instruction set.
//
// A panel of a few vectors of rows x kDecodeCols inputs is decoded into scratch (L2), then multiplied with every token.
// Each weight is decoded once per call, so many tokens cost 2 N K T operations at the speed of product_block. What
// needs no decoding (f32), or little and the tokens are few (f16, bf16), is multiplied as it is stored: scratch would
// be written and read again.
//
// Error: a chunk of c = min(K, kDecodeCols) inputs is summed in order, chunks are added in order:
// |y - exact| <= gamma(c + ceil(K / c)) * sum_k |w x|.

namespace {

constexpr int64_t kDecodeCols = 640;  // a multiple of 160: vectors of every width begin there
static_assert(kDecodeCols % 160 == 0 && kProductVecs * kLanes % kTileRows == 0);
static_assert(kProductFewVecs * kLanes * (kDecodeCols + 3) * 4 <= static_cast<int64_t>(kScratchBytes));

// Tiles of floats as they are stored: a vector holds one or two inputs of 16 rows.
template <Element kElement>
struct StoredFloats {
  static constexpr int kInputsAtOnce = kElement == Element::kF32 ? 1 : 2;
  const uint8_t* vectors;
  int64_t tile_bytes;

  Quad load(int64_t vector, int64_t r) const {
    return load_quad(vectors + r / kTileRows * tile_bytes + vector * kVectorBytes + r % kTileRows * 4);
  }
  Vec at(int64_t k, int64_t r) const { return from_bits(load(k, r)); }
  Vec at(int64_t k, int j, int64_t r) const { return half_value<kElement>(load(k / 2, r), j); }
};

template <Element kElement>
void multiply_stored(const Matrix& w, const float* x, int64_t x_stride, int64_t tokens, int64_t tile_begin,
                     int64_t tile_end, float* y, int64_t y_stride) {
  using Panel = StoredFloats<kElement>;
  const int64_t tile_bytes = w.vectors[0] * kVectorBytes;
  each_panel(w, tokens, tile_begin, tile_end, kDecodeCols, [&](int64_t tile, int64_t rows, int64_t k, int64_t inner) {
    const Panel panel{w.plane[0] + tile * tile_bytes + k / Panel::kInputsAtOnce * kVectorBytes, tile_bytes};
    product(panel, rows, inner, x + k, x_stride, tokens, y + tile * kTileRows, y_stride, k > 0);
  });
}

}  // namespace

void linear_f32(const Matrix& w, const float* x, int64_t x_stride, int64_t tokens, int64_t tile_begin, int64_t tile_end,
                float* y, int64_t y_stride, uint8_t* scratch) {
  const bool few_pairs = tokens <= kStoredTokens && w.cols % 2 == 0;
  if (w.scales == nullptr) {
    if (w.element == Element::kF32)
      return multiply_stored<Element::kF32>(w, x, x_stride, tokens, tile_begin, tile_end, y, y_stride);
    if (w.element == Element::kF16 && few_pairs)
      return multiply_stored<Element::kF16>(w, x, x_stride, tokens, tile_begin, tile_end, y, y_stride);
    if (w.element == Element::kBf16 && few_pairs)
      return multiply_stored<Element::kBf16>(w, x, x_stride, tokens, tile_begin, tile_end, y, y_stride);
  }
  float* panel = reinterpret_cast<float*>(scratch);
  constexpr int64_t kParts = kTileRows / kLanes;
  each_panel(w, tokens, tile_begin, tile_end, kDecodeCols, [&](int64_t tile, int64_t rows, int64_t k, int64_t inner) {
    const int64_t tiles = (rows + kTileRows - 1) / kTileRows, stride = tiles * kTileRows;
    for (int64_t i = 0; i < tiles; ++i)
      for (int64_t part = 0; part < kParts; ++part)
        decode(w, tile + i, part, k, k + inner, panel + i * kTileRows + part * kLanes, stride);
    product(FloatPanel{panel, stride}, rows, inner, x + k, x_stride, tokens, y + tile * kTileRows, y_stride, k > 0);
  });
}
