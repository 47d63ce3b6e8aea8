#include "scrimp.h"

#if SCRIMP_SOFTWARE_MULTIPLY
/* Without a multiplier: x w = q(x + w) - q(x - w) of quarter squares q(s) = floor(s^2 / 4). Exact: x + w and x - w are
 * both even or both odd, and what is cut off goes away in the difference. A kilobyte of flash, and a fifth of the
 * instructions of a multiplication in software. */
#define Q(s) ((s) * (s) / 4)
#define Q4(s) Q(s), Q((s) + 1), Q((s) + 2), Q((s) + 3)
#define Q16(s) Q4(s), Q4((s) + 4), Q4((s) + 8), Q4((s) + 12)
#define Q64(s) Q16(s), Q16((s) + 16), Q16((s) + 32), Q16((s) + 48)
#define Q256(s) Q64(s), Q64((s) + 64), Q64((s) + 128), Q64((s) + 192)
static const int16_t quarter_squares[513] = {Q256(-256), Q256(0), Q(256)};

void scrimp_w8(const int8_t *x, int32_t k, const void *weight, int32_t n, int32_t *acc, int16_t *tables)
{
    const int16_t *const q = quarter_squares + 256;
    const int8_t *w = weight;
    const int8_t *const end = x + k;
    (void)tables;
    for (; n > 0; n--) {
        const int8_t *v = x;
        int32_t sum = 0;
        while (v < end) {
            const int32_t a = *v++, b = *w++;
            sum += q[a + b] - q[a - b];
        }
        *acc++ = sum;
    }
}

#else
/* int8 rows. Four rows share each load of x: one load, one multiply-accumulate per weight and a quarter load of x. */
static void four_rows(const int8_t *x, int32_t k, const int8_t *w, int32_t *acc)
{
    const int8_t *w1 = w + k, *w2 = w1 + k, *w3 = w2 + k;
    const int8_t *end = x + k;
    int32_t a = 0, b = 0, c = 0, d = 0;
    while (x < end) {
        const int32_t v = *x++;
        a += v * *w++;
        b += v * *w1++;
        c += v * *w2++;
        d += v * *w3++;
    }
    acc[0] = a;
    acc[1] = b;
    acc[2] = c;
    acc[3] = d;
}

static int32_t one_row(const int8_t *x, int32_t k, const int8_t *w)
{
    const int8_t *end = x + k;
    int32_t a = 0;
    while (x < end)
        a += (int32_t)*x++ * *w++;
    return a;
}

void scrimp_w8(const int8_t *x, int32_t k, const void *weight, int32_t n, int32_t *acc, int16_t *tables)
{
    const int8_t *w = weight;
    (void)tables;
    for (; n >= 4; n -= 4, acc += 4, w += 4 * k)
        four_rows(x, k, w, acc);
    for (; n > 0; n--, w += k)
        *acc++ = one_row(x, k, w);
}
#endif
