// Many tokens times a matrix of integer codes: the kernel that reads prompts. It is bound by the dot product.
// Included inside the namespace of a processor, after its `Block`:
//
//   Block::kSizes, Block::rows_of(kTokens)   register blocks: numbers of tokens, ascending, and registers of rows
//   Block::store_step(to, codes)             the codes of 16 rows x 32 inputs to a panel, kStepBytes of it
//   Block::kArranged, Block::arrange(...)    whether activations are copied in another order first, and how
//   Block::sums<kRows, kTokens>(...)         int32 sums [token][register] of some steps

constexpr int64_t kChunkCols = 1280;  // a multiple of 20 and of 256: 16 rows of codes are 20 KiB, for the L1 cache
constexpr int64_t kStepBytes = kStepQuads * kVectorBytes;
constexpr int64_t kPanelBytes = (kChunkCols / kStepCols + 1) * kStepBytes;
constexpr int64_t kMostBlocks = 16;  // of tokens, whose activations are described (and arranged) once for all rows
constexpr int64_t kMostPieces = 2 * (kChunkCols / 32 + 2);
constexpr int64_t kArrayWords = kMostPieces * kTokenBlock;
constexpr int64_t kInputBytes = (kChunkCols + kStepCols) * kTokenBlock;  // of a block, arranged
constexpr int64_t kBlockBytes = 3 * 4 * kArrayWords + (Block::kArranged ? kInputBytes : 0);
static_assert(kPanelBytes + kMostBlocks * kBlockBytes <= static_cast<int64_t>(kScratchBytes));

// 16 rows and inputs [begin, end), unpacked.
struct Panel {
  int64_t tile, begin, end;
  int hold;  // quads of codes that fit into sums of 16 bits
  uint8_t* codes;
};

// What the tokens of a block have in common for all rows.
struct Inputs {
  Pieces pieces;
  const int8_t* quads;
  int64_t stride;  // bytes from quad to quad, or of a step where they are arranged
};

inline void unpack_trits(const Matrix& w, Panel& panel) {
  const uint8_t* from = w.plane[0] + (panel.tile * w.vectors[0] + panel.begin / 20) * kVectorBytes;
  const int64_t vectors = (panel.end - panel.begin + 19) / 20;
  const int64_t steps = (panel.end - panel.begin + kStepCols - 1) / kStepCols;
  uint8_t* to = panel.codes;
  for (int64_t v = 0, step = 0; step < steps; v += 8) {  // 5 steps, 8 vectors
    alignas(16) uint8_t quads[40 * kVectorBytes];
    for (int64_t i = 0; i < 8; ++i, from += kVectorBytes) {
      uint8_t* at = quads + i * 5 * kVectorBytes;
      if (v + i < vectors)
        unpack_vector(from, at);
      else  // up to the end of the step, where the activations are zero
        for (int64_t q = 0; q < 5; ++q) store(at + q * kVectorBytes, Quad{});
    }
    for (int64_t i = 0; i < 5 && step < steps; ++i, ++step, to += kStepBytes) {
      Quad codes[kStepQuads];
      each<kStepQuads>([&](auto q) __attribute__((always_inline)) {
        codes[q.value] = load(quads + (i * 8 + q.value) * kVectorBytes);
      });
      Block::store_step(to, codes);
    }
  }
  panel.hold = hold_of(kMostTrit);
}

template <class Format>
void unpack_planes(const Format& format, const Matrix& w, Panel& panel) {
  uint8_t* to = panel.codes;
  const auto step = [&](const uint8_t* const planes[2]) __attribute__((always_inline)) {
    Quad all[kStepQuads];
    format.step(planes, [&](auto q, const Quad& codes) __attribute__((always_inline)) { all[q.value] = codes; });
    Block::store_step(to, all);
    to += kStepBytes;
  };
  Cursor<Format> planes(w, panel.tile, panel.begin);
  int64_t k = panel.begin;
  for (; k + kStepCols <= panel.end; k += kStepCols) {
    step(planes.at);
    planes.advance();
  }
  if (k < panel.end) {
    const Rest<Format> rest(w, panel.tile);
    const uint8_t* const from[2] = {rest.bytes[0], rest.bytes[1]};
    step(from);
  }
  panel.hold = hold_of(Format::most);
}

inline void unpack(const Matrix& w, Panel& panel) {
  if (w.element == Element::kTernary) return unpack_trits(w, panel);
  with_format(w, [&](const auto& format) { unpack_planes(format, w, panel); });
}

// The float sums of a register block, [token][register]: of the current group, and of the row.
template <int kRows, int kTokens>
struct Sums {
  float32x4_t group[kTokens * kRows];
  float32x4_t row[kTokens * kRows];
};

// One piece: `steps` (at least 1) steps of 4 kRows rows times kTokens tokens, scaled and added to `sums`.
//
// The int32 sums live in registers, the float sums in the L1 cache. A function of its own, for GCC to have all
// registers for it.
template <int kRows, int kTokens, bool kEnds>
__attribute__((noinline)) void multiply_piece(const uint8_t* codes, const int8_t* quads, int64_t stride, int64_t steps,
                                              int hold, const int32_t* start, const float* scale,
                                              const float32x4_t* row_scale, Sums<kRows, kTokens>& sums) {
  int32x4_t sum[kTokens * kRows];
  Block::template sums<kRows, kTokens>(codes, quads, stride, steps, hold, start, sum);
  each<kTokens>([&](auto t) __attribute__((always_inline)) {
    each<kRows>([&](auto r) __attribute__((always_inline)) {
      constexpr int n = t.value * kRows + r.value;
      const float32x4_t group = vfmaq_n_f32(sums.group[n], vcvtq_f32_s32(sum[n]), scale[t.value]);
      if constexpr (kEnds) {
        sums.row[n] = vfmaq_f32(sums.row[n], row_scale[r.value], group);
        sums.group[n] = vdupq_n_f32(0.0F);
      } else {
        sums.group[n] = group;
      }
    });
  });
}

// Registers [reg, reg + kRows) of one panel times tokens [t, t + kTokens) of the block that begins with token `first`,
// of which there are `width`.
template <int kRows, int kTokens>
void multiply(const Matrix& w, int64_t segment, const Panel& panel, const Inputs& x, int64_t reg, int64_t first,
              int64_t t, int64_t width, float* y, int64_t y_stride) {
  const int64_t row = panel.tile * kTileRows + 4 * reg;
  const int64_t tokens = smaller(width - t, kTokens);
  float* out = y + (first + t) * y_stride + row;
  Sums<kRows, kTokens> sums;
  for (int64_t i = 0; i < kTokens; ++i) {
    for (int64_t r = 0; r < kRows; ++r) {
      const bool there = panel.begin > 0 && i < tokens && w.rows > row + 4 * r;
      sums.row[i * kRows + r] = there ? load_rows(out + i * y_stride + 4 * r, w.rows - row - 4 * r) : vdupq_n_f32(0.0F);
      sums.group[i * kRows + r] = vdupq_n_f32(0.0F);
    }
  }
  const uint8_t* codes = panel.codes + Block::kRegBytes * reg;
  const int8_t* quads = x.quads + Block::kTokenBytes * t;
  const int32_t* start = x.pieces.start + t;
  const float* scale = x.pieces.scale + t;
  const float* offsets = x.pieces.group_sums + t;
  int64_t at = panel.tile * w.scale_tile_stride + panel.begin / w.group * kTileRows + 4 * reg;
  each_piece(w, segment, panel.begin, panel.end, [&](int64_t k, int64_t end, bool ends) {
    const int64_t steps = (end - k + kStepCols - 1) / kStepCols;
    float32x4_t scales[kRows];
    if (ends) {
      for (int64_t r = 0; r < kRows; ++r) scales[r] = load_scales4(w.scales, w.scale_type, at + 4 * r);
      multiply_piece<kRows, kTokens, true>(codes, quads, x.stride, steps, panel.hold, start, scale, scales, sums);
      if (w.mins != nullptr) {
        for (int64_t r = 0; r < kRows; ++r) {
          const float32x4_t mins = load_scales4(w.mins, w.scale_type, at + 4 * r);
          for (int64_t i = 0; i < kTokens; ++i)
            sums.row[i * kRows + r] = vfmaq_n_f32(sums.row[i * kRows + r], mins, offsets[i]);
        }
      }
      offsets += x.pieces.stride;
      at += kTileRows;
    } else {
      multiply_piece<kRows, kTokens, false>(codes, quads, x.stride, steps, panel.hold, start, scale, scales, sums);
    }
    codes += steps * kStepBytes;
    quads += steps * Block::step_bytes(x.stride);
    start += x.pieces.stride;
    scale += x.pieces.stride;
  });
  const float factor = panel.end == w.cols ? w.factor : 1.0F;
  for (int64_t i = 0; i < tokens; ++i)
    for (int64_t r = 0; r < kRows; ++r)
      if (w.rows > row + 4 * r)
        store_rows(out + i * y_stride + 4 * r, w.rows - row - 4 * r, vmulq_n_f32(sums.row[i * kRows + r], factor));
}

// All rows of a panel times the block of tokens, in the largest register blocks that are not larger than needed.
template <int kSize = 0>
SCRIMP_INLINE int64_t multiply_some(const Matrix& w, int64_t segment, const Panel& panel, const Inputs& x,
                                    int64_t first, int64_t t, int64_t width, float* y, int64_t y_stride) {
  constexpr int kTokens = Block::kSizes[kSize];
  constexpr int kLast = static_cast<int>(sizeof(Block::kSizes) / sizeof(Block::kSizes[0])) - 1;
  if constexpr (kSize < kLast)
    if (width - t > kTokens) return multiply_some<kSize + 1>(w, segment, panel, x, first, t, width, y, y_stride);
  constexpr int kRows = Block::rows_of(kTokens);
  for (int64_t reg = 0; reg < kRegs; reg += kRows)
    multiply<kRows, kTokens>(w, segment, panel, x, reg, first, t, width, y, y_stride);
  return kTokens;
}

inline void multiply_block(const Matrix& w, int64_t segment, const Panel& panel, const Inputs& x, int64_t first,
                           int64_t width, float* y, int64_t y_stride) {
  for (int64_t t = 0; t < width;) t += multiply_some(w, segment, panel, x, first, t, width, y, y_stride);
}

// Inputs [begin, end) of the block that begins with token `first`, described in `bytes`.
template <class Arranging = Block>
Inputs inputs_of(const Matrix& w, const Activations& x, int64_t begin, int64_t end, int64_t first, uint8_t* bytes) {
  float* words = reinterpret_cast<float*>(bytes);
  const int64_t width = smaller(x.tokens - first, kTokenBlock);
  const int8_t* quads = x.quads + first * x.cols_padded + begin * width;
  Inputs found = {
      {reinterpret_cast<int32_t*>(words), words + kArrayWords, words + 2 * kArrayWords, kTokenBlock}, quads, 4 * width};
  describe_pieces(w, x, begin, end, first, found.pieces);
  if constexpr (Arranging::kArranged) {
    int8_t* arranged = reinterpret_cast<int8_t*>(words + 3 * kArrayWords);
    for (int64_t k = 0; k < end - begin; k += kStepCols)
      Arranging::arrange(quads + k * width, 4 * width, arranged + k * kTokenBlock);
    found.quads = arranged;
  }
  return found;
}

// y[t,n] = sum_g s[n,g] * sum_{a in g} sx[t,a] * (sum_{k in a} u[n,k]*x[t,k] - zero*sum_{k in a} x[t,k])   [+ mins]
//
// Shapes: w N x K in tiles of 16 rows; x in blocks of 12 tokens, 4 inputs of each token side by side; y [T][y_stride].
// Chunks of inputs outermost, then up to 192 tokens, whose activations are described once; then tiles, each unpacked
// once into scratch (20 KiB) and read once per register block.
// Exactness: as for one token: exact inner sums, one rounding per scale and per addition. A segment that a chunk cuts
// in two counts as two.
inline void prefill_body(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                         int64_t y_stride, uint8_t* scratch) {
  const int64_t segment = segment_inputs(w, x);
  Inputs inputs[kMostBlocks];
  for (int64_t begin = 0; begin < w.cols; begin += kChunkCols) {
    const int64_t end = smaller(begin + kChunkCols, w.cols);
    for (int64_t some = 0; some < x.tokens; some += kMostBlocks * kTokenBlock) {
      const int64_t blocks = smaller((x.tokens - some + kTokenBlock - 1) / kTokenBlock, kMostBlocks);
      for (int64_t b = 0; b < blocks; ++b)
        inputs[b] = inputs_of(w, x, begin, end, some + b * kTokenBlock, scratch + kPanelBytes + b * kBlockBytes);
      for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
        Panel panel = {tile, begin, end, kStepQuads, scratch};
        unpack(w, panel);
        for (int64_t b = 0; b < blocks; ++b) {
          const int64_t first = some + b * kTokenBlock;
          multiply_block(w, segment, panel, inputs[b], first, smaller(x.tokens - first, kTokenBlock), y, y_stride);
        }
      }
    }
  }
}
