#include "tables.h"

void scrimp_nines(int16_t *t, int32_t n, int32_t x0, int32_t x1)
{
    const int32_t c2 = x0 + x0, c4 = x1 + x0, c5 = x1 + c2, c6 = x1 + x1, c7 = c6 + x0, c8 = c6 + c2;
    const uint16_t *start = (const uint16_t *)(const void *)(t + 8 * n); /* no sign to extend: 16 bits are stored */
    do {
        const int32_t v = *start++;
        t[0] = (int16_t)v;
        t[1] = (int16_t)(v + x0);
        t[2] = (int16_t)(v + c2);
        t[3] = (int16_t)(v + x1);
        t[4] = (int16_t)(v + c4);
        t[5] = (int16_t)(v + c5);
        t[6] = (int16_t)(v + c6);
        t[7] = (int16_t)(v + c7);
        t[8] = (int16_t)(v + c8);
        t += 9;
    } while (--n > 0);
}

void scrimp_trits(int16_t *t, const int8_t *x, int32_t start)
{
    const int32_t x2 = x[2];
    t[24] = (int16_t)start;
    t[25] = (int16_t)(start + x2);
    t[26] = (int16_t)(start + x2 + x2);
    scrimp_nines(t, 3, x[0], x[1]);
}

void scrimp_clear(int32_t *acc, int32_t n)
{
    while (n-- > 0)
        *acc++ = 0;
}
