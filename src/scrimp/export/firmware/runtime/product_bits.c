#include "scrimp.h"
#include "tables.h"

/* A negative number is shifted as an unsigned one: C99 knows no other way. */
#define TIMES(x, shift) ((int32_t)((uint32_t)(x) << (shift)))

/* t[bits] = the sum of those of x[0 .. 3] << shift whose bit is 1. Returns t + 16. */
static int16_t *quad(int16_t *t, const int8_t *x, int shift)
{
    const int32_t x0 = TIMES(x[0], shift), x1 = TIMES(x[1], shift), x2 = TIMES(x[2], shift);
    const int32_t both = x0 + x1;
    const int16_t *end = t + 16;
    int32_t v = 0;
    for (; t < end; t += 8, v = TIMES(x[3], shift)) {
        t[0] = (int16_t)v;
        t[1] = (int16_t)(v + x0);
        t[2] = (int16_t)(v + x1);
        t[3] = (int16_t)(v + both);
        v += x2;
        t[4] = (int16_t)v;
        t[5] = (int16_t)(v + x0);
        t[6] = (int16_t)(v + x1);
        t[7] = (int16_t)(v + both);
    }
    return t;
}

#if defined(__ARM_ARCH) && __ARM_ARCH >= 7
#define AT(c, i) t[16 * (i) + ((c) >> 4 * (i) & 15)]
#else
#define AT(c, i) SCRIMP_AT(t + 16 * (i), ((i) ? (c) >> (4 * (i) - 1) : (c) << 1) & 30)
#endif

/* One bit per weight, 32 inputs per word: eight tables of the 16 partial sums of four inputs. acc[i] += the sum of
 * x << shift over the inputs whose bit is 1. */
static const uint32_t *plane(const int8_t *x, int32_t k, const uint32_t *w, int32_t n, int32_t *acc, int16_t *tables,
                             int shift)
{
    const int16_t *t = tables;
    for (; k > 0; k -= 32, x += 32) {
        const int8_t *v = x;
        const uint32_t *end = w + n;
        int16_t *to = tables;
        int32_t *a = acc;
        for (; to < tables + 128; v += 4)
            to = quad(to, v, shift);
        while (w < end) {
            const uint32_t c = *w++;
            *a++ += AT(c, 0) + AT(c, 1) + AT(c, 2) + AT(c, 3) + AT(c, 4) + AT(c, 5) + AT(c, 6) + AT(c, 7);
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
    plane(x, k, weight, n, acc, tables, 1);
}

/* Two's complement, a plane of bits after the other, the sign first: its weight is negative, and every further one
 * counts half. */
static void planes(const int8_t *x, int32_t k, const uint32_t *w, int32_t n, int32_t *acc, int16_t *tables, int bits)
{
    int32_t i;
    scrimp_clear(acc, n);
    w = plane(x, k, w, n, acc, tables, 0);
    for (i = 0; i < n; i++)
        acc[i] = -acc[i];
    while (--bits > 0) {
        for (i = 0; i < n; i++)
            acc[i] += acc[i];
        w = plane(x, k, w, n, acc, tables, 0);
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
