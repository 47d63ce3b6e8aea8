/* Integer networks in C99: no allocation, no floating point, no 64-bit product, no division.
 *
 * Activations are int8 in the order (row, column, channel); sums are int32. What the exporter proved: no sum leaves
 * 32 bits, whatever the picture. */
#ifndef SCRIMP_H
#define SCRIMP_H

#include <stdint.h>

/* The one thing C99 leaves to the compiler and these files need: >> of a negative number rounds towards minus
 * infinity (all compilers for the targets do). Does not compile otherwise. */
typedef char scrimp_shift_must_be_arithmetic[((int32_t)-5 >> 1) == -3 ? 1 : -1];

#if defined(__riscv) && !defined(__riscv_mul)
#define SCRIMP_SOFTWARE_MULTIPLY 1
#else
#define SCRIMP_SOFTWARE_MULTIPLY 0
#endif

/* acc[i] = sum over j < k of weight[i][j] * x[j], i < n. `tables` is scratch of the size the packing needs. */
typedef void scrimp_product(const int8_t *x, int32_t k, const void *weight, int32_t n, int32_t *acc, int16_t *tables);

scrimp_product scrimp_w8, scrimp_w4, scrimp_t2, scrimp_t5, scrimp_t19, scrimp_b1, scrimp_p2, scrimp_p4, scrimp_p8;

/* code = clamp(((acc >> pre) * multiplier + offset) >> shift, low, high); `logits`: int32 comes out, unclamped.
 * Multipliers and offsets are stored in as few bytes as hold them, by their kind: 0 = one int32 for all channels,
 * 2 = uint16, 3 = uint16 and the high byte elsewhere, 4 = int32. Offsets without `offset_shift` zeros. */
struct scrimp_requantize {
    const void *multiplier, *offset;
    const int8_t *multiplier_high, *offset_high;
    uint8_t multiplier_kind, offset_kind, offset_shift, pre, shift;
    int8_t low, high;
    uint8_t logits;
};

/* Of the channels first .. first + n - 1; out is int8, or int32 of logits. */
void scrimp_requantize(const struct scrimp_requantize *by, const int32_t *acc, int32_t first, int32_t n, void *out);

/* All outputs of a vector, or of the inputs under a kernel. acc and tables are scratch inside the arena. */
struct scrimp_linear {
    const void *weight;
    scrimp_product *product;
    int32_t *acc;
    int16_t *tables;
    struct scrimp_requantize requantize;
    int32_t inputs, outputs; /* of a group */
};

struct scrimp_conv {
    struct scrimp_linear linear;
    int8_t *patch; /* scratch: the inputs of a group under the kernel */
    uint32_t part_bytes; /* of the weights of a group; where channels are computed one by one, of a row */
    uint16_t height, width, channels; /* of the input */
    uint16_t out_height, out_width, out_channels;
    uint16_t kernel_height, kernel_width;
    uint16_t stride, padding;
    uint16_t group_channels, kernel_row; /* of a group; kernel_width * group_channels */
};

struct scrimp_pool {
    uint16_t height, width, channels;
    uint16_t out_height, out_width;
    uint16_t kernel, stride;
};

struct scrimp_add {
    int32_t multiplier_a, multiplier_b, offset;
    uint8_t shift;
    int8_t low, high;
};

/* Bytes of a picture to int8, in place: (byte - zero) >> shift. */
void scrimp_pixels(uint8_t *bytes, int32_t n, int32_t zero, int32_t shift);

void scrimp_linear(const struct scrimp_linear *op, const int8_t *in, void *out);
void scrimp_conv(const struct scrimp_conv *op, const int8_t *in, void *out);

/* Output channel c alone: linear.outputs is 1. `whole` says that `in` has all input channels and not only c; pixels
 * come out `step` bytes apart. */
void scrimp_conv_channel(const struct scrimp_conv *op, const int8_t *in, int8_t *out, int32_t step, int32_t c,
                         int whole);

/* Of op->channels channels; pixels come out `step` bytes apart. Of avg_pool the first is channel c. */
void scrimp_max_pool(const struct scrimp_pool *op, const int8_t *in, int8_t *out, int32_t step);
void scrimp_avg_pool(const struct scrimp_pool *op, const struct scrimp_requantize *by, const int8_t *in, int8_t *out,
                     int32_t step, int32_t c);

void scrimp_add(const struct scrimp_add *op, const int8_t *a, const int8_t *b, int8_t *out, int32_t n);

#endif
