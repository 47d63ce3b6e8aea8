#include "scrimp.h"
#include "tables.h"

/* Five trits per byte: a table of all 243 partial sums of five inputs, |sum| <= 640. Small, for where flash is what is
 * short: it is the packing with the fewest bytes. */
void scrimp_t5(const int8_t *x, int32_t k, const void *weight, int32_t n, int32_t *acc, int16_t *tables)
{
    const uint8_t *w = weight;
    scrimp_clear(acc, n);
    for (; k > 0; k -= 5, x += 5) {
        int32_t *a = acc, *end = acc + n;
        scrimp_trits(tables + 216, x + 2, -x[0] - x[1] - x[2] - x[3] - x[4]);
        scrimp_nines(tables, 27, x[0], x[1]);
        while (a < end)
            *a++ += tables[*w++];
    }
}
