// Products of integers. Included inside the namespace of an instruction set, after `Sixteen` (16 numbers of int32) and
// what can be done with it.

// Rows of the product in registers: each pair of inputs is broadcast once for 16 outputs, each weight loaded once for
// all rows.
constexpr int64_t kIntegerRows = 6;

// Exactness: a product of two pairs is at most 2 * 2^14 and exact, sums are modulo 2^32.
// Cost: 2 bytes of weight per row block; per 32 products one broadcast, and a multiplication and an addition of each
// register of a Sixteen.
template <int64_t kRows>
inline void integer_rows(const int16_t* inputs, int64_t stride, int64_t pairs, const int16_t* weight, int32_t* sums,
                         int64_t sums_stride) {
  Sixteen total[kRows];
#pragma GCC unroll 6
  for (int64_t r = 0; r < kRows; ++r) total[r] = zeros();
  for (int64_t k = 0; k < pairs; ++k) {
    const auto w = load(weight + k * 2 * kIntegerChannels);
#pragma GCC unroll 6
    for (int64_t r = 0; r < kRows; ++r) total[r] = add_products(total[r], w, inputs + r * stride + 2 * k);
  }
#pragma GCC unroll 6
  for (int64_t r = 0; r < kRows; ++r) store(sums + r * sums_stride, total[r]);
}

inline void integer_product_body(const IntegerProduct& p) {
  const int64_t stride = p.pairs * 2, sums_stride = p.blocks * kIntegerChannels;
  for (int64_t block = 0; block < p.blocks; ++block) {
    const int16_t* weight = p.weight + block * p.pairs * 2 * kIntegerChannels;
    int32_t* sums = p.sums + block * kIntegerChannels;
    int64_t r = 0;
    for (; r + kIntegerRows <= p.rows; r += kIntegerRows)
      integer_rows<kIntegerRows>(p.inputs + r * stride, stride, p.pairs, weight, sums + r * sums_stride, sums_stride);
    for (; r < p.rows; ++r)
      integer_rows<1>(p.inputs + r * stride, stride, p.pairs, weight, sums + r * sums_stride, sums_stride);
  }
}

inline void requantize_body(int32_t* sums, int64_t rows, const Requantizer& by) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < by.channels; n += kIntegerChannels) {
      int32_t* at = sums + r * by.channels + n;
      const Sixteen multiplied = multiply(shift_right(load(at), by.pre), load(by.multiplier + n));
      const Sixteen code = shift_right(add(multiplied, load(by.offset + n)), by.shift);
      store(at, clamp(code, by.low, by.high));
    }
  }
}
