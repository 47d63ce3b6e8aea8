// Many tokens times a matrix of integer codes: the kernel that reads prompts. It is bound by vpmaddubsw.
#include "kernels/avx2/linear_int8.h"

namespace scrimp::avx2 {
namespace {

constexpr int kMostParts = 2;
constexpr int kMostTokens = 4;                           // per register block: 4 tokens x 2 halves of 16-bit sums
constexpr int64_t kQuadRow = kStepQuads * kVectorBytes;  // bytes of one part of one step
constexpr int64_t kPanelBytes = (kPanelCols / kStepCols + 1) * kMostParts * kQuadRow;
constexpr int64_t kMostPieces = 2 * (kPanelCols / 32 + 2);
constexpr int64_t kArrayWords = kMostPieces * kTokenBlock;
static_assert(kPanelBytes + 3 * 4 * kArrayWords <= static_cast<int64_t>(kScratchBytes));

// 16 rows and inputs [begin, end): codes [steps][parts][8 quads][16 rows][4].
struct Panel {
  int64_t tile, begin, end;
  int parts;
  __m256i weight[kMostParts];
  uint8_t* codes;
};

void unpack_trits(const Matrix& w, Panel& panel) {
  const uint8_t* from = w.plane[0] + (panel.tile * w.vectors[0] + panel.begin / 20) * kVectorBytes;
  uint8_t* to = panel.codes;
  for (int64_t k = panel.begin; k < panel.end; k += 20) {
    trits(from, [&](auto q, const Vector& codes)
                    __attribute__((always_inline)) { store(to + q.value * kVectorBytes, codes); });
    from += kVectorBytes;
    to += 5 * kVectorBytes;
  }
  // Up to the end of the step. The activations there are zero; the codes only have to be below 16.
  const int64_t steps = (panel.end - panel.begin + kStepCols - 1) / kStepCols;
  for (; to < panel.codes + steps * kQuadRow; to += kVectorBytes) store(to, Vector{});
  panel.parts = 1;
  panel.weight[0] = _mm256_set1_epi16(1);
}

template <class Format>
void unpack_planes(const Format& format, const Matrix& w, Panel& panel) {
  uint8_t* to = panel.codes;
  const auto step = [&](const uint8_t* const planes[2]) __attribute__((always_inline)) {
    format.step(planes, [&](auto part, auto q, const Vector& codes) __attribute__((always_inline)) {
      store(to + part.value * kQuadRow + q.value * kVectorBytes, codes);
    });
    to += Format::parts * kQuadRow;
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
  panel.parts = Format::parts;
  for (int part = 0; part < Format::parts; ++part) panel.weight[part] = Format::weight(part);
}

void unpack(const Matrix& w, Panel& panel) {
  if (w.element == Element::kTernary) return unpack_trits(w, panel);
  with_format(w, [&](const auto& format) { unpack_planes(format, w, panel); });
}

// One panel times tokens [t, t + kTokens) of the block that begins with token `first`.
//
// The 16-bit sums of a step live in registers, the int32 sums of a piece and the float sums of a group and of the row
// in the L1 cache.
template <int kTokens, bool kMins>
void multiply(const Matrix& w, const Activations& x, const Panel& panel, const Pieces& pieces, int64_t first, int64_t t,
              float* y, int64_t y_stride) {
  const int64_t width = smaller(x.tokens - first, kTokenBlock);
  const int64_t rows = w.rows - panel.tile * kTileRows;
  const int64_t segment = segment_inputs(w, x);
  const auto all = [](auto f) __attribute__((always_inline)) { each<kTokens>(f); };
  float* out = y + (first + t) * y_stride + panel.tile * kTileRows;
  Floats row[kTokens];
  Floats group[kTokens];
  Vector sum[kTokens];
  all([&](auto i) __attribute__((always_inline)) {
    row[i.value] = panel.begin == 0 ? zeros() : load_rows(out + i.value * y_stride, rows);
  });

  const uint8_t* codes = panel.codes;
  const int8_t* quads = x.quads + first * x.cols_padded + panel.begin * width + 4 * t;
  const int32_t* start = pieces.start + t;
  const float* scale = pieces.scale + t;
  const float* offsets = pieces.group_sums + t;
  for (int64_t k = panel.begin; k < panel.end;) {
    const int64_t g = k / w.group;
    const int64_t group_begin = g * w.group;
    const int64_t group_end = end_of(k, w.group, panel.end);
    all([&](auto i) __attribute__((always_inline)) { group[i.value] = zeros(); });
    while (k < group_end) {
      const int64_t end = smaller(group_begin + end_of(k - group_begin, segment, w.cols), group_end);
      all([&](auto i) __attribute__((always_inline)) {
        const __m256i value = _mm256_set1_epi32(start[i.value]);
        sum[i.value] = {{value, value}};
      });
      for (; k < end; k += kStepCols) {
        for (int part = 0; part < panel.parts; ++part) {
          Vector narrow[kTokens] = {};
          each<kStepQuads>([&](auto q) __attribute__((always_inline)) {
            const Vector u = load(codes + q.value * kVectorBytes);
            const int8_t* at = quads + q.value * 4 * width;
            all([&](auto i) __attribute__((always_inline)) { dot(narrow[i.value], u, broadcast(at + 4 * i.value)); });
          });
          all([&](auto i) __attribute__((always_inline)) { widen(sum[i.value], narrow[i.value], panel.weight[part]); });
          codes += kQuadRow;
        }
        quads += kStepCols * width;
      }
      all([&](auto i)
              __attribute__((always_inline)) { add_scaled(group[i.value], to_floats(sum[i.value]), scale[i.value]); });
      start += width;
      scale += width;
      k = end;
    }
    const int64_t at = panel.tile * w.scale_tile_stride + g * kTileRows;
    const Floats s = load_scales(w.scales, w.scale_type, at);
    all([&](auto i) __attribute__((always_inline)) { add_product(row[i.value], s, group[i.value]); });
    if constexpr (kMins) {
      const Floats m = load_scales(w.mins, w.scale_type, at);
      all([&](auto i) __attribute__((always_inline)) { add_scaled(row[i.value], m, offsets[i.value]); });
    }
    offsets += width;
  }
  const float factor = panel.end == w.cols ? w.factor : 1.0f;
  all([&](auto i)
          __attribute__((always_inline)) { store_rows(out + i.value * y_stride, rows, times(row[i.value], factor)); });
}

using Multiply = void (*)(const Matrix&, const Activations&, const Panel&, const Pieces&, int64_t, int64_t, float*,
                          int64_t);

template <bool kMins>
Multiply multiply_of(int64_t tokens) {
  switch (tokens) {
    case 1:
      return multiply<1, kMins>;
    case 2:
      return multiply<2, kMins>;
    case 3:
      return multiply<3, kMins>;
    default:
      return multiply<kMostTokens, kMins>;
  }
}

}  // namespace

// y[t,n] = sum_g s[n,g] * sum_{a in g} sx[t,a] * (sum_{k in a} u[n,k]*x[t,k] - zero*sum_{k in a} x[t,k])   [+ mins]
//
// Shapes: w N x K in tiles of 16 rows; x in blocks of 12 tokens, 4 inputs of each token side by side; y [T][y_stride].
// Tiles outermost, then chunks of inputs, then tokens: a chunk is unpacked once into scratch (40 KiB, 80 for two parts)
// and read once per 4 tokens. A short call takes short chunks, which stay in the L1 cache.
// Exactness: as for one token: exact inner sums, one rounding per scale and per addition. A segment that a chunk cuts
// in two counts as two. Cost: vpmaddubsw and an addition per 32 products and part; per 8 of them vpmaddwd and an
// addition.
void linear_int8_prefill(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                         int64_t y_stride, uint8_t* scratch) {
  constexpr int64_t kShortPanelCols = 1280;  // a multiple of 20 and of 256, too
  const int64_t panel_cols = x.tokens > kTokenBlock ? kPanelCols : kShortPanelCols;
  float* words = reinterpret_cast<float*>(scratch + kPanelBytes);
  const Pieces pieces = {reinterpret_cast<int32_t*>(words), words + kArrayWords, words + 2 * kArrayWords};
  const auto multiply_for = w.mins == nullptr ? multiply_of<false> : multiply_of<true>;
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    for (int64_t begin = 0; begin < w.cols; begin += panel_cols) {
      Panel panel = {tile, begin, smaller(begin + panel_cols, w.cols), 0, {}, scratch};
      unpack(w, panel);
      for (int64_t first = 0; first < x.tokens; first += kTokenBlock) {
        describe_pieces(w, x, panel.begin, panel.end, first, pieces);
        const int64_t width = smaller(x.tokens - first, kTokenBlock);
        for (int64_t t = 0; t < width; t += kMostTokens) {
          multiply_for(smaller(width - t, kMostTokens))(w, x, panel, pieces, first, t, y, y_stride);
        }
      }
    }
  }
}

}  // namespace scrimp::avx2
