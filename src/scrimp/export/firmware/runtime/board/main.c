/* Runs the test vectors; status 0 when every logit is what it was on the desk. */
#include "io.h"
#include "model.h"
#include "vectors.h"

int main(void)
{
    int32_t v, i, wrong = 0;
    for (v = 0; v < VECTORS; v++) {
        const int32_t *logits;
        for (i = 0; i < MODEL_PICTURE; i++)
            model_picture[i] = vector_pictures[v][i];
        logits = model_run();
        for (i = 0; i < MODEL_LOGITS; i++)
            wrong |= logits[i] ^ vector_logits[v][i];
    }
    io_print(wrong ? "FAILED\n" : "passed\n");
    return wrong ? 1 : 0;
}
