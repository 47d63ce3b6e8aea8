#include "scrimp.h"

void scrimp_max_pool(const struct scrimp_pool *op, const int8_t *in, int8_t *out, int32_t step)
{
    const int32_t row = (int32_t)op->width * op->channels;
    int32_t y, x, c, i, j;
    for (y = 0; y < op->out_height; y++)
        for (x = 0; x < op->out_width; x++, out += step) {
            const int8_t *corner = in + y * op->stride * row + x * op->stride * op->channels;
            for (c = 0; c < op->channels; c++) {
                int32_t most = -128;
                for (i = 0; i < op->kernel; i++) {
                    const int8_t *from = corner + i * row + c;
                    for (j = 0; j < op->kernel; j++)
                        if (from[j * op->channels] > most)
                            most = from[j * op->channels];
                }
                out[c] = (int8_t)most;
            }
        }
}

void scrimp_avg_pool(const struct scrimp_pool *op, const struct scrimp_requantize *by, const int8_t *in, int8_t *out,
                     int32_t step, int32_t first)
{
    const int32_t row = (int32_t)op->width * op->channels;
    int32_t y, x, c, i, j;
    for (y = 0; y < op->out_height; y++)
        for (x = 0; x < op->out_width; x++, out += step)
            for (c = 0; c < op->channels; c++) {
                int32_t sum = 0;
                for (i = 0; i < op->kernel; i++) {
                    const int8_t *from = in + (y * op->stride + i) * row + x * op->stride * op->channels + c;
                    for (j = 0; j < op->kernel; j++)
                        sum += from[j * op->channels];
                }
                scrimp_requantize(by, &sum, first + c, 1, out + c);
            }
}
