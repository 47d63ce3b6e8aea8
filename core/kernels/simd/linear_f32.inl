// y = W x with weights decoded to float32 and float32 activations. Included inside the namespace of an instruction set.
//
// A panel of a few vectors of rows x kDecodeCols inputs is decoded into scratch (L2), then multiplied with every token.
// Each weight is decoded once per call, so many tokens cost 2 N K T operations at the speed of product_block.
//
// Error: a chunk of c = min(K, kDecodeCols) inputs is summed in order, chunks are added in order:
// |y - exact| <= gamma(c + ceil(K / c)) * sum_k |w x|.

namespace {

constexpr int64_t kDecodeCols = 640;  // a multiple of 160: vectors of every width begin there
static_assert(kDecodeCols % 160 == 0 && kProductVecs * kLanes % kTileRows == 0);
static_assert(kFewTokensVecs * kLanes * (kDecodeCols + 3) * 4 <= static_cast<int64_t>(kScratchBytes));

}  // namespace

void linear_f32(const Matrix& w, const float* x, int64_t x_stride, int64_t tokens, int64_t tile_begin, int64_t tile_end,
                float* y, int64_t y_stride, uint8_t* scratch) {
  float* panel = reinterpret_cast<float*>(scratch);
  constexpr int64_t kParts = kTileRows / kLanes;
  const int64_t at_once = (tokens <= kFewTokens ? kFewTokensVecs : kProductVecs) * kLanes / kTileRows;
  for (int64_t tile = tile_begin; tile < tile_end; tile += at_once) {
    const int64_t tiles = tile_end - tile < at_once ? tile_end - tile : at_once;
    const int64_t left = w.rows - tile * kTileRows;
    const int64_t rows = left < tiles * kTileRows ? left : tiles * kTileRows;
    const int64_t stride = tiles * kTileRows;
    for (int64_t k = 0; k < w.cols; k += kDecodeCols) {
      const int64_t inner = w.cols - k < kDecodeCols ? w.cols - k : kDecodeCols;
      for (int64_t i = 0; i < tiles; ++i)
        for (int64_t part = 0; part < kParts; ++part)
          decode(w, tile + i, part, k, k + inner, panel + i * kTileRows + part * kLanes, stride);
      product(FloatPanel{panel, stride}, rows, inner, x + k, x_stride, tokens, y + tile * kTileRows, y_stride, k > 0);
    }
  }
}
