#include "scrimp.h"

/* What is computed: outputs from `first` on, `step` numbers from a pixel to the next, of `count` inputs from `from` on
 * of pixels that are `channels` apart. Offsets into the input are integers: they may be of points outside. */
struct part {
    const uint8_t *weight;
    int32_t channels, from, count, first, step;
};

static int8_t *zeros(int8_t *to, int32_t n)
{
    while (n-- > 0)
        *to++ = 0;
    return to;
}

/* The inputs under the kernel at (y, x), whose offset is `at`; outside the picture they are 0. */
static void gather(const struct scrimp_conv *op, const struct part *of, const int8_t *in, int32_t y, int32_t x,
                   int32_t at, int32_t row)
{
    const int32_t bottom = y + op->kernel_height;
    int32_t before = 0, after = 0, inside = op->kernel_width;
    int8_t *to = op->patch;
    if (x < 0)
        before = -x;
    if (x + inside > op->width)
        after = x + inside - op->width;
    inside -= before + after;
    if (before) {
        at += before * of->channels;
        before *= of->count;
    }
    if (after)
        after *= of->count;
    for (; y < bottom; y++, at += row) {
        const int8_t *from;
        int32_t i, n;
        if (y < 0 || y >= op->height) {
            to = zeros(to, op->kernel_row);
            continue;
        }
        to = zeros(to, before);
        from = in + at;
        for (n = inside; n > 0; n--, from += of->channels)
            for (i = 0; i < of->count; i++)
                *to++ = from[i];
        to = zeros(to, after);
    }
}

static void convolve(const struct scrimp_conv *op, const struct part *of, const int8_t *in, uint8_t *out)
{
    const struct scrimp_linear *linear = &op->linear;
    const int32_t size = linear->requantize.logits ? 4 * of->step : of->step;
    const int32_t row = op->width * of->channels, right = op->stride * of->channels, down = op->stride * row;
    int32_t line = of->from - op->padding * (row + of->channels), y = -op->padding, i, j;
    for (i = op->out_height; i > 0; i--, line += down, y += op->stride) {
        int32_t at = line, x = -op->padding;
        for (j = op->out_width; j > 0; j--, at += right, x += op->stride, out += size) {
            const int8_t *seen = op->patch;
            if (seen)
                gather(op, of, in, y, x, at, row);
            else
                seen = in + at;
            linear->product(seen, linear->inputs, of->weight, linear->outputs, linear->acc, linear->tables);
            scrimp_requantize(&linear->requantize, linear->acc, of->first, linear->outputs, out);
        }
    }
}

void scrimp_conv(const struct scrimp_conv *op, const int8_t *in, void *out)
{
    uint8_t *to = out;
    struct part part;
    part.weight = op->linear.weight;
    part.channels = op->channels;
    part.count = op->group_channels;
    part.step = op->out_channels;
    part.from = part.first = 0;
    for (; part.from < op->channels; part.from += part.count, part.first += op->linear.outputs) {
        convolve(op, &part, in, to);
        part.weight += op->part_bytes;
        to += op->linear.requantize.logits ? 4 * op->linear.outputs : op->linear.outputs;
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
