/* Runs the test vectors; status 0 when every logit is what it was on the desk. */
#include "io.h"
#include "model.h"
#include "vectors.h"

#if VECTORS
static int32_t same(int32_t v, const int32_t *logits)
{
    int32_t i, wrong = 0;
    for (i = 0; i < MODEL_LOGITS; i++)
        wrong |= logits[i] ^ vector_logits[v][i];
    return !wrong;
}
#endif

int main(void)
{
    int32_t ok = 1;
#if VECTORS
    int32_t v, i;
#ifdef VECTOR_SEED
    uint32_t state = VECTOR_SEED;
#endif
    for (v = 0; v < VECTORS; v++) {
        for (i = 0; i < MODEL_PICTURE; i++) {
#ifdef VECTOR_SEED
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            model_picture[i] = (uint8_t)(state >> 24);
#else
            model_picture[i] = vector_pictures[v][i];
#endif
        }
        ok &= same(v, model_run());
    }
#else
    model_run();
#endif
    io_print(ok ? "passed\n" : "FAILED\n");
    return !ok;
}
