// What every folder of kernels declares, included inside its namespace; the contracts are in ../kernels.h.

uint64_t read(const uint8_t* from, int64_t bytes);
int64_t f32_peak(int64_t rounds);
void quantize(const float* x, int64_t stride, int64_t block_begin, int64_t block_end, const Activations& a);
void linear_int8(const Matrix& w, const Activations& x, int64_t tile_begin, int64_t tile_end, float* y,
                 int64_t y_stride, uint8_t* scratch);
void linear_f32(const Matrix& w, const float* x, int64_t x_stride, int64_t tokens, int64_t tile_begin, int64_t tile_end,
                float* y, int64_t y_stride, uint8_t* scratch);
void rms_norm(const float* x, const float* weight, float offset, float eps, int64_t n, float* y);
void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* y);
void activation(Curve curve, const float* x, const float* times, int64_t n, float* y);
void softcap(const float* x, float cap, int64_t n, float* y);
void add(const float* a, const float* b, int64_t n, float* y);
void rope(const float* x, int64_t heads, int64_t head_dim, const float* cos, const float* sin, float* y);
void to_f16(const float* x, int64_t n, uint16_t* y);
void to_codes(const float* x, int64_t n, CacheType type, int64_t block, uint8_t* codes, uint16_t* scales,
              int64_t scale_stride);
void attention(const Attention& a, int64_t head_begin, int64_t head_end, int64_t token_begin, int64_t token_end,
               uint8_t* scratch);
float log_sum_exp(const float* x, int64_t n, int64_t* argmax);
double divergence(const float* p, float lse_p, const float* q, float lse_q, int64_t n);
void weighted_sums(const Rounding& rounding, const float* w, int64_t w_stride, const float* importance, int64_t inputs,
                   int64_t blocks, const float* scales, const float* divisors, const float* lows, float* sums);
void sweep(const Sweep& sweep, int64_t strip_begin, int64_t strip_end);
void sweep_both(const SweepBoth& sweep);
void gram(const float* x, const float* turned, int64_t width, int64_t tokens, int64_t begin, int64_t end,
          int64_t row_end, double* moments, uint8_t* scratch);
bool cholesky_diagonal(double* a, int64_t n, int64_t begin, int64_t end);
void cholesky_solve(double* a, int64_t n, int64_t begin, int64_t end, double* panel, int64_t row_begin,
                    int64_t row_end);
void cholesky_subtract(double* a, int64_t n, int64_t begin, int64_t end, const double* panel, int64_t row_begin,
                       int64_t row_end);
void integer_product(const IntegerProduct& p);
void requantize(int32_t* sums, int64_t rows, const Requantizer& by);
