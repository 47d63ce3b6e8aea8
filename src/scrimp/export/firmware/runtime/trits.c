#include "tables.h"

int16_t *scrimp_trits(int16_t *t, const int8_t *x, int32_t start)
{
    const int32_t x0 = x[0], x1 = x[1], x2 = x[2], twice = x0 + x0;
    const int16_t *end = t + 27;
    for (; t < end; t += 9, start += x2) {
        int32_t v = start;
        t[0] = (int16_t)v;
        t[1] = (int16_t)(v + x0);
        t[2] = (int16_t)(v + twice);
        v += x1;
        t[3] = (int16_t)v;
        t[4] = (int16_t)(v + x0);
        t[5] = (int16_t)(v + twice);
        v += x1;
        t[6] = (int16_t)v;
        t[7] = (int16_t)(v + x0);
        t[8] = (int16_t)(v + twice);
    }
    return t;
}
