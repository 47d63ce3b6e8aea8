// The kernel contract: plain structs at the boundary between the engine and the instruction-set folders.
//
// Everything under kernels/<isa>/ implements one `Kernels` table. Kernels do not allocate, do not throw, and see only
// sizes that were proven by the caller.
#pragma once

#include <cstddef>
#include <cstdint>

namespace scrimp {

constexpr int64_t kTileRows = 16;     // rows interleaved in one tile
constexpr int64_t kVectorBytes = 64;  // 16 rows x 4 bytes
constexpr int64_t kTokenBlock = 12;   // tokens interleaved in one block of activations
constexpr int64_t kPanelCols =
    2560;  // inputs decoded at a time by the many-token products (multiple of 20, 64 and 256)

constexpr int64_t kPagePositions = 64;  // of a sequence, whose keys and values lie together

// How the codes of a matrix are stored. `bits` in Matrix tells the width of kInt.
enum class Element : int32_t { kF32 = 0, kF16 = 1, kBf16 = 2, kInt = 3, kTernary = 4, kBinary = 5, kTable = 6 };

constexpr int32_t kMostTableBits = 4;
constexpr int32_t kTableZero = 128;  // the level that counts nothing

// How scales and mins are stored. kE8m0: a byte b for 2^(b - 127), 255 for NaN; never of mins.
enum class ScaleType : int32_t { kNone = 0, kF16 = 1, kF32 = 2, kBf16 = 3, kE8m0 = 4 };

// Bytes of one. Static, as all that is compiled for several instruction sets.
static constexpr int64_t scale_bytes(ScaleType type) {
  return type == ScaleType::kNone ? 0 : type == ScaleType::kF32 ? 4 : type == ScaleType::kE8m0 ? 1 : 2;
}

// How keys and values are cached. A row is the head_dim numbers of one head and position.
//   kF16, kF32: the numbers.
//   kInt8: head_dim codes, -127 .. 127.
//   kInt4: 16 bytes for each 32 numbers, the last ones padded. Byte j holds code j in its low and code 16 + j in its
//          high half, each 8 more than it means; -7 .. 7.
// A number is scale * code. Scales are float16, one for each `cache_block` numbers of a row, in a plane of their own.
// Rows lie in pages: position p of a sequence in page pages[p / kPagePositions] of a pool. Of the values of a head a
// page holds row after row, as [p % kPagePositions][number or byte of kInt4]. Of its keys it holds the transpose,
// [number or byte][p % kPagePositions]: a vector of positions is what their scores are computed in.
enum class CacheType : int32_t { kF16 = 0, kF32 = 1, kInt8 = 2, kInt4 = 3 };

// One stored weight matrix W (rows N, cols K): architecture section 4.
//
// plane[i]: `ceil(rows/16)` tiles, each `vectors[i]` vectors of 64 bytes, contiguous, 64-byte aligned.
//   p-bit plane: bits [p*i, p*i+p) of byte j of row r (byte 4r+j of the vector) = code of input k0 + 4i + j;
//                a vector covers span = 32/p inputs.
//   trits:       byte j of row r holds inputs k0 + 4i + j, i = 0..4, as  byte = t0 + 3*t1 + 9*t2 + 27*t3 + 81*t4
//   (0..242). f32: bytes 4r..4r+3 = the float of input k0.   f16/bf16: two of them, inputs k0 and k0+1.
// kInt of 3, 5, 6 bits: plane[0] holds the low 2, 4, 4 bits, plane[1] the high 1, 1, 2 bits. Others: plane[0] only.
// kTable has planes as kInt of as many bits.
// scales/mins: [tile][group][16]; element stride of one tile is `scale_tile_stride` (0: all tiles share one, format
// ":tensor").
//
//   value = scale * (step * code - zero)      mins == nullptr
//   value = scale * code + min                mins != nullptr
//   value = scale * numbers[code]             kTable, never with mins
// Integer products multiply with factor * (levels[code] - zero) in place of numbers[code]: the table in 8 bits.
struct Matrix {
  int64_t rows, cols;
  Element element;
  int32_t bits;             // of a code: 2..6, 8 for kInt; 2..4 for kTable; 2 for kTernary; 1 for kBinary; 32, 16 for
                            // floats
  const uint8_t* plane[2];  // plane[1] null unless bits is 3, 5, 6
  int64_t vectors[2];       // vectors per tile in each plane
  int32_t step, zero;       // see above; step is 1, for kBinary 2; zero is kTableZero for kTable
  ScaleType scale_type;
  const void* scales;         // null for floats without a scale
  const void* mins;           // null when symmetric
  int64_t group;              // inputs per scale; >= cols means one scale per row
  int64_t groups;             // ceil(cols / group)
  int64_t scale_tile_stride;  // in scale elements
  float factor = 1.0F;        // of all integer sums; 1 but for kTable
  float numbers[1 << kMostTableBits] = {};
  uint8_t levels[1 << kMostTableBits] = {};
};

// T tokens quantized to int8, ready to be broadcast four inputs at a time.
//
// Tokens are grouped in blocks of kTokenBlock; block b holds w = min(12, T - 12b) tokens. With Kp = cols_padded:
//   quads:  block b begins at byte 12*b*Kp; inside: [Kp/4][w][4] int8        (input 4*quad + byte)
//   scales: block b begins at element 12*b*blocks; inside: [blocks][w] float (scale of A consecutive inputs)
//   sums:   same layout as scales, int32: sum of the int8 values of the block
// x ~ scales * quads. Values beyond `cols` are zero up to Kp, so padding never contributes.
// For T == 1 this is a plain row of int8, then plain arrays of scales and sums.
struct Activations {
  int64_t tokens, cols;
  int64_t cols_padded;  // multiple of 64, at least cols + 64: kernels may read (zeros) past cols
  int64_t block;        // A: a power of two from 32 to 256 that divides the groups of all weights, or >= cols
  int64_t blocks;       // ceil(cols / A)
  int64_t scale_block;  // inputs whose largest gives the scale: a multiple of A, then several blocks have the same
  float fixed_scale;    // of all inputs, known beforehand; 0: every block has its own, found in its numbers
  int8_t* quads;
  float* scales;
  int32_t* sums;
  // What the scratch of the last product with these activations still holds, in a number of the kernel's own; 0:
  // nothing. Null where scratch does not last from one product to the next.
  int64_t* kept = nullptr;
};

// The functions of `activation`, numbered as ACTIVATIONS in program.py.
//   kSilu: x / (1 + exp(-x))   kGelu: x Phi(x), Phi the normal distribution   kRelu2: max(x, 0)^2
//   kGeluTanh: x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
enum class Curve : int32_t { kSilu = 0, kGelu = 1, kGeluTanh = 2, kRelu2 = 3 };

// The head geometry of one attention call, of tokens of one sequence; see `attention` below.
struct Attention {
  int64_t heads, kv_heads, head_dim;
  int64_t start;   // position of token 0 of this call; token t attends to positions 0 .. start + t
  int64_t window;  // where not 0, to the last `window` of these only
  bool causal;     // if not, all tokens attend to positions 0 .. start + tokens - 1; window is 0 then
  float softcap;   // where not 0, a score s becomes softcap * tanh(s / softcap)
  int64_t tokens;  // T
  float scale;     // usually 1/sqrt(head_dim)
  const float* q;  // [T][q_stride], head h at h*head_dim
  int64_t q_stride;
  CacheType cache;
  int64_t row_bytes;           // of one head and position
  int64_t row_scales;          // ceil(head_dim / cache_block), 0 for floats
  int32_t cache_block_log2;    // a power of two, at least 32
  const int32_t* pages;        // of the sequence, as many as the positions that are attended to need
  int64_t page_bytes;          // from one page of the pool to the next
  const uint8_t* keys;         // of page 0: a transpose of kPagePositions * row_bytes for each of the kv_heads
  const uint8_t* values;       // of page 0: [kv_heads][kPagePositions][row_bytes], and 64 bytes more that can be read
  const uint16_t* key_scales;  // of page 0: [kv_heads][row_scales][kPagePositions] f16
  const uint16_t* value_scales;
  float* out;  // [T][out_stride]
  int64_t out_stride;
};

// How weights divided by their scale become levels: what formats/rounding.py does, as a method of calibration needs it.
//
//   integers (bounds == nullptr)   number = clip(round-to-nearest-even(x), least, most), code = number - least
//   tables                         level = how many bounds are <= x; number and code of that level
// A table has `levels` levels, a power of two, and `levels - 1` ascending bounds; those of no use are NaN.
struct Rounding {
  float least, most;
  int64_t levels;
  const float* bounds;
  const float* numbers;
  const uint16_t* codes;
};

constexpr int64_t kPeakOps = 1024;

constexpr int64_t kGramTokens = 512;  // tokens whose products are summed in float32
constexpr int64_t kGramCols = 64;
constexpr int64_t kCholeskyCols = 64;  // columns of a factor that are made at a time
constexpr int64_t kCholeskyTile = 8;   // rows of them that lie side by side

// Rows of weights that are rounded together.
constexpr int64_t kStripRows = 32;

// The state of GPTQ's rounding: weights in strips of kStripRows rows, inputs in the order of work.
struct Sweep {
  Rounding rounding;
  int64_t inputs;         // K
  int64_t rows_padded;    // a multiple of kStripRows
  int64_t begin, end;     // the inputs to round; all before are done
  float* weights;         // [strips][K][kStripRows]; of inputs that are done w - value
  const float* feedback;  // [K][K]: what input k takes, at [k][j], of the miss of input j < k
  const int32_t* group;   // [K]: which scale an input has
  const float* scales;    // [groups][rows_padded]
  const float* divisors;  // same: the scales, infinity where they are zero
  const float* lows;      // same, or null
  uint16_t* codes;        // [strips][K][kStripRows]
};

// Inputs of a matrix that are rounded together by sweep_both, row by row.
constexpr int64_t kAbreast = 16;

// The state of rounding with feedback between inputs and between rows; both in their order of work.
struct SweepBoth {
  Rounding rounding;
  int64_t rows, inputs;   // N, K
  float* weights;         // [N][K]; become w - value
  const float* by_input;  // [K][K]: what input k takes, at [k][j], of the miss of input j < k
  const float* by_row;    // [N][N]: what row n takes, at [n][m], of row m < n
  const int32_t* group;   // [K]: which scale an input has
  const float* scales;    // [groups][N]
  const float* divisors;  // same: the scales, infinity where they are zero
  const float* lows;      // same, or null
  uint16_t* codes;        // [N][K]
  float* scratch;         // (K + 2 N) * kAbreast
};

// Outputs of an integer product that are summed together.
constexpr int64_t kIntegerChannels = 16;

// Sums of products of int8 numbers that lie as int16, two inputs side by side (K is even: zeros fill it up).
struct IntegerProduct {
  int64_t rows, pairs;    // points of pictures; K / 2
  const int16_t* inputs;  // [rows][pairs][2]
  const int16_t* weight;  // [blocks][pairs][16][2]
  int64_t blocks;         // of 16 outputs
  int32_t* sums;          // [rows][blocks][16]
};

// How sums become codes: an entry per channel, whose number is a multiple of 16.
struct Requantizer {
  const int32_t* multiplier;
  const int32_t* offset;
  int64_t channels;
  int32_t pre, shift, low, high;
};

// What an instruction set multiplies in bf16, where it does: all null where not.
struct Bf16Kernels {
  // Rounded to nearest even, two neighbours in each pair, the earlier in its low half. n is even.
  void (*round)(const float* x, int64_t n, uint32_t* pairs) = nullptr;
  // The product of kBf16 weights without scales and such activations, summed in float32; K is even. x row t at x +
  // t*x_stride. What is below the normal range of float32 may count as zero.
  void (*linear)(const Matrix& w, const uint32_t* x, int64_t x_stride, int64_t tokens, int64_t tile_begin,
                 int64_t tile_end, float* y, int64_t y_stride) = nullptr;
  int64_t (*peak)(int64_t rounds) = nullptr;  // as those of Kernels
};

struct Kernels {
  const char* isa;

  // What this instruction set can do at best, to hold kernels against; null where nobody measured.
  //   read      every byte once, a multiple of 512 of them, 64-byte aligned; returns what depends on them all
  //   int8_peak `rounds` times kPeakOps products of int8 numbers, summed in int32, all in registers
  //   f32_peak  the same of float32 multiply-adds
  uint64_t (*read)(const uint8_t* from, int64_t bytes);
  int64_t (*int8_peak)(int64_t rounds);
  int64_t (*f32_peak)(int64_t rounds);

  // Quantize token rows of x (row t at x + t*stride) of token blocks [block_begin, block_end) into `a`.
  //   scale = max|x| / 127 over each `scale_block` inputs, q = round-to-nearest-even(x / scale); all-zero block: scale
  //   0, q 0.
  // With a fixed scale q saturates at -127 and 127.
  void (*quantize)(const float* x, int64_t stride, int64_t block_begin, int64_t block_end, const Activations& a);

  // y[t*y_stride + n] = row n of W times token t, for rows of tiles [tile_begin, tile_end), any T >= 1,
  // kInt/kTernary/kBinary/kTable.
  //   y = sum_g s[n,g] * sum_{a in g} sx[a] * (sum_{k in a} (step*u[n,k] - zero) * x[k])           symmetric
  //   y = factor * the same, u[n,k] = levels[code]                                                 kTable
  //   y = sum_g s[n,g] * sum_{a in g} sx[a] * (sum_{k in a} u x)  +  m[n,g] * sum_{a in g} sx[a] * sum_{k in a} x with
  //   mins
  // Inner sums are exact in int32. Rows >= W.rows of the last tile are not written.
  // `scratch` has `scratch_bytes` bytes, 64-byte aligned, private to the calling thread.
  void (*linear_int8)(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                      int64_t y_stride, uint8_t* scratch);

  // The same product with float32 activations and weights decoded to float32: every element type. x row t at x +
  // t*x_stride. Rows of x must be readable up to cols rounded up to 4.
  void (*linear_f32)(const Matrix& w, const float* x, int64_t x_stride, int64_t tokens, int64_t tile_begin,
                     int64_t tile_end, float* y, int64_t y_stride, uint8_t* scratch);

  size_t scratch_bytes;
  Bf16Kernels bf16;

  // y = x * (offset + weight) / sqrt(mean(x^2) + eps)   for one row of n values. x == y allowed.
  void (*rms_norm)(const float* x, const float* weight, float offset, float eps, int64_t n, float* y);
  // y = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight + bias   for one row of n values. x == y allowed.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* y);
  // y = curve(x) * times, or curve(x) where times is null. y may be x or times.
  void (*activation)(Curve curve, const float* x, const float* times, int64_t n, float* y);
  // y = cap * tanh(x / cap). x == y allowed.
  void (*softcap)(const float* x, float cap, int64_t n, float* y);
  // y = a + b. y may be either.
  void (*add)(const float* a, const float* b, int64_t n, float* y);
  // Rotate one row of `heads` heads, two halves per head (Hugging Face order); x == y allowed:
  //   (a, b) = (x[i], x[i + D/2]) -> (a cos_i - b sin_i, b cos_i + a sin_i)
  void (*rope)(const float* x, int64_t heads, int64_t head_dim, const float* cos, const float* sin, float* y);
  // f32 -> f16, round to nearest even
  void (*to_f16)(const float* x, int64_t n, uint16_t* y);
  // One row of a key/value cache of kInt8 (limit 127) or kInt4 (limit 7); x holds n numbers, `block` is a multiple
  // of 32.
  // Scales lie `scale_stride` apart.
  //   scale = f16(max|x| / limit) over each block, code = round-to-nearest-even(x / scale), at most limit either way
  // A block of zeros, or so small that its scale is 0: codes 0. One that is not finite: scale NaN (or infinite, where
  // only the scale is beyond f16), codes 0, so that whatever reads it is NaN.
  void (*to_codes)(const float* x, int64_t n, CacheType type, int64_t block, uint8_t* codes, uint16_t* scales,
                   int64_t scale_stride);
  // Query heads [head_begin, head_end) of tokens [token_begin, token_end): softmax(scale * q k^T) v masked as Attention
  // says, online softmax over blocks of positions; no T x T matrix. Query head h reads key/value head h / (heads /
  // kv_heads).
  void (*attention)(const Attention& a, int64_t head_begin, int64_t head_end, int64_t token_begin, int64_t token_end,
                    uint8_t* scratch);
  // Natural log of sum(exp(x)) over n values, and the index of the largest (first one of equals).
  float (*log_sum_exp)(const float* x, int64_t n, int64_t* argmax);
  // KL(p || q) in nats of two rows of logits with known log-sum-exps: sum_i exp(p_i - lse_p) * ((p_i - lse_p) - (q_i -
  // lse_q)).
  double (*divergence)(const float* p, float lse_p, const float* q, float lse_q, int64_t n);

  // Sums over the `inputs` weights of a block, each counting h: of (w - value)^2, number, number^2 and w * number,
  // where number = round((w - low) / divisor) and value = number * scale + low. w[k * w_stride + m] is input k of block
  // m; scales, divisors and lows (or null) have an entry per block; sums is [4][blocks].
  void (*weighted_sums)(const Rounding& rounding, const float* w, int64_t w_stride, const float* importance,
                        int64_t inputs, int64_t blocks, const float* scales, const float* divisors, const float* lows,
                        float* sums);

  // Rounds inputs [begin, end) of strips [strip_begin, strip_end), one input after the other:
  //   t = w_k + sum_{j<k} feedback[k][j] * (w_j - value_j),  value_k = value of t (as above), then w_k - value_k
  // replaces w_k. Rows don't influence each other.
  void (*sweep)(const Sweep& sweep, int64_t strip_begin, int64_t strip_end);

  // Rounds all weights, of each input one row after the other:
  //   t = w_nk + r_nk + sum_{m<n} by_row[n][m] * (e_mk + r_mk),  r_nk = sum_{j<k} by_input[k][j] * e_nj
  // value = value of t (as above), and e_nk = w_nk - value replaces w_nk.
  void (*sweep_both)(const SweepBoth& sweep);

  // moments[i][j] += sum over tokens of turned[i][t] * x[t][j], for rows i < row_end and columns j in [begin, end), at
  // most kGramCols of them. x is [tokens][width], turned [width][tokens], tokens <= kGramTokens. Sums are float32 over
  // the tokens of one call, then added in float64.
  void (*gram)(const float* x, const float* turned, int64_t width, int64_t tokens, int64_t begin, int64_t end,
               int64_t row_end, double* moments, uint8_t* scratch);

  // The three steps of a Cholesky factor A = L L^T of n x n doubles in place, lower triangle, for columns [begin, end),
  // at most kCholeskyCols, when all before are done and subtracted:
  //   diagonal   those columns' own square; false when a pivot is not positive
  //   solve      rows [row_begin, row_end) below it, row_begin - end a multiple of kCholeskyTile; also written to
  //              panel [(n - end) / kCholeskyTile, rounded up][kCholeskyCols][kCholeskyTile], 64-byte aligned
  //   subtract   from rows [row_begin, row_end) below and columns end ... row of A what these columns give; what is
  //              right of the diagonal may be touched
  bool (*cholesky_diagonal)(double* a, int64_t n, int64_t begin, int64_t end);
  void (*cholesky_solve)(double* a, int64_t n, int64_t begin, int64_t end, double* panel, int64_t row_begin,
                         int64_t row_end);
  void (*cholesky_subtract)(double* a, int64_t n, int64_t begin, int64_t end, const double* panel, int64_t row_begin,
                            int64_t row_end);

  // sums[r][n] = sum_k inputs[r][k] * weight[n][k]: exact in int32 up to 2^17 inputs, modulo 2^32 beyond.
  void (*integer_product)(const IntegerProduct& p);
  // sums[r][n] = clamp(((sums[r][n] >> pre) * multiplier[n] + offset[n]) >> shift, low, high), modulo 2^32 before
  // `>> shift`; sums is [rows][channels].
  void (*requantize)(int32_t* sums, int64_t rows, const Requantizer& by);
};

extern const Kernels kScalarKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvxVnniKernels, kAvx512VnniKernels;  // the same with vpdpbusd, in its two encodings
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512Bf16Kernels;  // the same, and bf16
#elif defined(__aarch64__)
extern const Kernels kNeonKernels;
extern const Kernels kNeonDotprodKernels;
extern const Kernels kNeonI8mmKernels;
#endif

}  // namespace scrimp
