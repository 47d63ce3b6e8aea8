#include "scrimp.h"
#include "tables.h"

/* Nineteen trits per word: five tables of the 27 partial sums of three inputs, one of the 81 of four. */
static void tables_of(int16_t *t, const int8_t *x)
{
    const int8_t *last = x + 15;
    for (; x < last; x += 3, t += 27)
        scrimp_trits(t, x, -x[0] - x[1] - x[2]);
    t[80] = (int16_t)(-x[0] - x[1] - x[2] - x[3]);
    scrimp_nines(t + 72, 1, x[2], x[3]);
    scrimp_nines(t, 9, x[0], x[1]);
}

#if defined(__ARM_ARCH) && __ARM_ARCH >= 7
/* Registers enough for six bases, and addressing that doubles an index. They come out of a volatile: otherwise the
 * compiler would compute one from the other again for every word. */
#define BASES(tables) \
    int16_t *volatile base; \
    const int16_t *const t0 = tables, *const t1 = (base = (tables) + 27, base), *const t2 = (base = (tables) + 54, base), \
                  *const t3 = (base = (tables) + 81, base), *const t4 = (base = (tables) + 108, base), \
                  *const t5 = (base = (tables) + 135, base)
#define SUM(c) \
    (t0[(c) & 31] + t1[(c) >> 5 & 31] + t2[(c) >> 10 & 31] + t3[(c) >> 15 & 31] + t4[(c) >> 20 & 31] + t5[(c) >> 25])
#else
#define BASES(tables) const int16_t *t = tables
#define SUM(c) \
    (SCRIMP_AT(t, (c) << 1 & 62) + SCRIMP_AT(t + 27, (c) >> 4 & 62) + SCRIMP_AT(t + 54, (c) >> 9 & 62) + \
     SCRIMP_AT(t + 81, (c) >> 14 & 62) + SCRIMP_AT(t + 108, (c) >> 19 & 62) + SCRIMP_AT(t + 135, (c) >> 24 & 254))
#endif

void scrimp_t19(const int8_t *x, int32_t k, const void *weight, int32_t n, int32_t *acc, int16_t *tables)
{
    const uint32_t *w = weight;
    BASES(tables);
    scrimp_clear(acc, n);
    for (; k > 0; k -= 19, x += 19) {
        const uint32_t *end = w + n;
        int32_t *a = acc;
        tables_of(tables, x);
        while (w < end) {
            const uint32_t c = *w++;
            *a++ += SUM(c);
        }
    }
}
