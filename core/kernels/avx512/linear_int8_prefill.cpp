// Many tokens times a matrix of integer codes: the kernel that reads prompts. It is bound by vpdpbusd.
#include "kernels/avx512/panel.h"

namespace scrimp::avx512 {
namespace {

// f(Index<token>, Index<tile>, Index<token * kTiles + tile>)
template <int kTiles, int kWidth, class F>
SCRIMP_INLINE void each_sum(F f) {
  each<kWidth>([&](auto t) __attribute__((always_inline)) {
    each<kTiles>([&](auto i) __attribute__((always_inline)) { f(t, i, Index<t.value * kTiles + i.value>{}); });
  });
}

// What a register block works through: the pieces of a panel for some tokens of a block of `width` tokens.
struct Work {
  const uint8_t* codes;
  const int8_t* quads;  // of the first of these tokens
  int64_t width;
  const Panel* panel;
  const int32_t* start;  // [pieces][width]: what a sum begins with; with mins it begins with 0
  const float* scale;    // [pieces][width], or [width]: see scale_step
  int64_t scale_step;    // width or 0
  const float* offset;   // with mins: [groups][width] scaled sums of the activations
  __m512* rows;          // [tokens][tiles]: the float sums
};

// Two operations in this order, and each broadcast from memory: GCC converts all sums first, in an order of its own,
// and copies one broadcast to the sums of both tiles. On Zen 4 the loop then runs at 78 % of vpdpbusd instead of 83 %.
SCRIMP_INLINE void add_scaled(__m512& to, __m512i sum, const float* scale) {
  __m512 total = to;
  asm("vcvtdq2ps %1, %1\n\tvfmadd231ps %2%{1to16%}, %1, %0" : "+v"(total), "+v"(sum) : "m"(*scale));
  to = total;
}

SCRIMP_INLINE __m512i broadcast(const int32_t* p) {
  __m512i all;
  asm volatile("vpbroadcastd %1, %0" : "=v"(all) : "m"(*p));
  return all;
}

// One piece: `count` (at least 1) quads of kTiles x 16 rows times kWidth tokens into int32 sums.
// Each broadcast activation feeds kTiles dot products.
template <int kTiles, int kWidth, bool kMins, bool kEights>
SCRIMP_INLINE void sum_piece(__m512i (&sum)[kTiles * kWidth], const uint8_t*& codes, const int8_t*& quads, int64_t step,
                             int64_t count, const int32_t* start) {
  each_sum<kTiles, kWidth>([&](auto t, auto, auto n) __attribute__((always_inline)) {
    sum[n.value] = kMins ? _mm512_setzero_si512() : broadcast(start + t.value);
  });
  const auto quad = [&]() __attribute__((always_inline)) {
    __m512i u[kTiles];
    each<kTiles>([&](auto i) __attribute__((always_inline)) { u[i.value] = load(codes, i.value); });
    each<kWidth>([&](auto t) __attribute__((always_inline)) {
      if constexpr (kTiles == 2)
        dot(sum[2 * t.value], sum[2 * t.value + 1], u[0], u[1], quads + 4 * t.value);
      else
        dot(sum[t.value], u[0], quads + 4 * t.value);
    });
    codes += kTiles * kVectorBytes;
    quads += step;
    asm("" : "+r"(quads));  // one pointer: GCC would keep eight of them, and those of the scales on the stack
  };
  if constexpr (kEights) {
    each<8>([&](auto) __attribute__((always_inline)) { quad(); });
  } else {
    do quad();
    while (--count > 0);
  }
}

// A register block where every piece is a group: int32 sums and the rows' float sums stay in registers.
template <int kTiles, int kWidth, bool kMins, bool kEights>
__attribute__((noinline)) void multiply_groups(const Work& work) {
  __m512 row[kTiles * kWidth];
  each<kTiles * kWidth>([&](auto n) __attribute__((always_inline)) { row[n.value] = work.rows[n.value]; });
  const uint8_t* codes = work.codes;
  const int8_t* quads = work.quads;
  const int32_t* start = work.start;
  const float* scale = work.scale;
  const float* offset = work.offset;
  const float* row_scale = work.panel->scales;
  const float* row_min = work.panel->mins;
  const int64_t width = work.width;
  const int32_t* counts = work.panel->quads;
  for (const int32_t* const end = counts + work.panel->pieces; counts < end; ++counts) {
    __m512i sum[kTiles * kWidth];
    sum_piece<kTiles, kWidth, kMins, kEights>(sum, codes, quads, 4 * width, *counts, start);
    each_sum<kTiles, kWidth>([&](auto t, auto i, auto n) __attribute__((always_inline)) {
      const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[n.value]), _mm512_set1_ps(scale[t.value]));
      row[n.value] = _mm512_fmadd_ps(_mm512_load_ps(row_scale + i.value * kTileRows), scaled, row[n.value]);
      if constexpr (kMins) {
        row[n.value] = _mm512_fmadd_ps(_mm512_load_ps(row_min + i.value * kTileRows), _mm512_set1_ps(offset[t.value]),
                                       row[n.value]);
      }
    });
    if constexpr (!kMins) start += width;
    scale += work.scale_step;
    row_scale += kTiles * kTileRows;
    if constexpr (kMins) {
      offset += width;
      row_min += kTiles * kTileRows;
    }
  }
  each<kTiles * kWidth>([&](auto n) __attribute__((always_inline)) { work.rows[n.value] = row[n.value]; });
}

// A register block where groups have several pieces: the float sums of a group stay in registers.
template <int kTiles, int kWidth, bool kMins, bool kEights>
__attribute__((noinline)) void multiply_pieces(const Work& work) {
  __m512 group[kTiles * kWidth];
  const auto clear = [&]() __attribute__((always_inline)) {
    each<kTiles * kWidth>([&](auto n) __attribute__((always_inline)) { group[n.value] = _mm512_setzero_ps(); });
  };
  clear();
  const uint8_t* codes = work.codes;
  const int8_t* quads = work.quads;
  const int32_t* start = work.start;
  const float* scale = work.scale;
  const float* offset = work.offset;
  const float* row_scale = work.panel->scales;
  const float* row_min = work.panel->mins;
  const int64_t width = work.width;
  const int64_t scale_step = work.scale_step;
  __m512* const rows = work.rows;
  const int32_t* counts = work.panel->quads;
  for (const int32_t* const end = counts + work.panel->pieces; counts < end; ++counts) {
    __m512i sum[kTiles * kWidth];
    const int32_t count = *counts;  // negative at the end of a group
    sum_piece<kTiles, kWidth, kMins, kEights>(sum, codes, quads, 4 * width, count < 0 ? -count : count, start);
    each_sum<kTiles, kWidth>([&](auto t, auto, auto n) __attribute__((always_inline)) {
      add_scaled(group[n.value], sum[n.value], scale + t.value);
    });
    if constexpr (!kMins) start += width;
    scale += scale_step;
    if (count > 0) continue;
    each_sum<kTiles, kWidth>([&](auto t, auto i, auto n) __attribute__((always_inline)) {
      __m512 row = rows[n.value];
      row = _mm512_fmadd_ps(_mm512_load_ps(row_scale + i.value * kTileRows), group[n.value], row);
      if constexpr (kMins) {
        row = _mm512_fmadd_ps(_mm512_load_ps(row_min + i.value * kTileRows), _mm512_set1_ps(offset[t.value]), row);
      }
      rows[n.value] = row;
    });
    clear();
    row_scale += kTiles * kTileRows;
    if constexpr (kMins) {
      offset += width;
      row_min += kTiles * kTileRows;
    }
  }
}

template <int kTiles, bool kMins, int kWidth = kBlockTokens>
SCRIMP_INLINE void multiply_width(const Work& work, int64_t tokens) {
  if constexpr (kWidth > 1) {
    if (tokens < kWidth) return multiply_width<kTiles, kMins, kWidth - 1>(work, tokens);
  }
  if (work.panel->one_piece_groups) {
    if (work.panel->eights) return multiply_groups<kTiles, kWidth, kMins, true>(work);
    return multiply_groups<kTiles, kWidth, kMins, false>(work);
  }
  if (work.panel->eights) return multiply_pieces<kTiles, kWidth, kMins, true>(work);
  multiply_pieces<kTiles, kWidth, kMins, false>(work);
}

SCRIMP_INLINE void prefetch_to_write(const float* p) { asm volatile("prefetchw %0" : : "m"(*p)); }

// One panel of kTiles x 16 rows times the `width` tokens of the block that begins with token `first`.
template <int kTiles, bool kMins>
void multiply(const Matrix& w, const Activations& x, const Panel& panel, const Pieces& pieces, int64_t first,
              int64_t width, const int32_t* known, float* y, int64_t y_stride) {
  __m512 rows[kTokenBlock * kTiles];
  const auto at = [&](int64_t t, int i) { return y + (first + t) * y_stride + (panel.tile + i) * kTileRows; };
  for (int64_t t = 0; t < width; ++t) {
    for (int i = 0; i < kTiles; ++i) {
      if (panel.begin == 0) {
        prefetch_to_write(at(t, i));  // they are written when the products are done
        rows[t * kTiles + i] = _mm512_setzero_ps();
      } else {
        rows[t * kTiles + i] = _mm512_maskz_loadu_ps(rows_of(w, panel.tile + i), at(t, i));
      }
    }
  }
  const float* scale = x.scales + first * x.blocks + (pieces.per_block ? panel.first_piece * width : 0);
  const int64_t scale_step = pieces.per_block ? width : 0;
  const int8_t* quads = x.quads + first * x.cols_padded + panel.begin * width;
  for (int64_t t = 0; t < width; t += kBlockTokens) {
    const Work work = {panel.codes,      quads + 4 * t, width,      &panel,
                       known + t,        scale + t,     scale_step, reinterpret_cast<const float*>(known) + t,
                       rows + t * kTiles};
    multiply_width<kTiles, kMins>(work, smaller(width - t, kBlockTokens));
  }
  const __m512 factor = _mm512_set1_ps(panel.end == w.cols ? w.factor : 1.0f);
  for (int i = 0; i < kTiles; ++i) {
    const __mmask16 there = rows_of(w, panel.tile + i);
    for (int64_t t = 0; t < width; ++t) {
      const __m512 row = _mm512_mul_ps(rows[t * kTiles + i], factor);
      if (there == 0xFFFF)
        _mm512_storeu_ps(at(t, i), row);
      else
        _mm512_mask_storeu_ps(at(t, i), there, row);
    }
  }
}

// What every block of tokens needs of a panel: its codes, its pieces, its scales as floats.
void prepare(const Matrix& w, const Pieces& pieces, Panel& panel) {
  unpack(w, panel, panel.codes);
  panel.pieces = 0;
  panel.eights = true;
  panel.groups = 0;
  each_piece(w, pieces.segment, panel.begin, panel.end, [&](int64_t k, int64_t end, int64_t g, bool ends) {
    const auto count = static_cast<int32_t>((end - k + 3) / 4);
    panel.eights = panel.eights && count == 8;
    panel.quads[panel.pieces++] = ends ? -count : count;
    if (!ends) return;
    for (int i = 0; i < panel.tiles; ++i) {
      const int64_t from = (panel.tile + i) * w.scale_tile_stride + g * kTileRows;
      const int64_t to = (panel.groups * panel.tiles + i) * kTileRows;
      _mm512_store_ps(panel.scales + to, load_scales(w.scales, w.scale_type, from));
      if (w.mins != nullptr) _mm512_store_ps(panel.mins + to, load_scales(w.mins, w.scale_type, from));
    }
    ++panel.groups;
  });
  panel.one_piece_groups = panel.groups == panel.pieces;
  if (!panel.one_piece_groups) return;
  for (int64_t p = 0; p < panel.pieces; ++p) panel.quads[p] = -panel.quads[p];
}

// What the next tiles are stored in, asked for while the products of these are made: it comes from far away, in streams
// too short for the hardware to run ahead, and unpacking would wait for every one. Asking past the end is harmless.
class Ahead {
 public:
  // From tile `tile` on, in `steps` equal parts.
  Ahead(const Matrix& w, int64_t tile, int64_t steps) {
    for (int p = 0; p < 2; ++p) {
      if (w.plane[p] != nullptr) add(w.plane[p], tile, w.vectors[p] * kVectorBytes, steps);
    }
    const int64_t number = scale_bytes(w.scale_type);
    const void* const numbers[2] = {w.scales, w.mins};
    for (const void* from : numbers) {
      if (from != nullptr) add(static_cast<const uint8_t*>(from), tile, w.scale_tile_stride * number, steps);
    }
  }

  void step() {
    for (int i = 0; i < count_; ++i) {
      Stream& s = streams_[i];
      for (int64_t n = 0; n < s.lines && s.at < s.end; ++n, s.at += kLine) {
        _mm_prefetch(reinterpret_cast<const char*>(s.at), _MM_HINT_T1);
      }
    }
  }

 private:
  static constexpr int64_t kLine = 64;
  struct Stream {
    const uint8_t *at, *end;
    int64_t lines;
  };

  void add(const uint8_t* from, int64_t tile, int64_t tile_bytes, int64_t steps) {
    const int64_t bytes = kMostTiles * tile_bytes;
    from += tile * tile_bytes;
    streams_[count_++] = {from, from + bytes, (bytes + steps * kLine - 1) / (steps * kLine)};
  }

  Stream streams_[4];
  int count_ = 0;
};

// Tokens [first, end) times all panels.
void multiply_tokens(const Matrix& w, const Activations& x, const Pieces& pieces, int64_t panel_cols, int64_t first,
                     int64_t tokens_end, int64_t tile_begin, int64_t tile_end, float* y, int64_t y_stride,
                     uint8_t* scratch) {
  Panel panel = {};
  panel.codes = scratch;
  panel.scales = reinterpret_cast<float*>(scratch + kCodeBytes);
  panel.mins = panel.scales + kMostPieces * kMostTiles * kTileRows;
  const int64_t panels = (w.cols + panel_cols - 1) / panel_cols;
  const int64_t blocks = (tokens_end - first + kTokenBlock - 1) / kTokenBlock;
  for (panel.tile = tile_begin; panel.tile < tile_end; panel.tile += kMostTiles) {
    Ahead ahead(w, panel.tile + kMostTiles, panels * blocks);
    panel.tiles = tile_end - panel.tile >= kMostTiles ? kMostTiles : 1;
    panel.first_piece = panel.first_known = 0;
    for (panel.begin = 0; panel.begin < w.cols; panel.begin = panel.end) {
      panel.end = smaller(panel.begin + panel_cols, w.cols);
      prepare(w, pieces, panel);
      const auto run = w.mins == nullptr ? (panel.tiles == 2 ? multiply<2, false> : multiply<1, false>)
                                         : (panel.tiles == 2 ? multiply<2, true> : multiply<1, true>);
      for (int64_t t = first; t < tokens_end; t += kTokenBlock) {
        const int64_t width = smaller(tokens_end - t, kTokenBlock);
        const int32_t* known = pieces.known + (t - first) * pieces.count + panel.first_known * width;
        ahead.step();
        run(w, x, panel, pieces, t, width, known, y, y_stride);
      }
      panel.first_piece += panel.pieces;
      panel.first_known += w.mins == nullptr ? panel.pieces : panel.groups;
    }
  }
}

}  // namespace

// y[t,n] = sum_g s[n,g] * sum_{a in g} sx[t,a] * (sum_{k in a} u[n,k]*x[t,k] - zero*sum_{k in a} x[t,k])   [+ mins]
//
// Shapes: w N x K in tiles of 16 rows; x in blocks of 12 tokens, 4 inputs of each token side by side; y [T][y_stride].
// Panels of 32 rows and up to 2560 inputs: each is unpacked once into scratch, stays in the L2 cache, and is read twice
// per block of 12 tokens: 128 bytes for 12 dot products, which that cache gives without waiting. Shorter panels, in L1,
// begin and end more often: 512 inputs took 4 points of vpdpbusd. Half a block is a register block: 12 int32 and 12
// float sums. Twice as many int32 sums, with the float sums in memory, are slower as soon as a segment is 64 inputs or
// less: on Zen 4 the stores fill their queue.
// Scratch: the panel, and what is known of the activations, a word per token and piece: cols <= 2^18 always fits.
// Exactness: as for one token: exact int32 inner sums, one rounding per scale and per addition. A segment that a chunk
// cuts in two counts as two. Cost: one vpdpbusd per 64 products; per segment and 16 outputs a convert and one or two
// multiply-adds (A = 32: 1 per 8).
void linear_int8_prefill(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                         int64_t y_stride, uint8_t* scratch) {
  int32_t* known = reinterpret_cast<int32_t*>(scratch + kPanelBytes);
  Pieces pieces = {segment_inputs(w, x), 0, known, x.block < w.cols};
  const int64_t panel_cols = panel_inputs(w, x);
  each_panel_piece(w, pieces.segment, panel_cols,
                   [&](int64_t, int64_t, int64_t, bool ends) { pieces.count += w.mins == nullptr || ends; });
  // As many tokens at a time as there is room for what is known of them.
  const int64_t room = kKnownWords / pieces.count / kTokenBlock * kTokenBlock;
  // Of the weights it depends on no more than this.
  const int64_t knows = smaller(w.group, w.cols) << 32 | static_cast<int64_t>(w.zero) << 3 |
                        (w.element == Element::kTernary) << 2 | (w.mins != nullptr) << 1 | 1;
  for (int64_t first = 0; first < x.tokens; first += room) {
    const int64_t end = smaller(first + room, x.tokens);
    if (x.kept == nullptr || *x.kept != knows) find_known(w, x, pieces, panel_cols, first, end, known);
    if (x.kept != nullptr) *x.kept = x.tokens <= room ? knows : 0;
    multiply_tokens(w, x, pieces, panel_cols, first, end, tile_begin, tile_end, y, y_stride, scratch);
  }
}

}  // namespace scrimp::avx512
