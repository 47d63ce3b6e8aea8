#include "scrimp.h"

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
