/* Tables of all partial sums of a few inputs: built once for a group of inputs, read by every row. */
#ifndef SCRIMP_TABLES_H
#define SCRIMP_TABLES_H

#include <stdint.h>

/* t[a + 3b + 9c] = start + a x[0] + b x[1] + c x[2]; `start` of the trit -1 everywhere is the negative of their sum. */
static inline int16_t *scrimp_trits(int16_t *t, int32_t start, int32_t x0, int32_t x1, int32_t x2)
{
    int i;
    for (i = 0; i < 3; i++, start += x2) {
        int32_t v = start;
        t[0] = (int16_t)v;
        t[1] = (int16_t)(v + x0);
        t[2] = (int16_t)(v + x0 + x0);
        v += x1;
        t[3] = (int16_t)v;
        t[4] = (int16_t)(v + x0);
        t[5] = (int16_t)(v + x0 + x0);
        v += x1;
        t[6] = (int16_t)v;
        t[7] = (int16_t)(v + x0);
        t[8] = (int16_t)(v + x0 + x0);
        t += 9;
    }
    return t;
}

/* t[bits] = the sum of those of four inputs whose bit is 1. */
static inline int16_t *scrimp_bits(int16_t *t, int32_t x0, int32_t x1, int32_t x2, int32_t x3)
{
    int32_t v = 0;
    int i;
    for (i = 0; i < 2; i++, v = x3) {
        t[0] = (int16_t)v;
        t[1] = (int16_t)(v + x0);
        t[2] = (int16_t)(v + x1);
        t[3] = (int16_t)(v + x1 + x0);
        v += x2;
        t[4] = (int16_t)v;
        t[5] = (int16_t)(v + x0);
        t[6] = (int16_t)(v + x1);
        t[7] = (int16_t)(v + x1 + x0);
        t += 8;
    }
    return t;
}

/* `group` inputs as int8, zeros where x has no more. */
static inline void scrimp_group(int8_t *group, int32_t size, const int8_t *x, int32_t left)
{
    int32_t i;
    for (i = 0; i < size; i++)
        group[i] = i < left ? x[i] : 0;
}

static inline void scrimp_clear(int32_t *acc, int32_t n)
{
    while (n-- > 0)
        *acc++ = 0;
}

#endif
