// With the other bind_*.cpp what knows Python: it checks types, shapes and ranges, releases the GIL, and nothing else.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "bind_arrays.h"
#include "bind_checks.h"
#include "bind_coding.h"
#include "bind_integer.h"
#include "bind_measuring.h"
#include "bind_memory.h"
#include "bind_packing.h"
#include "bind_rounding.h"
#include "dispatch.h"
#include "engine.h"
#include "op_checks.h"
#include "packing.h"
#include "score.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace scrimp {
namespace {

using Any = nb::ndarray<nb::c_contig, nb::device::cpu, nb::ro>;
using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using FloatsOut = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Tokens = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Spans = nb::ndarray<const int64_t, nb::shape<-1, 4>, nb::c_contig, nb::device::cpu>;
using Tables = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
constexpr int kCacheBlockLog2 = 5;

// --- matrices ------------------------------------------------------------------------------------------------------

// A Matrix and the arrays that keep its memory alive.
struct HeldMatrix {
  Matrix matrix;
  std::vector<Bytes> planes;
  std::optional<Any> scales, mins;
};

int64_t checked_vectors(const Bytes& plane, int64_t rows, int64_t cols, int64_t span) {
  const int64_t vectors = (cols + span - 1) / span;
  require(static_cast<int64_t>(plane.nbytes()) == (rows + kTileRows - 1) / kTileRows * vectors * kVectorBytes,
          "a plane does not have the size of its shape");
  return vectors;
}

HeldMatrix make_matrix(int element, int bits, int64_t rows, int64_t cols, std::vector<Bytes> planes,
                       const std::vector<int>& spans, int step, int zero, int scale_type, std::optional<Any> scales,
                       std::optional<Any> mins, int64_t group, bool one_scale, const std::vector<float>& numbers,
                       const std::vector<int>& steps, float factor) {
  require(rows > 0 && cols > 0 && rows < (int64_t{1} << 31) && cols <= (int64_t{1} << 16),
          "a matrix has 1 … 2^16 inputs");
  require(element >= 0 && element <= 6 && scale_type >= 0 && scale_type <= 4, "unknown element or scale type");
  require(!planes.empty() && planes.size() <= 2 && spans.size() == planes.size(), "one or two planes, a span for each");
  HeldMatrix held{{}, std::move(planes), std::move(scales), std::move(mins)};
  Matrix& m = held.matrix;
  m = {rows,
       cols,
       static_cast<Element>(element),
       bits,
       {nullptr, nullptr},
       {0, 0},
       step,
       zero,
       static_cast<ScaleType>(scale_type),
       nullptr,
       nullptr,
       group,
       0,
       0,
       1.0F,
       {},
       {}};
  if (m.element == Element::kTable) {
    require(bits >= 2 && bits <= kMostTableBits && held.planes.size() == (bits == 3 ? 2 : 1) && !held.mins &&
                m.scale_type != ScaleType::kNone,
            "a table has codes of 2 … 4 bits and a scale, no mins");
    require(numbers.size() == size_t{1} << bits && steps.size() == numbers.size(),
            "a table has a number for each code");
    m.zero = kTableZero;
    m.factor = factor;
    for (size_t i = 0; i < numbers.size(); ++i) {
      require(steps[i] >= -128 && steps[i] <= 127, "a level has 8 bits");
      m.numbers[i] = numbers[i];
      m.levels[i] = static_cast<uint8_t>(steps[i] + kTableZero);
    }
  }
  for (size_t i = 0; i < held.planes.size(); ++i) {
    m.plane[i] = held.planes[i].data();
    m.vectors[i] = checked_vectors(held.planes[i], rows, cols, spans[i]);
  }
  if (m.scale_type == ScaleType::kNone) {
    m.group = cols;
    return held;
  }
  require(group > 0, "a group holds at least one input");
  require(held.scales.has_value(), "scales are missing");
  m.groups = (cols + group - 1) / group;
  m.scale_tile_stride = one_scale ? 0 : m.groups * kTileRows;
  const int64_t count = one_scale ? kTileRows : (rows + kTileRows - 1) / kTileRows * m.groups * kTileRows;
  const int64_t bytes = count * scale_bytes(m.scale_type);
  require(static_cast<int64_t>(held.scales->nbytes()) == bytes, "scales do not have the size of their shape");
  m.scales = held.scales->data();
  if (held.mins) {
    require(m.scale_type != ScaleType::kE8m0, "mins need a sign");
    require(static_cast<int64_t>(held.mins->nbytes()) == bytes, "mins do not have the size of their shape");
    m.mins = held.mins->data();
  }
  return held;
}

Array<float> decode_rows(const HeldMatrix& held, int64_t begin, int64_t end) {
  const Matrix& w = held.matrix;
  require(0 <= begin && begin <= end && end <= w.rows, "rows out of range");
  auto out = make_array<float>({static_cast<size_t>(end - begin), static_cast<size_t>(w.cols)});
  nb::gil_scoped_release release;
  for (int64_t row = begin; row < end; ++row) decode_row(w, row, out.data() + (row - begin) * w.cols);
  return out;
}

// One product by itself, for the kernel tests and benchmarks: x (T, K) -> y (T, N).
Array<float> linear(const HeldMatrix& held, nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu> x,
                    const std::string& isa, bool float_arithmetic, int64_t activation_block, float input_scale) {
  const Matrix& w = held.matrix;
  const auto tokens = static_cast<int64_t>(x.shape(0));
  require(static_cast<int64_t>(x.shape(1)) == w.cols && tokens > 0, "x must be (T, K) with K the matrix's inputs");
  Op op{OpKind::kLinear, {0}, {1}, {0}, {}, {}, {}};
  if (input_scale != 0.0F) op.floats = {input_scale};
  check_activations(op, activation_block);
  const auto round16 = [](int64_t n) { return (n + 15) / 16 * 16; };
  auto y = make_array<float>({x.shape(0), static_cast<size_t>(w.rows)});
  Engine engine({op}, {{0, w.cols}, {0, w.rows}}, round16(w.cols), 1, {w}, {}, {},
                {0, 0, tokens, 1, float_arithmetic, activation_block, CacheType::kF16, kCacheBlockLog2}, pick(isa));
  const std::vector<int32_t> dummy(x.shape(0), 0);
  const Span all{0, tokens, tokens, nullptr};
  const Step step{dummy, {&all, 1}, 0, 1, y.data(), {{0, const_cast<float*>(x.data())}}, {}};
  nb::gil_scoped_release release;
  engine.run(step);
  return y;
}

// --- the engine ----------------------------------------------------------------------------------------------------

using OpTuple = std::tuple<int, std::vector<int>, std::vector<int>, std::vector<int>, std::vector<int>,
                           std::vector<int64_t>, std::vector<float>>;

struct PyEngine {
  std::vector<nb::object> held;  // matrices and vectors
  std::unique_ptr<Engine> engine;
  int64_t vocab_rows;  // rows of the embedding
  int output;
  std::vector<Buffer> places;
  std::vector<Span> spans;  // of the step that runs
};

int64_t checked_vocab(const std::vector<Op>& ops, const std::vector<Matrix>& matrices) {
  for (const Op& op : ops) {
    if (op.kind == OpKind::kEmbed && op.ints.at(0) == static_cast<int64_t>(LookUp::kToken))
      return matrices.at(static_cast<size_t>(op.weights.at(0))).rows;
  }
  return 0;
}

void init_engine(PyEngine* self, const std::vector<OpTuple>& tuples,
                 const std::vector<std::pair<int64_t, int64_t>>& places, int64_t arena, int output,
                 const std::vector<nb::object>& matrices, const std::vector<nb::object>& vectors,
                 const std::vector<std::pair<int64_t, int64_t>>& caches, int64_t context, int64_t pages, int64_t chunk,
                 int threads, bool float_arithmetic, int64_t activation_block, int cache, int cache_block_log2,
                 const std::string& isa) {
  require(context > 0 && chunk > 0 && threads > 0 && threads <= 1024, "settings out of range");
  const std::vector<CacheShape> shapes = checked_caches(caches, cache, cache_block_log2);
  check_pages(page_layout(shapes, static_cast<CacheType>(cache), cache_block_log2).bytes, pages);
  std::vector<Op> ops;
  for (const auto& [kind, in, out, weights, op_vectors, ints, floats] : tuples) {
    ops.push_back({static_cast<OpKind>(kind), in, out, weights, op_vectors, ints, floats});
  }
  std::vector<Buffer> buffers;
  for (const auto& [offset, width] : places) buffers.push_back({offset, width});
  for (const Op& op : ops) check_side_op(op, buffers);
  std::vector<Matrix> plain;
  for (const nb::object& matrix : matrices) plain.push_back(nb::cast<const HeldMatrix&>(matrix).matrix);
  std::vector<Vector> plain_vectors;
  for (const nb::object& vector : vectors) {
    const auto array = nb::cast<Floats>(vector);
    plain_vectors.push_back({array.data(), static_cast<int64_t>(array.size())});
  }
  for (const Op& op : ops) {
    check_numbers(op, plain, plain_vectors, buffers, context);
    if (op.kind == OpKind::kLinear) check_activations(op, activation_block);
  }
  new (self) PyEngine{matrices, nullptr, checked_vocab(ops, plain), output, buffers, {}};
  self->held.insert(self->held.end(), vectors.begin(), vectors.end());
  self->engine = std::make_unique<Engine>(std::move(ops), buffers, arena, output, std::move(plain),
                                          std::move(plain_vectors), shapes,
                                          Settings{context, pages, chunk, threads, float_arithmetic, activation_block,
                                                   static_cast<CacheType>(cache), cache_block_log2},
                                          pick(isa));
}

std::vector<Tap> checked_taps(const PyEngine& self, const std::vector<std::pair<int, FloatsOut>>& arrays,
                              size_t tokens) {
  std::vector<Tap> taps;
  for (const auto& [buffer, array] : arrays) {
    require(buffer >= 0 && buffer < static_cast<int>(self.places.size()), "no such buffer");
    const auto width = static_cast<size_t>(self.places[static_cast<size_t>(buffer)].width);
    require(array.ndim() == 2 && array.shape(0) == tokens && array.shape(1) == width,
            "a tap must be (T, width of its buffer)");
    taps.push_back({buffer, array.data()});
  }
  return taps;
}

// Rows (sequence, start, tokens, wanted) of `spans`; a sequence is a row of `tables`, with a page for every
// kPagePositions positions.
int64_t check_spans(PyEngine& self, Spans spans, Tables tables, size_t tokens) {
  const Settings& settings = self.engine->settings();
  const auto most = static_cast<int64_t>(tokens);
  int64_t all = 0, wanted = 0;
  self.spans.clear();
  for (size_t i = 0; i < spans.shape(0); ++i) {
    const Span span{spans(i, 1), spans(i, 2), spans(i, 3), nullptr};
    require(spans(i, 0) >= 0 && spans(i, 0) < static_cast<int64_t>(tables.shape(0)), "no such sequence");
    require(span.tokens > 0 && span.tokens <= most, "spans must cover the tokens");
    require(span.wanted >= 0 && span.wanted <= span.tokens, "logits are of tokens of the step");
    require(span.start >= 0 && span.start <= settings.context - span.tokens, "positions exceed the context");
    const int32_t* table = tables.data() + static_cast<size_t>(spans(i, 0)) * tables.shape(1);
    const auto pages = static_cast<size_t>((span.start + span.tokens + kPagePositions - 1) / kPagePositions);
    require(pages <= tables.shape(1), "a table is too short");
    for (size_t p = 0; p < pages; ++p) require(table[p] >= 0 && table[p] < settings.pages, "no such page");
    self.spans.push_back({span.start, span.tokens, span.wanted, table});
    all += span.tokens;
    wanted += span.wanted;
  }
  require(all == most, "spans must cover the tokens");
  return wanted;
}

void run(PyEngine& self, Tokens tokens, Spans spans, Tables tables, int first, int last,
         std::optional<FloatsOut> logits, const std::vector<std::pair<int, FloatsOut>>& inputs,
         const std::vector<std::pair<int, FloatsOut>>& outputs) {
  const Engine& engine = *self.engine;
  const auto count = static_cast<int64_t>(tokens.size());
  require(count > 0 && count <= engine.settings().chunk, "tokens must fill 1 … chunk rows");
  const int64_t wanted = check_spans(self, spans, tables, tokens.size());
  require(first >= 0 && first <= last && last <= static_cast<int>(engine.ops().size()), "operations out of range");
  for (size_t i = 0; i < tokens.size(); ++i)
    require(tokens(i) >= 0 && tokens(i) < self.vocab_rows, "a token is out of range");
  bool makes_logits = false;
  for (int i = first; i < last; ++i) {
    for (int buffer : engine.ops()[static_cast<size_t>(i)].outputs) makes_logits |= buffer == self.output;
  }
  if (makes_logits && wanted > 0) {
    require(logits.has_value(), "logits need a place to go");
    const auto width = static_cast<size_t>(self.places[static_cast<size_t>(self.output)].width);
    require(logits->ndim() == 2 && static_cast<int64_t>(logits->shape(0)) == wanted && logits->shape(1) == width,
            "logits must be (rows, V)");
  }
  require(wanted == count || outputs.empty(), "taps want the rows of all tokens");
  const Step step{{tokens.data(), tokens.size()},
                  self.spans,
                  first,
                  last,
                  logits ? logits->data() : nullptr,
                  checked_taps(self, inputs, tokens.size()),
                  checked_taps(self, outputs, tokens.size())};
  nb::gil_scoped_release release;
  self.engine->run(step);
}

void copy_page(PyEngine& self, int64_t from, int64_t to) {
  const int64_t pages = self.engine->settings().pages;
  require(from >= 0 && from < pages && to >= 0 && to < pages && from != to, "no such page");
  nb::gil_scoped_release release;
  self.engine->copy_page(from, to);
}

// --- measuring -----------------------------------------------------------------------------------------------------

nb::dict score_rows(nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu> logits, Tokens targets,
                    std::optional<nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>> reference,
                    int threads, const std::string& isa) {
  const size_t rows = logits.shape(0);
  const auto vocab = static_cast<int64_t>(logits.shape(1));
  require(targets.size() == rows && threads > 0 && threads <= 1024, "a target per row is needed");
  for (size_t i = 0; i < rows; ++i) require(targets(i) >= 0 && targets(i) < vocab, "a target is out of range");
  if (reference)
    require(reference->shape(0) == rows && reference->shape(1) == logits.shape(1), "the reference has another shape");
  const Kernels& kernels = pick(isa);
  auto nll = make_array<double>({rows}), nll_reference = make_array<double>({rows}), kl = make_array<double>({rows});
  auto same_top = make_array<uint8_t>({rows});
  {
    nb::gil_scoped_release release;
    Pool pool(threads);
    score(logits.data(), reference ? reference->data() : nullptr, targets.data(), static_cast<int64_t>(rows), vocab,
          {nll.data(), nll_reference.data(), kl.data(), same_top.data()}, pool, kernels);
  }
  nb::dict out;
  out["nll"] = nll;
  if (reference) {
    out["nll_reference"] = nll_reference;
    out["kl"] = kl;
    out["same_top"] = same_top;
  }
  return out;
}

}  // namespace
}  // namespace scrimp

NB_MODULE(_core, m) {
  using namespace scrimp;
  m.def("available_isas", [] { return available_isas(); }, "Instruction sets this machine can run, best last.");
  m.def("cpu_features", [] { return cpu_features(); }, "Processor features that the kernels look at.");
  bind_packing(m);
  m.def("linear", &linear, "matrix"_a, "x"_a, "isa"_a, "float_arithmetic"_a = false, "activation_block"_a = 32,
        "input_scale"_a = 0.0F, "x (T, K) times one matrix -> (T, N), for tests and benchmarks of the kernels.");
  m.def("score", &score_rows, "logits"_a, "targets"_a, "reference"_a = nb::none(), "threads"_a = 1, "isa"_a = "scalar");
  m.attr("PAGE_POSITIONS") = kPagePositions;
  m.def("page_bytes", &page_bytes, "caches"_a, "cache"_a, "cache_block_log2"_a);
  bind_measuring(m);
  bind_coding(m);
  bind_integer(m);
  bind_rounding(m);

  nb::class_<HeldMatrix>(m, "Matrix")
      .def(
          "__init__",
          [](HeldMatrix* self, int element, int bits, int64_t rows, int64_t cols, std::vector<Bytes> planes,
             const std::vector<int>& spans, int step, int zero, int scale_type, std::optional<Any> scales,
             std::optional<Any> mins, int64_t group, bool one_scale, const std::vector<float>& numbers,
             const std::vector<int>& steps, float factor) {
            new (self)
                HeldMatrix(make_matrix(element, bits, rows, cols, std::move(planes), spans, step, zero, scale_type,
                                       std::move(scales), std::move(mins), group, one_scale, numbers, steps, factor));
          },
          "element"_a, "bits"_a, "rows"_a, "cols"_a, "planes"_a, "spans"_a, "step"_a, "zero"_a, "scale_type"_a,
          "scales"_a.none(), "mins"_a.none(), "group"_a, "one_scale"_a, "numbers"_a = std::vector<float>{},
          "steps"_a = std::vector<int>{}, "factor"_a = 1.0F)
      .def("decode_rows", &decode_rows, "begin"_a, "end"_a);

  nb::class_<PyEngine>(m, "Engine")
      .def("__init__", &init_engine, "ops"_a, "places"_a, "arena"_a, "output"_a, "matrices"_a, "vectors"_a, "caches"_a,
           "context"_a, "pages"_a, "chunk"_a, "threads"_a, "float_arithmetic"_a, "activation_block"_a, "cache"_a,
           "cache_block_log2"_a, "isa"_a)
      .def("run", &run, "tokens"_a, "spans"_a, "tables"_a, "first"_a, "last"_a, "logits"_a.none(),
           "inputs"_a = std::vector<std::pair<int, FloatsOut>>{},
           "outputs"_a = std::vector<std::pair<int, FloatsOut>>{})
      .def("copy_page", &copy_page, "from_"_a, "to"_a)
      .def("seconds", [](const PyEngine& self) { return self.engine->seconds(); })
      .def("runs", [](const PyEngine& self) { return self.engine->runs(); })
      .def("reset_profile", [](PyEngine& self) { self.engine->reset_profile(); })
      .def("isa", [](const PyEngine& self) { return std::string(self.engine->kernels().isa); });
}
