#include "scrimp.h"

void scrimp_linear(const struct scrimp_linear *op, const int8_t *in, void *out)
{
    op->product(in, op->inputs, op->weight, op->outputs, op->acc, op->tables);
    scrimp_requantize(&op->requantize, op->acc, 0, op->outputs, out);
}
