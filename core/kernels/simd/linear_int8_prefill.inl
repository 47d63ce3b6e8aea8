// Many tokens times a matrix of integer codes: the kernel that reads prompts. It is bound by the dot product.
// Included inside the namespace of a processor, after its `Block`:
//
//   Block::kSizes, Block::rows_of(kTokens)   register blocks: numbers of tokens, ascending, and registers of rows
//   Block::store_step<kMost>(to, codes)      codes up to kMost of 16 rows x 32 inputs to a panel: a step of it
//   Block::panel_bytes(most)                 how long a step is
//   Block::kArranged, Block::arrange(...)    whether activations are copied in another order first, and how
//   Block::sums<kRows, kTokens>(...)         int32 sums [token][register] of some steps

constexpr int64_t kChunkCols = 1280;  // a multiple of 20 and of 256: 16 rows of codes are 20 KiB, for the L1 cache
constexpr int64_t kPanelBytes = (kChunkCols / kStepCols + 1) * Block::panel_bytes(255);
constexpr int64_t kMostBlocks = 16;  // of tokens, whose activations are described (and arranged) once for all rows
constexpr int64_t kMostPieces = 2 * (kChunkCols / 32 + 2);
constexpr int64_t kArrayWords = kMostPieces * kTokenBlock;
constexpr int64_t kInputBytes = (kChunkCols + kStepCols) * kTokenBlock;  // of a block, arranged
constexpr int64_t kBlockBytes = 3 * 4 * kArrayWords + (Block::kArranged ? kInputBytes : 0);
static_assert(kPanelBytes + kMostBlocks * kBlockBytes <= static_cast<int64_t>(kScratchBytes));

// 16 rows and inputs [begin, end), unpacked.
struct Panel {
  int64_t tile, begin, end;
  uint8_t* codes;
  float *scales, *mins;    // [groups][16]
  int hold = 0;            // quads of codes that fit into sums of 16 bits
  int64_t step_bytes = 0;  // of codes
};

// What the tokens of a block have in common for all rows.
struct Inputs {
  Pieces pieces;
  const int8_t* quads;
  int64_t stride;  // bytes from quad to quad, or of a step where they are arranged
};

template <int kMost>
void hold(Panel& panel) {
  panel.hold = hold_of(kMost);
  panel.step_bytes = Block::panel_bytes(kMost);
}

inline void unpack_trits(const Matrix& w, Panel& panel) {
  hold<kMostTrit>(panel);
  const uint8_t* from = w.plane[0] + (panel.tile * w.vectors[0] + panel.begin / 20) * kVectorBytes;
  const int64_t vectors = (panel.end - panel.begin + 19) / 20;
  const int64_t steps = (panel.end - panel.begin + kStepCols - 1) / kStepCols;
  uint8_t* to = panel.codes;
  for (int64_t v = 0, step = 0; step < steps; v += 8) {  // 5 steps, 8 vectors
    alignas(kVectorBytes) uint8_t quads[40 * kVectorBytes];
    for (int64_t i = 0; i < 8; ++i, from += kVectorBytes) {
      uint8_t* at = quads + i * 5 * kVectorBytes;
      if (v + i < vectors)
        unpack_vector(from, at);
      else  // up to the end of the step, where the activations are zero
        for (int64_t q = 0; q < 5; ++q) store(at + q * kVectorBytes, Quad{});
    }
    for (int64_t i = 0; i < 5 && step < steps; ++i, ++step, to += panel.step_bytes) {
      Quad codes[kStepQuads];
      each<kStepQuads>([&](auto q) __attribute__((always_inline)) {
        codes[q.value] = load(quads + (i * 8 + q.value) * kVectorBytes);
      });
      Block::store_step<kMostTrit>(to, codes);
    }
  }
}

template <class Format>
void unpack_planes(const Format& format, const Matrix& w, Panel& panel) {
  hold<Format::most>(panel);
  uint8_t* to = panel.codes;
  const auto step = [&](const uint8_t* const planes[2]) __attribute__((always_inline)) {
    Quad all[kStepQuads];
    format.step(planes, [&](auto q, const Quad& codes) __attribute__((always_inline)) { all[q.value] = codes; });
    Block::template store_step<Format::most>(to, all);
    to += panel.step_bytes;
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
}

// Scales (or mins) of the groups of a panel as floats.
inline void unpack_scales(const Matrix& w, const void* plane, const Panel& panel, float* to) {
  int64_t at = panel.tile * w.scale_tile_stride + panel.begin / w.group * kTileRows;
  for (int64_t k = panel.begin; k < panel.end; k = end_of(k, w.group, panel.end), at += kTileRows)
    for (int64_t r = 0; r < kRegs; ++r, to += kRegRows)
      store_rows(to, kRegRows, load_scale_reg(plane, w.scale_type, at + kRegRows * r));
}

inline void unpack(const Matrix& w, Panel& panel) {
  unpack_scales(w, w.scales, panel, panel.scales);
  if (w.mins != nullptr) unpack_scales(w, w.mins, panel, panel.mins);
  if (w.element == Element::kTernary) return unpack_trits(w, panel);
  with_format(w, [&](const auto& format) { unpack_planes(format, w, panel); });
}

// A piece of the inputs of a panel: how long it is, and whether it is the last of its group.
struct Cut {
  int64_t steps;
  bool ends;
};

// Where the next piece begins.
struct Place {
  const Cut* cut;
  const uint8_t* codes;
  const int8_t* quads;
  const int32_t* start;
  const float* scale;
};

// The pieces of one group: kRegRows * kRows rows times kTokens tokens, scaled and added to `row`, [token][register].
//
// The int32 sums live in registers, the float sums in the L1 cache. A function of its own, for GCC to have all
// registers for it.
template <int kRows, int kTokens>
__attribute__((noinline)) void multiply_group(Place& place, const Panel& panel, const Inputs& x, const float* scales,
                                              FloatReg (&row)[kTokens * kRows]) {
  FloatReg group[kTokens * kRows];
  each<kTokens * kRows>([&](auto n) __attribute__((always_inline)) { group[n.value] = zero(); });
  Place at = place;
  bool ends = false;
  do {
    asm("" : "+m"(group));  // in memory, as far as the compiler knows
    IntReg sum[kTokens * kRows];
    const int64_t steps = at.cut->steps;
    Block::template sums<kRows, kTokens>(at.codes, at.quads, x.stride, steps, panel.hold, at.start, sum);
    each<kTokens>([&](auto t) __attribute__((always_inline)) {
      const FloatReg scale = all_rows(at.scale[t.value]);
      each<kRows>([&](auto r) __attribute__((always_inline)) {
        constexpr int n = t.value * kRows + r.value;
        group[n] = fma(group[n], to_float(sum[n]), scale);
      });
    });
    ends = at.cut->ends;
    at.cut += 1;
    at.codes += steps * panel.step_bytes;
    at.quads += steps * Block::step_bytes(x.stride);
    at.start += x.pieces.stride;
    at.scale += x.pieces.stride;
  } while (!ends);
  place = at;
  each<kTokens>([&](auto t) __attribute__((always_inline)) {
    each<kRows>([&](auto r) __attribute__((always_inline)) {
      constexpr int n = t.value * kRows + r.value;
      row[n] = fma(row[n], load_rows(scales + kRegRows * r.value, kRegRows), group[n]);
    });
  });
}

// Registers [reg, reg + kRows) of one panel times tokens [t, t + kTokens) of the block that begins with token `first`,
// of which there are `width`.
template <int kRows, int kTokens>
void multiply(const Matrix& w, const Cut* cuts, const Panel& panel, const Inputs& x, int64_t reg, int64_t first,
              int64_t t, int64_t width, float* y, int64_t y_stride) {
  const int64_t top = panel.tile * kTileRows + kRegRows * reg;
  const int64_t tokens = smaller(width - t, kTokens);
  float* out = y + (first + t) * y_stride + top;
  FloatReg row[kTokens * kRows];
  for (int64_t i = 0; i < kTokens; ++i) {
    for (int64_t r = 0; r < kRows; ++r) {
      const int64_t on = kRegRows * r;
      const bool there = panel.begin > 0 && i < tokens && w.rows > top + on;
      row[i * kRows + r] = there ? load_rows(out + i * y_stride + on, w.rows - top - on) : zero();
    }
  }
  Place place = {cuts, panel.codes + Block::kRegBytes * reg, x.quads + Block::kTokenBytes * t, x.pieces.start + t,
                 x.pieces.scale + t};
  const float* offsets = x.pieces.group_sums + t;
  int64_t at = kRegRows * reg;
  for (int64_t k = panel.begin; k < panel.end; k = end_of(k, w.group, panel.end)) {
    multiply_group<kRows, kTokens>(place, panel, x, panel.scales + at, row);
    if (w.mins != nullptr) {
      for (int64_t r = 0; r < kRows; ++r) {
        const FloatReg mins = load_rows(panel.mins + at + kRegRows * r, kRegRows);
        for (int64_t i = 0; i < kTokens; ++i) row[i * kRows + r] = fma(row[i * kRows + r], mins, offsets[i]);
      }
    }
    offsets += x.pieces.stride;
    at += kTileRows;
  }
  const float factor = panel.end == w.cols ? w.factor : 1.0F;
  for (int64_t i = 0; i < tokens; ++i)
    for (int64_t r = 0; r < kRows; ++r)
      if (const int64_t on = kRegRows * r; w.rows > top + on)
        store_rows(out + i * y_stride + on, w.rows - top - on, times(row[i * kRows + r], factor));
}

// All rows of a panel times the block of tokens, in the largest register blocks that are not larger than needed.
template <int kSize = 0>
SCRIMP_INLINE int64_t multiply_some(const Matrix& w, const Cut* cuts, const Panel& panel, const Inputs& x,
                                    int64_t first, int64_t t, int64_t width, float* y, int64_t y_stride) {
  constexpr int kTokens = Block::kSizes[kSize];
  constexpr int kLast = static_cast<int>(sizeof(Block::kSizes) / sizeof(Block::kSizes[0])) - 1;
  if constexpr (kSize < kLast)
    if (width - t > kTokens) return multiply_some<kSize + 1>(w, cuts, panel, x, first, t, width, y, y_stride);
  constexpr int kRows = Block::rows_of(kTokens);
  for (int64_t reg = 0; reg < kRegs; reg += kRows)
    multiply<kRows, kTokens>(w, cuts, panel, x, reg, first, t, width, y, y_stride);
  return kTokens;
}

inline void multiply_block(const Matrix& w, const Cut* cuts, const Panel& panel, const Inputs& x, int64_t first,
                           int64_t width, float* y, int64_t y_stride) {
  for (int64_t t = 0; t < width;) t += multiply_some(w, cuts, panel, x, first, t, width, y, y_stride);
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
  Inputs inputs[kMostBlocks];
  Cut cuts[kMostPieces];
  alignas(kVectorBytes) float scales[kMostPieces * kTileRows], mins[kMostPieces * kTileRows];
  for (int64_t begin = 0; begin < w.cols; begin += kChunkCols) {
    const int64_t end = smaller(begin + kChunkCols, w.cols);
    Cut* cut = cuts;
    each_piece(w, segment_inputs(w, x), begin, end, [&](int64_t k, int64_t piece_end, bool ends) {
      *cut++ = {(piece_end - k + kStepCols - 1) / kStepCols, ends};
    });
    for (int64_t some = 0; some < x.tokens; some += kMostBlocks * kTokenBlock) {
      const int64_t blocks = smaller((x.tokens - some + kTokenBlock - 1) / kTokenBlock, kMostBlocks);
      for (int64_t b = 0; b < blocks; ++b)
        inputs[b] = inputs_of(w, x, begin, end, some + b * kTokenBlock, scratch + kPanelBytes + b * kBlockBytes);
      for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
        Panel panel = {tile, begin, end, scratch, scales, mins};
        unpack(w, panel);
        for (int64_t b = 0; b < blocks; ++b) {
          const int64_t first = some + b * kTokenBlock;
          multiply_block(w, cuts, panel, inputs[b], first, smaller(x.tokens - first, kTokenBlock), y, y_stride);
        }
      }
    }
  }
}
