#include "scrimp.h"
#include "tables.h"

/* One bit per weight, 32 inputs per word: eight tables of the 16 partial sums of four inputs. acc[i] += the sum of
 * scale * x over the inputs whose bit is 1. */
static const uint32_t *plane(const int8_t *x, int32_t k, const uint32_t *w, int32_t n, int32_t *acc, int16_t *tables,
                             int32_t scale)
{
    for (; k > 0; k -= 32, x += 32) {
        int8_t last[32];
        const int8_t *v = x;
        const uint32_t *end = w + n;
        int16_t *t = tables;
        int32_t *a = acc;
        int i;
        if (k < 32) {
            scrimp_group(last, 32, x, k);
            v = last;
        }
        for (i = 0; i < 8; i++, v += 4)
            t = scrimp_bits(t, v[0] * scale, v[1] * scale, v[2] * scale, v[3] * scale);
        t = tables;
        while (w < end) {
            const uint32_t c = *w++;
            const int32_t low = t[c & 15] + t[16 + (c >> 4 & 15)] + t[32 + (c >> 8 & 15)] + t[48 + (c >> 12 & 15)];
            const int32_t high = t[64 + (c >> 16 & 15)] + t[80 + (c >> 20 & 15)] + t[96 + (c >> 24 & 15)] + t[112 + (c >> 28)];
            *a++ += low + high;
        }
    }
    return w;
}

/* Signs: sum of w x = 2 * (sum of x where w is +1) - sum of x. */
void scrimp_b1(const int8_t *x, int32_t k, const void *weight, int32_t n, int32_t *acc, int16_t *tables)
{
    int32_t total = 0, i;
    for (i = 0; i < k; i++)
        total += x[i];
    for (i = 0; i < n; i++)
        acc[i] = -total;
    plane(x, k, weight, n, acc, tables, 2);
}

/* Two's complement, a plane of bits after the other, the sign first: its weight is negative, and every further one
 * counts half. */
static void planes(const int8_t *x, int32_t k, const uint32_t *w, int32_t n, int32_t *acc, int16_t *tables, int bits)
{
    int32_t i;
    scrimp_clear(acc, n);
    w = plane(x, k, w, n, acc, tables, -1);
    while (--bits > 0) {
        for (i = 0; i < n; i++)
            acc[i] += acc[i];
        w = plane(x, k, w, n, acc, tables, 1);
    }
}

void scrimp_p2(const int8_t *x, int32_t k, const void *weight, int32_t n, int32_t *acc, int16_t *tables)
{
    planes(x, k, weight, n, acc, tables, 2);
}

void scrimp_p4(const int8_t *x, int32_t k, const void *weight, int32_t n, int32_t *acc, int16_t *tables)
{
    planes(x, k, weight, n, acc, tables, 4);
}

void scrimp_p8(const int8_t *x, int32_t k, const void *weight, int32_t n, int32_t *acc, int16_t *tables)
{
    planes(x, k, weight, n, acc, tables, 8);
}
