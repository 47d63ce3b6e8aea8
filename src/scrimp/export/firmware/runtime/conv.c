#include "scrimp.h"

/* What is computed: outputs from `first` on, `step` numbers from a pixel to the next, of the inputs
 * from .. from + count - 1 of pixels that are `channels` apart. */
struct part {
    const uint8_t *weight;
    int32_t channels, from, count, first, step;
};

/* The inputs under the kernel at (y, x), which may lie partly outside: there they are 0. */
static const int8_t *gather(const struct scrimp_conv *op, const struct part *of, const int8_t *in, int32_t y, int32_t x)
{
    const int32_t bottom = y + op->kernel_height, right = x + op->kernel_width;
    int8_t *to = op->patch;
    int32_t r, c, i;
    if (!to)
        return in + (y * op->width + x) * of->channels;
    for (r = y; r < bottom; r++)
        for (c = x; c < right; c++)
            if (r >= 0 && r < op->height && c >= 0 && c < op->width) {
                const int8_t *from = in + (r * op->width + c) * of->channels + of->from;
                for (i = 0; i < of->count; i++)
                    *to++ = from[i];
            } else {
                for (i = 0; i < of->count; i++)
                    *to++ = 0;
            }
    return op->patch;
}

static void convolve(const struct scrimp_conv *op, const struct part *of, const int8_t *in, uint8_t *out)
{
    const struct scrimp_linear *linear = &op->linear;
    const int32_t size = linear->requantize.logits ? 4 * of->step : of->step;
    int32_t y, x;
    for (y = 0; y < op->out_height; y++)
        for (x = 0; x < op->out_width; x++, out += size) {
            const int8_t *seen = gather(op, of, in, y * op->stride - op->padding, x * op->stride - op->padding);
            linear->product(seen, linear->inputs, of->weight, linear->outputs, linear->acc, linear->tables);
            scrimp_requantize(&linear->requantize, linear->acc, of->first, linear->outputs, out);
        }
}

void scrimp_conv(const struct scrimp_conv *op, const int8_t *in, void *out)
{
    const int32_t size = op->linear.requantize.logits ? 4 : 1;
    struct part part;
    part.weight = op->linear.weight;
    part.channels = op->channels;
    part.count = op->group_channels;
    part.step = op->out_channels;
    part.from = part.first = 0;
    for (; part.from < op->channels; part.from += part.count, part.first += op->linear.outputs) {
        convolve(op, &part, in, (uint8_t *)out + size * part.first);
        part.weight += op->part_bytes;
    }
}

void scrimp_conv_channel(const struct scrimp_conv *op, const int8_t *in, int8_t *out, int32_t step, int32_t c,
                         int whole)
{
    struct part part;
    part.weight = (const uint8_t *)op->linear.weight + c * (int32_t)op->part_bytes;
    part.channels = part.count = whole ? op->channels : 1;
    part.from = 0;
    part.first = c;
    part.step = step;
    convolve(op, &part, in, (uint8_t *)out);
}
