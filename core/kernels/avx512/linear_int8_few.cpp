// A few tokens times a matrix of integer codes: the kernel of sequences that generate text together.
#include "kernels/avx512/linear_int8_decode.h"

namespace scrimp::avx512 {
namespace {

// What is the same for every row, of a few tokens side by side: a segment is a block of activations, of one step.
struct Tokens {
  int64_t count;
  const int8_t* quads;      // [cols / 4][count][4]
  const int32_t* start;     // [blocks][count], as in Token
  const float* scale;       // [blocks][count]
  const float* group_sums;  // [groups][count]
};

// Block `number` of the activations. Scratch: a word per token and block of inputs, and one per token and group.
Tokens describe_few(const Matrix& w, const Activations& x, int64_t number, uint8_t* scratch) {
  const int64_t before = number * kTokenBlock;
  const int64_t count = smaller(x.tokens - before, kTokenBlock);
  const int32_t* sums = x.sums + before * x.blocks;
  const float* scales = x.scales + before * x.blocks;
  int32_t* start = reinterpret_cast<int32_t*>(scratch) + number * kTokenBlock * (x.blocks + w.groups);
  float* group_sums = reinterpret_cast<float*>(start + x.blocks * count);
  const int32_t zero = w.mins == nullptr ? w.zero : 0;
  for (int64_t i = 0; i < x.blocks * count; ++i) start[i] = -zero * sums[i];
  const int64_t blocks = smaller(w.group, w.cols) / kStep;
  for (int64_t g = 0; w.mins != nullptr && g < w.groups; ++g) {
    const int64_t end = smaller((g + 1) * blocks, x.blocks);
    for (int64_t t = 0; t < count; ++t) {
      float sum = 0.0f;
      for (int64_t i = g * blocks; i < end; ++i) {
        sum = __builtin_fmaf(scales[i * count + t], static_cast<float>(sums[i * count + t]), sum);
      }
      group_sums[g * count + t] = sum;
    }
  }
  return {count, x.quads + before * x.cols_padded, start, scales, group_sums};
}

// One tile times tokens [first, first + kTokens): every vector of codes is unpacked once for them.
template <class Codes, int kTokens, bool kMins>
SCRIMP_INLINE void tile_of_few(const Codes& codes, const Matrix& w, const Tokens& tokens, int64_t first, int64_t tile,
                               float* y, int64_t y_stride) {
  constexpr int kParts = static_cast<int>(smaller(Codes::kFields, 2));
  const uint8_t* plane0 = w.plane[0] + tile * w.vectors[0] * kVectorBytes;
  const uint8_t* plane1 = w.plane[1] + (Codes::kVectors[1] == 0 ? 0 : tile * w.vectors[1] * kVectorBytes);
  const int64_t quad_bytes = 4 * tokens.count;
  const int8_t* x = tokens.quads + 4 * first;
  const int32_t* start = tokens.start + first;
  const float* scale = tokens.scale + first;
  __m512 row[kTokens];
  each<kTokens>([&](auto t) __attribute__((always_inline)) { row[t.value] = _mm512_setzero_ps(); });
  for (int64_t g = 0; g < w.groups; ++g) {
    __m512 group[kTokens];
    each<kTokens>([&](auto t) __attribute__((always_inline)) { group[t.value] = _mm512_setzero_ps(); });
    for (int64_t left = smaller(w.cols - g * w.group, w.group); left > 0; left -= kStep) {
      Sum<kParts, 1, Codes::kFieldBits, Codes::kUp> sum[kTokens];
      each<kTokens>([&](auto t)
                        __attribute__((always_inline)) { sum[t.value].begin(_mm512_set1_epi32(start[t.value])); });
      prefetch<Codes, cache_of<Codes>(false)>(plane0, plane1);
      codes.template step<kParts>(plane0, plane1, [&](auto q, auto part, __m512i u) __attribute__((always_inline)) {
        const int8_t* quad = x + q.value * quad_bytes;
        each<kTokens>([&](auto t) __attribute__((always_inline)) {
          sum[t.value].template add<part.value, 0>(u, quad + 4 * t.value);
        });
      });
      each<kTokens>([&](auto t) __attribute__((always_inline)) {
        const __m512 factor = _mm512_set1_ps(scale[t.value]);
        group[t.value] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t.value].total()), factor, group[t.value]);
      });
      plane0 += Codes::kVectors[0] * kVectorBytes;
      plane1 += Codes::kVectors[1] * kVectorBytes;
      x += 8 * quad_bytes;
      start += tokens.count;
      scale += tokens.count;
    }
    const int64_t at = tile * w.scale_tile_stride + g * kTileRows;
    const __m512 scales = load_scales(w.scales, w.scale_type, at);
    each<kTokens>([&](auto t) __attribute__((always_inline)) {
      row[t.value] = _mm512_fmadd_ps(scales, group[t.value], row[t.value]);
    });
    if constexpr (kMins) {
      const __m512 mins = load_scales(w.mins, w.scale_type, at);
      const float* sums = tokens.group_sums + g * tokens.count + first;
      each<kTokens>([&](auto t) __attribute__((always_inline)) {
        row[t.value] = _mm512_fmadd_ps(mins, _mm512_set1_ps(sums[t.value]), row[t.value]);
      });
    }
  }
  const __m512 factor = _mm512_set1_ps(w.factor);
  each<kTokens>([&](auto t) __attribute__((always_inline)) {
    _mm512_mask_storeu_ps(y + (first + t.value) * y_stride + tile * kTileRows, rows_of(w, tile),
                          _mm512_mul_ps(row[t.value], factor));
  });
}

constexpr int kTogether = 6;  // tokens: what the registers hold

// Tokens [first, count) of a block, kTogether of them at a time, while the tile is in the L1 cache.
template <class Codes, bool kMins, int kWidth = kTogether>
void tile_of_block(const Codes& codes, const Matrix& w, const Tokens& tokens, int64_t first, int64_t tile, float* y,
                   int64_t y_stride) {
  for (; first + kWidth <= tokens.count; first += kWidth) {
    tile_of_few<Codes, kWidth, kMins>(codes, w, tokens, first, tile, y, y_stride);
  }
  if constexpr (kWidth > 1) {
    if (first < tokens.count) tile_of_block<Codes, kMins, kWidth - 1>(codes, w, tokens, first, tile, y, y_stride);
  }
}

}  // namespace

bool takes_few(const Matrix& w, const Activations& x) {
  const auto words = static_cast<size_t>(x.tokens * (x.blocks + w.groups));
  return x.tokens <= kFewTokens && words * sizeof(int32_t) <= kScratchBytes && w.element != Element::kTernary &&
         x.block == kStep && w.cols % kStep == 0 && x.block < w.cols && (w.group >= w.cols || w.group % kStep == 0);
}

// What linear_int8_decode gives for each token, bit for bit.
//
// Shapes: as linear_int8_prefill, x with a scale for each step of 32 inputs.
// Cost: a tile is read from memory once, and from the L1 cache and unpacked once per kTogether tokens; nothing that is
// unpacked is stored. Per quad (64 weights) what unpacks it and a dot with a broadcast from memory for each token.
// Unpacking into a panel, as many tokens do, costs as much as the products of a dozen: SmolLM2-135M, 4 bits, two
// threads of Zen 4, ms of all products with panels and without, 2 tokens 8.1 / 5.3, 4: 9.2 / 5.1, 8: 11.4 / 6.8,
// 16: 14.9 / 10.9.
void linear_int8_few(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                     int64_t y_stride, uint8_t* scratch) {
  Tokens blocks[(kFewTokens + kTokenBlock - 1) / kTokenBlock];
  const int64_t count = (x.tokens + kTokenBlock - 1) / kTokenBlock;
  for (int64_t b = 0; b < count; ++b) blocks[b] = describe_few(w, x, b, scratch);
  with_planes(w, [&](auto codes) {
    const auto run = w.mins == nullptr ? tile_of_block<decltype(codes), false> : tile_of_block<decltype(codes), true>;
    for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
      for (int64_t b = 0; b < count; ++b) run(codes, w, blocks[b], 0, tile, y + b * kTokenBlock * y_stride, y_stride);
    }
  });
}

}  // namespace scrimp::avx512
