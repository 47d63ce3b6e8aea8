#include "scrimp.h"

/* Two rows per word, one in each half: one multiplication by x serves both. Codes are w + 8 or w + 2, never negative,
 * so each half of `pair` is a sum of its own as long as the low one stays within int16: 16 * 15 * 128 = 30,720 of four
 * bits and 64 * 3 * 128 = 24,576 of two. */
#define FIELD(word, bits, j) ((int32_t)((word) >> ((bits) * (j)) & (0x00010001u * ((1u << (bits)) - 1))))

struct pair {
    int32_t low, high;
};

static void split(struct pair *sums, int32_t pair)
{
    const int32_t low = (int16_t)(uint16_t)(uint32_t)pair;
    sums->low += low;
    sums->high += (pair - low) >> 16;
}

/* The last inputs of a row, fewer than a word has. */
static void rest(struct pair *sums, const int8_t *x, int32_t n, uint32_t word, int bits)
{
    int32_t pair = 0;
    for (; n > 0; n--, word >>= bits)
        pair += *x++ * FIELD(word, bits, 0);
    split(sums, pair);
}

static int32_t sum(const int8_t *x, int32_t k)
{
    int32_t total = 0;
    while (k-- > 0)
        total += *x++;
    return total;
}

static void store(const struct pair *sums, int32_t taken, int32_t n, int32_t *acc)
{
    acc[0] = sums->low - taken;
    if (n > 1)
        acc[1] = sums->high - taken;
}

void scrimp_w4(const int8_t *x, int32_t k, const void *weight, int32_t n, int32_t *acc, int16_t *tables)
{
    const uint32_t *w = weight;
    const int32_t taken = 8 * sum(x, k);
    (void)tables;
    for (; n > 0; n -= 2, acc += 2) {
        struct pair sums = {0, 0};
        const int8_t *v = x;
        int32_t left = k;
        while (left >= 4) {
            int32_t pair = 0, words = left >= 16 ? 4 : left >> 2;
            left -= 4 * words;
            for (; words > 0; words--, v += 4) {
                const uint32_t word = *w++;
                pair += v[0] * FIELD(word, 4, 0);
                pair += v[1] * FIELD(word, 4, 1);
                pair += v[2] * FIELD(word, 4, 2);
                pair += v[3] * FIELD(word, 4, 3);
            }
            split(&sums, pair);
        }
        if (left > 0)
            rest(&sums, v, left, *w++, 4);
        store(&sums, taken, n, acc);
    }
}

void scrimp_t2(const int8_t *x, int32_t k, const void *weight, int32_t n, int32_t *acc, int16_t *tables)
{
    const uint32_t *w = weight;
    const int32_t taken = 2 * sum(x, k);
    (void)tables;
    for (; n > 0; n -= 2, acc += 2) {
        struct pair sums = {0, 0};
        const int8_t *v = x;
        int32_t left = k;
        while (left >= 8) {
            int32_t pair = 0, words = left >= 64 ? 8 : left >> 3;
            left -= 8 * words;
            for (; words > 0; words--, v += 8) {
                const uint32_t word = *w++;
                pair += v[0] * FIELD(word, 2, 0);
                pair += v[1] * FIELD(word, 2, 1);
                pair += v[2] * FIELD(word, 2, 2);
                pair += v[3] * FIELD(word, 2, 3);
                pair += v[4] * FIELD(word, 2, 4);
                pair += v[5] * FIELD(word, 2, 5);
                pair += v[6] * FIELD(word, 2, 6);
                pair += v[7] * FIELD(word, 2, 7);
            }
            split(&sums, pair);
        }
        if (left > 0)
            rest(&sums, v, left, *w++, 2);
        store(&sums, taken, n, acc);
    }
}
