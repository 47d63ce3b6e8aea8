#include "multiply.h"
#include "scrimp.h"

static int32_t number(const struct scrimp_numbers *of, int32_t i)
{
    switch (of->bytes) {
    case 2:
        return ((const int16_t *)of->data)[i];
    case 3:
        return of->high[i] * 65536 + ((const uint16_t *)of->data)[i];
    case 4:
        return ((const int32_t *)of->data)[i];
    default:
        return of->one;
    }
}

void scrimp_requantize(const struct scrimp_requantize *by, int32_t *acc, int32_t first, int32_t n, void *out)
{
    int8_t *codes = out;
    int32_t i;
    for (i = 0; i < n; i++) {
        const int32_t scaled = scrimp_multiply(acc[i] >> by->pre, number(&by->multiplier, first + i));
        int32_t code = (scaled + number(&by->offset, first + i)) >> by->shift;
        if (by->logits) {
            ((int32_t *)out)[i] = code;
            continue;
        }
        if (code < by->low)
            code = by->low;
        if (code > by->high)
            code = by->high;
        codes[i] = (int8_t)code;
    }
}
