#include "scrimp.h"

void scrimp_pixels(uint8_t *bytes, int32_t n, int32_t zero, int32_t shift)
{
    int8_t *codes = (int8_t *)bytes;
    int32_t i;
    for (i = 0; i < n; i++)
        codes[i] = (int8_t)((bytes[i] - zero) >> shift);
}

void scrimp_linear(const struct scrimp_conv *op, const int8_t *in, void *out, const struct scrimp_scratch *scratch)
{
    const int32_t k = (int32_t)op->height * op->width * op->channels;
    op->product(in, k, op->weight, op->outputs, scratch->acc, scratch->tables);
    scrimp_requantize(&op->requantize, scratch->acc, 0, op->outputs, out);
}

/* What is computed: outputs first .. first + n - 1, `step` numbers from a pixel to the next, of the inputs
 * from .. from + count - 1 of pixels that are `channels` apart. */
struct part {
    const uint8_t *weight;
    int32_t channels, from, count, first, n, step;
};

/* The inputs under the kernel at (y, x), which may lie partly outside: there they are 0. */
static const int8_t *gather(const struct scrimp_conv *op, const struct part *of, const int8_t *in, int32_t y, int32_t x,
                            int8_t *patch)
{
    int8_t *to = patch;
    int32_t r, c, i;
    if (op->kernel_height == 1 && op->kernel_width == 1 && of->count == of->channels)
        return in + (y * op->width + x) * of->channels;
    for (r = y; r < y + op->kernel_height; r++)
        for (c = x; c < x + op->kernel_width; c++)
            if (r >= 0 && r < op->height && c >= 0 && c < op->width) {
                const int8_t *from = in + (r * op->width + c) * of->channels + of->from;
                for (i = 0; i < of->count; i++)
                    *to++ = from[i];
            } else {
                for (i = 0; i < of->count; i++)
                    *to++ = 0;
            }
    return patch;
}

static void convolve(const struct scrimp_conv *op, const struct part *of, const int8_t *in, uint8_t *out,
                     const struct scrimp_scratch *scratch)
{
    const int32_t k = (int32_t)op->kernel_height * op->kernel_width * of->count;
    const int32_t size = op->requantize.logits ? 4 : 1;
    int32_t y, x;
    for (y = 0; y < op->out_height; y++)
        for (x = 0; x < op->out_width; x++, out += size * of->step) {
            const int8_t *seen =
                gather(op, of, in, y * op->stride - op->padding, x * op->stride - op->padding, scratch->patch);
            op->product(seen, k, of->weight, of->n, scratch->acc, scratch->tables);
            scrimp_requantize(&op->requantize, scratch->acc, of->first, of->n, out);
        }
}

void scrimp_conv(const struct scrimp_conv *op, const int8_t *in, void *out, const struct scrimp_scratch *scratch)
{
    struct part part;
    int32_t g;
    part.weight = op->weight;
    part.channels = op->channels;
    part.step = op->outputs;
    part.count = op->group_inputs;
    part.n = op->group_outputs;
    part.from = part.first = 0;
    for (g = 0; g < op->groups; g++) {
        convolve(op, &part, in, (uint8_t *)out + (op->requantize.logits ? 4 : 1) * part.first, scratch);
        part.weight += op->part_bytes;
        part.from += part.count;
        part.first += part.n;
    }
}

void scrimp_conv_channel(const struct scrimp_conv *op, const int8_t *in, int8_t *out, int32_t step, int32_t c,
                         int whole, const struct scrimp_scratch *scratch)
{
    struct part part;
    part.weight = op->weight + c * (int32_t)op->part_bytes;
    part.channels = part.count = whole ? op->channels : 1;
    part.from = 0;
    part.first = c;
    part.n = 1;
    part.step = step;
    convolve(op, &part, in, (uint8_t *)out, scratch);
}
