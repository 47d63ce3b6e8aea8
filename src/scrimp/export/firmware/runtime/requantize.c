#include "scrimp.h"

void scrimp_requantize(const struct scrimp_requantize *by, const int32_t *acc, int32_t first, int32_t n, void *out)
{
    int8_t *codes = out;
    for (; n > 0; n--, first++) {
        int32_t code = scrimp_code(by, *acc++, first);
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
