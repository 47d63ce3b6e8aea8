// <immintrin.h> without the false alarms of GCC 12: its _mm512_undefined_*() are written `__Y = __Y`, and every inlined
// intrinsic then warns of an uninitialized value (GCC bug 105593).
#pragma once

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
