// Included in the unnamed namespace of an instruction set.

template <int I>
struct Index {
  static constexpr int value = I;
};

// f(Index<0>), ..., f(Index<N - 1>): a loop whose counter is a constant, so that arrays indexed by it live in
// registers.
template <int N, int I = 0, class F>
SCRIMP_INLINE void each(F&& f) {
  if constexpr (I < N) {
    f(Index<I>{});
    each<N, I + 1>(f);
  }
}
