#include "multiply.h"
#include "scrimp.h"

/* Number i of an array of this kind. */
static inline int32_t number(const void *of, const int8_t *high, int kind, int32_t i)
{
    if (kind & 2) {
        int32_t value = ((const uint16_t *)of)[i];
        if (kind & 1)
            value += (int32_t)((uint32_t)high[i] << 16);
        return value;
    }
    return ((const int32_t *)of)[kind ? i : 0];
}

void scrimp_requantize(const struct scrimp_requantize *by, const int32_t *acc, int32_t first, int32_t n, void *out)
{
    int8_t *codes = out;
    for (; n > 0; n--, first++) {
        const int32_t multiplier = number(by->multiplier, by->multiplier_high, by->multiplier_kind, first);
        const int32_t offset = number(by->offset, by->offset_high, by->offset_kind, first);
        /* A sum has fewer bits than its multiplier, most of the time. */
        const int32_t scaled = scrimp_multiply(multiplier, *acc++ >> by->pre);
        int32_t code = (scaled + (int32_t)((uint32_t)offset << by->offset_shift)) >> by->shift;
        if (by->logits) {
            *(int32_t *)(void *)codes = code;
            codes += 4;
            continue;
        }
        if (code < by->low)
            code = by->low;
        if (code > by->high)
            code = by->high;
        *codes++ = (int8_t)code;
    }
}
