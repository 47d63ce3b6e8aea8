#include "multiply.h"
#include "scrimp.h"

static int32_t number(const void *of, const int8_t *high, int bytes, int32_t i)
{
    if (bytes == 2)
        return ((const int16_t *)of)[i];
    if (bytes == 3)
        return high[i] * 65536 + ((const uint16_t *)of)[i];
    return ((const int32_t *)of)[bytes ? i : 0];
}

void scrimp_requantize(const struct scrimp_requantize *by, int32_t *acc, int32_t first, int32_t n, void *out)
{
    int8_t *codes = out;
    const int32_t *end = acc + n;
    for (; acc < end; acc++, first++) {
        const int32_t multiplier = number(by->multiplier, 0, by->multiplier_bytes, first);
        const int32_t offset = number(by->offset, by->offset_high, by->offset_bytes, first);
        int32_t code = (scrimp_multiply(*acc >> by->pre, multiplier) + offset) >> by->shift;
        if (by->logits) {
            *(int32_t *)out = code;
            out = (int32_t *)out + 1;
            continue;
        }
        if (code < by->low)
            code = by->low;
        if (code > by->high)
            code = by->high;
        *codes++ = (int8_t)code;
    }
}
