/* Runs the test vectors; status 0 when every logit is what it was on the desk. Without vectors it says "ran". */
#include "io.h"
#include "model.h"
#include "vectors.h"

int main(void)
{
#if VECTORS
    int32_t wrong = 0;
    int32_t v, i;
#ifdef VECTOR_SEED
    uint32_t state = VECTOR_SEED;
#endif
    for (v = 0; v < VECTORS; v++) {
        const int32_t *logits;
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
        logits = model_run();
        for (i = 0; i < MODEL_LOGITS; i++)
            wrong |= logits[i] ^ vector_logits[v][i];
    }
    io_print(wrong ? "FAILED\n" : "passed\n");
    return wrong != 0;
#else
    model_run();
    io_print("ran\n");
    return 0;
#endif
}
