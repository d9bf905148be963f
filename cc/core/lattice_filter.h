// Splat, blur and slice on the permutohedral lattice of one image: what the ops that filter have in
// common.
//
// The table has a row for each vertex, channels contiguous and padded to whole units of 32 bytes,
// after a row of zeros that stands for absent neighbours. What the padding holds is never used: it
// is filled by whatever follows a row in memory. Each vertex is summed by one thread, its points in
// rising order, so that results do not depend on the number of threads; and no sum goes across
// lanes but in Fold, whose order does not depend on the width of a register.
//
// Splat needs neither splat_points nor splat_weights, which are for devices where threads are many.
#ifndef TFSEG_CORE_LATTICE_FILTER_H_
#define TFSEG_CORE_LATTICE_FILTER_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "core/first_error.h"
#include "core/permutohedral_lattice.h"
#include "core/simd.h"

namespace tfseg::core::lattice_filter {

using permutohedral_lattice::Geometry;
using permutohedral_lattice::Lattice;

// --- What can be wrong within a lattice
// ---------------------------------------------------------

enum class Fault : int64_t { kNumVertices, kNeighbour, kVertex };

// Remembers the first illegal index of the lattices of an op.
class Faults {
 public:
  // `element` of the member that the fault is in, all images counted.
  void Note(int64_t lattice, Fault fault, int64_t element) {
    first_.Note(((lattice * 8 + static_cast<int64_t>(fault)) << kElementBits) | element);
  }
  bool any() const { return first_.any(); }

  // `lattices` by number, `several`: whether the op has a list of them.
  Status ToStatus(const char* op, const Lattice* lattices, bool several) const {
    if (!any()) return Status::Ok();
    const int64_t element = first_.element() & ((int64_t{1} << kElementBits) - 1);
    const int64_t which = first_.element() >> kElementBits;
    const int64_t number = which / 8;
    const Lattice& lattice = lattices[number];
    const int64_t points = lattice.vertices.shape[1], corners = lattice.vertices.shape[2];
    const int64_t bound = lattice.neighbours.shape[2];
    const auto text = [](int64_t value) { return std::to_string(value); };
    const auto vertices = [&](int64_t b) { return text(lattice.num_vertices.As<int32_t>()[b]); };
    const auto of_image = [&](int64_t b) { return " of image " + text(b); };
    std::string words;
    switch (static_cast<Fault>(which % 8)) {
      case Fault::kNumVertices:
        words = "has " + vertices(element) + " vertices, not 0 to " + text(bound) + ", in image " +
                text(element);
        break;
      case Fault::kNeighbour: {
        const int64_t vertex = element / 2;
        const int64_t b = vertex / bound / corners;
        words = "names vertex " + text(lattice.neighbours.As<int32_t>()[element]) + " of " +
                vertices(b) + " at axis " + text(vertex / bound % corners) + " of vertex " +
                text(vertex % bound) + of_image(b);
        break;
      }
      case Fault::kVertex: {
        const int64_t b = element / corners / points;
        words = "names vertex " + text(lattice.vertices.As<int32_t>()[element]) + " of " +
                vertices(b) + " at point " + text(element / corners % points) + of_image(b);
        break;
      }
    }
    const std::string name = several ? "lattices[" + text(number) + "]" : "lattice";
    return Status::InvalidArgument(std::string(op) + ": '" + name + "' " + words);
  }

 private:
  static constexpr int kElementBits = 44;
  FirstError first_;
};

// The lattice of image `b`. Its indices are tested where they are followed.
struct Image {
  int64_t number, b;  // of the lattice, of the image
  Faults* faults;
  int64_t points, corners, bound, num_vertices;
  const float* features;         // [points, corners - 1]
  const int32_t* vertices;       // [points, corners]
  const float* weights;          // [points, corners]
  const int32_t* splat_offsets;  // [bound + 1]
  const int32_t* neighbours;     // [corners, bound, 2]
  const float* norms;            // [points]

  Image(const Lattice& lattice, const Geometry& g, int64_t number, int64_t b, Faults* faults)
      : number(number),
        b(b),
        faults(faults),
        points(g.points),
        corners(g.corners()),
        bound(g.bound),
        num_vertices(lattice.num_vertices.As<int32_t>()[b]),
        features(lattice.features.As<float>() + b * g.points * g.dimensions),
        vertices(lattice.vertices.As<int32_t>() + b * entries()),
        weights(lattice.weights.As<float>() + b * entries()),
        splat_offsets(lattice.splat_offsets.As<int32_t>() + b * (g.bound + 1)),
        neighbours(lattice.neighbours.As<int32_t>() + b * corners * g.bound * 2),
        norms(lattice.norms.As<float>() + b * g.points) {
    if (num_vertices < 0 || num_vertices > bound) {
      Note(Fault::kNumVertices, b);
      num_vertices = 0;
    }
  }

  int64_t entries() const { return points * corners; }
  void Note(Fault fault, int64_t element) const { faults->Note(number, fault, element); }
};

// The number of vertices of the largest image. Legal or not, it can be allocated.
inline int64_t MostVertices(const Lattice& lattice, const Geometry& g) {
  int64_t most = 0;
  for (int64_t b = 0; b < g.batch; ++b) {
    const int64_t vertices = lattice.num_vertices.As<int32_t>()[b];
    if (vertices <= g.bound) most = std::max(most, vertices);
  }
  return most;
}

// What the filter is multiplied by.
template <typename A>
inline A ScaleOf(int64_t dimensions) {
  return A(1) / (A(1) + std::ldexp(A(1), -static_cast<int>(dimensions)));
}

// --- Units, chunks and rows
// ---------------------------------------------------------------------

inline constexpr int kUnitBytes = 32;
inline constexpr int kRegisters = kUnitBytes / kVectorBytes;  // of a unit
inline constexpr int kChunkUnits = 8;
// Where rows only pass through, they are cut only so that a part of one stays in the nearest cache.
inline constexpr int kPartUnits = 64;
template <typename A>
inline constexpr int kUnit = kUnitBytes / static_cast<int>(sizeof(A));

// Registers that an inner loop hands around stay registers.
#define TFSEG_INLINE __attribute__((always_inline)) inline

template <int kUnits>
using UnitCount = std::integral_constant<int, kUnits>;

// Calls fn(UnitCount<units>()).
template <int kMost, typename Fn>
inline void ForUnits(int64_t units, Fn&& fn) {
  if constexpr (kMost > 1) {
    if (units < kMost) return ForUnits<kMost - 1>(units, fn);
  }
  fn(UnitCount<kMost>());
}

// Calls fn(UnitCount<corners>()), which is 0 for most: the corners of a position, and of a position
// and a color, are worth code of their own.
template <typename Fn>
TFSEG_INLINE void ForCorners(int64_t corners, Fn&& fn) {
  switch (corners) {
    case 3:
      return fn(UnitCount<3>());
    case 6:
      return fn(UnitCount<6>());
    default:
      return fn(UnitCount<0>());
  }
}

// How the channels of a table are padded, and cut into chunks of nearly the same size.
template <typename A>
struct Columns {
  int64_t channels;

  int64_t units() const { return (channels + kUnit<A> - 1) / kUnit<A>; }
  int64_t stride() const { return units() * kUnit<A>; }
  // Calls fn(first column, UnitCount<...>) for each chunk.
  template <int kMost = kChunkUnits, typename Fn>
  void ForChunks(Fn&& fn) const {
    const int64_t chunks = (units() + kMost - 1) / kMost;
    for (int64_t k = 0; k < chunks; ++k) {
      const int64_t first = units() * k / chunks, last = units() * (k + 1) / chunks;
      ForUnits<kMost>(last - first, [&](auto count) { fn(first * kUnit<A>, count); });
    }
  }
  // Calls fn(first column, units, UnitCount<units>()) for each part, or UnitCount<0>() for rows
  // that are too long for registers.
  template <typename Fn>
  void ForParts(Fn&& fn) const {
    if (units() <= kChunkUnits) {
      return ForUnits<kChunkUnits>(units(), [&](auto count) { fn(0, count(), count); });
    }
    for (int64_t first = 0; first < units(); first += kPartUnits) {
      fn(first * kUnit<A>, std::min<int64_t>(kPartUnits, units() - first), UnitCount<0>());
    }
  }
};

// The registers of a chunk. Lanes are numbered through.
template <typename A, int kUnits>
struct Registers {
  static constexpr int kWidth = VectorOf<A>::kWidth;
  static constexpr int kCount = kUnits * kRegisters;
  static constexpr int kNumbers = kCount * kWidth;
  Vector<A> v[kCount];
};

// Values of points, as they came.
template <typename T>
struct Rows {
  const T* data;
  int64_t points, channels;
  int64_t step;      // from a point to the next: channels or, where these are some of several, more
  int64_t readable;  // numbers from `data` to the end of the memory that it lies in

  // How many of the first points may be read `width` numbers far from `column` on.
  int64_t Wide(int64_t column, int64_t width) const {
    const int64_t room = readable - column - width;
    return room < 0 ? 0 : std::min(points, room / step + 1);
  }
  const T* at(int64_t point) const { return data + point * step; }
  Rows Part(int64_t column, int64_t count) const {
    return {data + column, points, count, step, readable - column};
  }
};

template <typename T>
Rows<T> RowsOf(const ConstBuffer& buffer, int64_t b) {
  const int64_t points = buffer.shape[1], channels = buffer.shape[2];
  return {buffer.As<T>() + b * points * channels, points, channels, channels,
          (buffer.shape[0] - b) * points * channels};
}

template <typename A, typename T>
TFSEG_INLINE Vector<A> LoadNumbers(const T* from) {
#if defined(__AVX2__)
  if constexpr (std::is_same_v<T, BFloat16>) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return reinterpret_cast<Vector<A>>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
#endif
  return LoadVectorAs<A>(from);
}

// A chunk of which only `count` numbers are there; zeros for the others.
template <typename A, int kUnits, typename T>
__attribute__((noinline)) Registers<A, kUnits> LoadPart(const T* from, int64_t count) {
  using R = Registers<A, kUnits>;
  alignas(kLine) A lanes[R::kNumbers] = {};
  for (int64_t k = 0; k < std::min<int64_t>(count, R::kNumbers); ++k) {
    lanes[k] = static_cast<A>(from[k]);
  }
  R chunk;
  for (int k = 0; k < R::kCount; ++k) chunk.v[k] = LoadVector(lanes + k * R::kWidth);
  return chunk;
}

// Columns [column, column + width) of a point; `wide` as Rows::Wide has it.
template <typename A, int kUnits, typename T>
TFSEG_INLINE Registers<A, kUnits> LoadChunk(const Rows<T>& rows, int64_t point, int64_t column,
                                            int64_t wide) {
  using R = Registers<A, kUnits>;
  const T* from = rows.at(point) + column;
  if (point >= wide) return LoadPart<A, kUnits>(from, rows.channels - column);
  R chunk;
  for (int k = 0; k < R::kCount; ++k) chunk.v[k] = LoadNumbers<A>(from + k * R::kWidth);
  return chunk;
}

// Stores `count` numbers of a chunk; all of them where that is possible is much faster.
template <typename T, int kUnits>
TFSEG_INLINE void StoreChunk(const Registers<AccumulatorOf<T>, kUnits>& chunk, int64_t count,
                             T* to) {
  using A = AccumulatorOf<T>;
  using R = Registers<A, kUnits>;
  if constexpr (std::is_same_v<T, A>) {
    if (count >= R::kNumbers) {
      for (int k = 0; k < R::kCount; ++k) StoreVector<A>(chunk.v[k], to + k * R::kWidth);
      return;
    }
  }
  alignas(kLine) A lanes[R::kNumbers];
  for (int k = 0; k < R::kCount; ++k) StoreVector<A>(chunk.v[k], lanes + k * R::kWidth);
  if (count >= R::kNumbers) {
    StoreLanes(lanes, R::kNumbers, to);
  } else {
    StoreLanes(lanes, static_cast<int>(count), to);
  }
}

// Brings into the caches what a chunk of a row lies in, for reading or for writing.
template <bool kToWrite = false, typename T>
TFSEG_INLINE void PrefetchRow(const T* from, int64_t numbers) {
  const auto* byte = reinterpret_cast<const char*>(from);
  const int64_t bytes = numbers * static_cast<int64_t>(sizeof(T));
  for (int64_t at = 0; at < bytes; at += kLine) __builtin_prefetch(byte + at, kToWrite ? 1 : 0);
}

// --- Splat, blur, slice
// -------------------------------------------------------------------------

inline constexpr int64_t kPointsAhead = 24;
inline constexpr int64_t kBlurAhead = 6;  // vertices

// Where points are summed or read.
template <typename A>
struct Table {
  const Image* image;
  const A* scale;  // [points], a factor of the weights; or nullptr for ones
  A* numbers;      // [vertices + 1, stride]
};

// The part of a table that a thread fills.
template <typename A>
struct VertexRange {
  const int32_t* vertices;  // [points, corners]
  const float* weights;     // [points, corners]
  const A* scale;
  int64_t corners;
  uint32_t begin, size;  // vertices
  A* rows;               // of the table, from that of `begin` on

  VertexRange(const Table<A>& table, int64_t stride, int64_t first, int64_t last)
      : vertices(table.image->vertices),
        weights(table.image->weights),
        scale(table.scale),
        corners(table.image->corners),
        begin(static_cast<uint32_t>(first)),
        size(static_cast<uint32_t>(last - first)),
        rows(table.numbers + (first + 1) * stride) {}

  // Whether it has any vertex of points [from, to).
  bool HasAnyOf(int64_t from, int64_t to) const {
    uint32_t least = size;
    for (int64_t at = from * corners; at < to * corners; ++at) {
      least = std::min(least, static_cast<uint32_t>(vertices[at]) - begin);
    }
    return least < size;
  }
};

// The vertices of all tables one after the other, cut into `count` parts with as many points each,
// if the lattices' lists say so: the ranges of part `number`. Most threads have vertices of one
// lattice only, and need not look at the others.
template <typename A>
std::vector<VertexRange<A>> RangesOf(const std::vector<Table<A>>& tables, int64_t stride,
                                     int64_t number, int64_t count) {
  int64_t entries = 0, before = 0;
  for (const auto& table : tables) entries += table.image->entries();
  std::vector<VertexRange<A>> ranges;
  for (auto table = tables.rbegin(); table != tables.rend(); ++table) {
    const Image& image = *table->image;
    const int32_t* const offsets = image.splat_offsets;
    int64_t bounds[2] = {0, 0};
    for (int64_t k = 1; k <= number + 1; ++k) {
      const int64_t points = entries * k / count - before;
      int64_t vertex = image.num_vertices;
      if (points < image.entries()) {
        vertex = std::lower_bound(offsets, offsets + vertex, points) - offsets;
      }
      bounds[0] = bounds[1];
      bounds[1] = std::max(bounds[1], vertex);
    }
    before += image.entries();
    if (bounds[0] < bounds[1]) ranges.emplace_back(*table, stride, bounds[0], bounds[1]);
  }
  return ranges;
}

// Columns of a point that are added to several vertices: in registers, or, where kUnits is 0, in
// memory.
template <typename T, int kUnits>
class Summand {
  using A = AccumulatorOf<T>;
  using R = Registers<A, kUnits>;

 public:
  Summand(const Rows<T>& values, int64_t column, int64_t numbers)
      : values_(values), column_(column), wide_(values.Wide(column, numbers)) {}

  TFSEG_INLINE void Load(int64_t point) {
    row_ = LoadChunk<A, kUnits>(values_, point, column_, wide_);
  }
  TFSEG_INLINE void AddTo(A weight, A* to) const {
    for (int k = 0; k < R::kCount; ++k) {
      StoreVector<A>(LoadVector(to + k * R::kWidth) + weight * row_.v[k], to + k * R::kWidth);
    }
  }

 private:
  const Rows<T> values_;
  const int64_t column_, wide_;
  R row_;
};

template <typename T>
class Summand<T, 0> {
  using A = AccumulatorOf<T>;

 public:
  Summand(const Rows<T>& values, int64_t column, int64_t numbers)
      : values_(values), column_(column), numbers_(numbers), wide_(values.Wide(column, numbers)) {}

  TFSEG_INLINE void Load(int64_t point) {
    const T* from = values_.at(point) + column_;
    if (std::is_same_v<T, A> && point < wide_) {
      row_ = reinterpret_cast<const A*>(from);
      return;
    }
    const int64_t count = std::min(numbers_, values_.channels - column_);
    for (int64_t k = 0; k < count; k += kLanes) {
      LoadLanes(from + k, static_cast<int>(std::min<int64_t>(kLanes, count - k)), copy_ + k);
    }
    std::fill(copy_ + count, copy_ + numbers_, A(0));
    row_ = copy_;
  }
  TFSEG_INLINE void AddTo(A weight, A* to) const {
    for (int64_t k = 0; k < numbers_; k += VectorOf<A>::kWidth) {
      StoreVector<A>(LoadVector(to + k) + weight * LoadVector(row_ + k), to + k);
    }
  }

 private:
  const Rows<T> values_;
  const int64_t column_, numbers_, wide_;
  const A* row_ = nullptr;
  alignas(kLine) A copy_[kPartUnits * kUnit<A>];
};

// Adds points to the vertices of all ranges, times their weights and scales. Points are read in
// order and added to their vertices in the tables, which are few and near in the caches, rather
// than gathered for each vertex from all over the image.
template <typename T, int kUnits>
void SplatRanges(const Rows<T>& values, int64_t column, int64_t units, int64_t stride,
                 const std::vector<VertexRange<AccumulatorOf<T>>>& ranges) {
  using A = AccumulatorOf<T>;
  const int64_t numbers = (kUnits == 0 ? units : kUnits) * kUnit<A>;
  for (const auto& range : ranges) {
    for (int64_t vertex = 0; vertex < range.size; ++vertex) {
      A* const row = range.rows + vertex * stride + column;
      std::fill(row, row + numbers, A(0));
    }
  }
  Summand<T, kUnits> summand(values, column, numbers);
  constexpr int64_t kBlock = 16;  // points
  for (int64_t begin = 0; begin < values.points; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, values.points);
    bool first = true;
    for (const VertexRange<A>& range : ranges) {
      if (!range.HasAnyOf(begin, end)) continue;
      const uint32_t of_begin = range.begin, size = range.size;
      A* const rows = range.rows + column;
      ForCorners(range.corners, [&](auto known) {
        const int64_t corners = known() == 0 ? range.corners : known();
        for (int64_t point = begin; point < end; ++point) {
          // The processor's own prefetching ends with a page.
          if (first) {
            PrefetchRow(values.at(std::min(point + kPointsAhead, values.points - 1)) + column,
                        numbers);
          }
          summand.Load(point);
          const A factor = range.scale == nullptr ? A(1) : range.scale[point];
          const int32_t* vertices = range.vertices + point * corners;
          const float* weights = range.weights + point * corners;
          for (int64_t corner = 0; corner < corners; ++corner) {
            // The others are other threads'. Those that do not exist are found in Slice.
            const uint32_t vertex = static_cast<uint32_t>(vertices[corner]) - of_begin;
            if (vertex >= size) continue;
            summand.AddTo(static_cast<A>(weights[corner]) * factor, rows + vertex * stride);
          }
        }
      });
      first = false;
    }
  }
}

// All lattices at once: the values need not be read again for each.
template <typename T>
void Splat(const Context& context, const Rows<T>& values,
           const std::vector<Table<AccumulatorOf<T>>>& tables) {
  using A = AccumulatorOf<T>;
  if (tables.empty()) return;
  const Columns<A> columns{values.channels};
  const int64_t count = context.threads.NumThreads();
  int64_t corners = 0;
  for (const auto& table : tables) corners += table.image->corners;
  const int64_t cost = values.points * corners * columns.units() / count;
  ParallelFor(context.threads, count, cost, [&](int64_t from, int64_t to) {
    for (int64_t number = from; number < to; ++number) {
      const auto ranges = RangesOf(tables, columns.stride(), number, count);
      columns.ForParts([&](int64_t column, int64_t units, auto known) {
        SplatRanges<T, known()>(values, column, units, columns.stride(), ranges);
      });
    }
  });
}

// Along one axis, `units` of columns. `diagonal`, of each column, is a factor unless it is nullptr.
template <typename A, int kUnits>
void BlurVertices(const Image& image, int64_t axis, int64_t column, int64_t units,
                  const A* diagonal, int64_t begin, int64_t end, int64_t stride, const A* from,
                  A* to) {
  const int64_t numbers = (kUnits == 0 ? units : kUnits) * kUnit<A>;
  const int32_t* neighbours = image.neighbours + axis * image.bound * 2;
  const auto rows = static_cast<uint32_t>(image.num_vertices + 1);
  from += column;
  to += column;
  for (int64_t vertex = begin; vertex < end; ++vertex) {
    const int64_t later = std::min(vertex + kBlurAhead, end - 1);
    for (int side = 0; side < 2; ++side) {
      const uint32_t row = static_cast<uint32_t>(neighbours[2 * later + side]) + 1;
      if (row < rows) PrefetchRow(from + row * stride, numbers);
    }
    // Absent neighbours, -1, are the row of zeros.
    uint32_t row[2];
    for (int side = 0; side < 2; ++side) {
      row[side] = static_cast<uint32_t>(neighbours[2 * vertex + side]) + 1;
      if (row[side] >= rows) {
        const int64_t at = (image.b * image.corners + axis) * image.bound + vertex;
        image.Note(Fault::kNeighbour, 2 * at + side);
        row[side] = 0;
      }
    }
    const A *before = from + row[0] * stride, *after = from + row[1] * stride;
    const A* own = from + (vertex + 1) * stride;
    A* result = to + (vertex + 1) * stride;
    for (int64_t at = 0; at < numbers; at += VectorOf<A>::kWidth) {
      Vector<A> sum =
          LoadVector(own + at) + A(0.5) * (LoadVector(before + at) + LoadVector(after + at));
      if (diagonal != nullptr) sum *= LoadVector(diagonal + column + at);
      StoreVector<A>(sum, result + at);
    }
  }
}

// What is done to the channels of each vertex: either is nullptr.
template <typename A>
struct Mixing {
  const A* diagonal;  // [stride]
  const A* matrix;    // [channels, stride]: row m is what channel m gives to each
};

// rows[n] = sum over m of matrix[m, n] rows[m], for columns [column, column + width) of the result.
template <typename A, int kUnits>
void MixVertices(const Columns<A>& columns, int64_t column, const A* matrix, int64_t begin,
                 int64_t end, const A* from, A* to) {
  using R = Registers<A, kUnits>;
  constexpr int kVertices = 4;  // at once, which share the matrix's numbers
  const int64_t stride = columns.stride();
  for (int64_t vertex = begin; vertex < end; vertex += kVertices) {
    const A* rows[kVertices];
    int64_t at[kVertices];
    R sums[kVertices] = {};
    for (int n = 0; n < kVertices; ++n) {
      at[n] = (std::min(vertex + n, end - 1) + 1) * stride;
      rows[n] = from + at[n];
    }
    for (int64_t m = 0; m < columns.channels; ++m) {
      const A* row = matrix + m * stride + column;
      for (int k = 0; k < R::kCount; ++k) {
        const Vector<A> numbers = LoadVector(row + k * R::kWidth);
        for (int n = 0; n < kVertices; ++n) sums[n].v[k] += rows[n][m] * numbers;
      }
    }
    for (int n = 0; n < kVertices; ++n) {
      for (int k = 0; k < R::kCount; ++k) {
        StoreVector<A>(sums[n].v[k], to + at[n] + column + k * R::kWidth);
      }
    }
  }
}

// Blurs and mixes `*table`; `*spare` is as large, and they may change places.
template <typename A>
void BlurAndMix(const Context& context, const Image& image, const Columns<A>& columns, bool reverse,
                const Mixing<A>& mixing, A** table, A** spare) {
  const int64_t stride = columns.stride();
  std::fill(*table, *table + stride, A(0));
  std::fill(*spare, *spare + stride, A(0));
  for (int64_t step = 0; step < image.corners; ++step) {
    const int64_t axis = reverse ? image.corners - 1 - step : step;
    const A* diagonal = step == image.corners - 1 ? mixing.diagonal : nullptr;
    const A* from = *table;
    A* to = *spare;
    ParallelFor(context.threads, image.num_vertices, 4 + 2 * columns.units(),
                [&](int64_t begin, int64_t end) {
                  columns.ForParts([&](int64_t column, int64_t units, auto known) {
                    BlurVertices<A, known()>(image, axis, column, units, diagonal, begin, end,
                                             stride, from, to);
                  });
                });
    std::swap(*table, *spare);
  }
  if (mixing.matrix == nullptr) return;
  const A* from = *table;
  A* to = *spare;
  ParallelFor(context.threads, image.num_vertices, columns.channels * columns.units() / 2 + 4,
              [&](int64_t begin, int64_t end) {
                columns.template ForChunks<3>([&](int64_t column, auto units) {
                  MixVertices<A, units()>(columns, column, mixing.matrix, begin, end, from, to);
                });
              });
  std::swap(*table, *spare);
}

// SliceOnto with a number of corners that is known, or 0.
template <typename A, int kUnits, int kCorners>
TFSEG_INLINE void SliceCorners(const Table<A>& table, int64_t point, int64_t column, int64_t stride,
                               Registers<A, kUnits>* sums) {
  using R = Registers<A, kUnits>;
  const Image& image = *table.image;
  const int64_t corners = kCorners == 0 ? image.corners : kCorners;
  const int32_t* vertices = image.vertices + point * corners;
  const float* weights = image.weights + point * corners;
  const auto num_vertices = static_cast<uint32_t>(image.num_vertices);
  const A scale = table.scale == nullptr ? A(1) : table.scale[point];
  const A* first = table.numbers + stride + column;
  R own = *sums;  // the compiler would keep the caller's in memory
  for (int64_t corner = 0; corner < corners; ++corner) {
    const auto vertex = static_cast<uint32_t>(vertices[corner]);
    if (__builtin_expect(vertex >= num_vertices, false)) {
      return image.Note(Fault::kVertex, (image.b * image.points + point) * corners + corner);
    }
    const A weight = static_cast<A>(weights[corner]) * scale;
    const A* row = first + vertex * stride;
    for (int k = 0; k < R::kCount; ++k) own.v[k] += weight * LoadVector(row + k * R::kWidth);
  }
  *sums = own;
}

// Adds to `sums` what a point reads in a table's columns from `column` on.
template <typename A, int kUnits>
TFSEG_INLINE void SliceOnto(const Table<A>& table, int64_t point, int64_t column, int64_t stride,
                            Registers<A, kUnits>* sums) {
  ForCorners(table.image->corners, [&](auto known) __attribute__((always_inline)) {
    SliceCorners<A, kUnits, known()>(table, point, column, stride, sums);
  });
}

// --- Sums and largest of a row
// ------------------------------------------------------------------

template <typename A>
struct QuarterLine {
  typedef A type __attribute__((vector_size(16)));
};

// Folds the lanes of a unit, always in the same order: first the halves, then their halves.
template <typename A, typename Fn>
TFSEG_INLINE A Fold(const Vector<A> (&unit)[kRegisters], Fn&& fn) {
  using Q = typename QuarterLine<A>::type;
  Q lanes;
#if defined(__AVX2__)
  if constexpr (std::is_same_v<A, float>) {
    lanes = fn(reinterpret_cast<Q>(_mm256_castps256_ps128(unit[0])),
               reinterpret_cast<Q>(_mm256_extractf128_ps(unit[0], 1)));
  } else {
    lanes = fn(reinterpret_cast<Q>(_mm256_castpd256_pd128(unit[0])),
               reinterpret_cast<Q>(_mm256_extractf128_pd(unit[0], 1)));
  }
#else
  lanes = fn(unit[0], unit[1]);
#endif
  if constexpr (std::is_same_v<A, float>) {
    lanes = fn(lanes, Q{lanes[2], lanes[3], lanes[2], lanes[3]});
    lanes = fn(lanes, Q{lanes[1], lanes[1], lanes[1], lanes[1]});
  } else {
    lanes = fn(lanes, Q{lanes[1], lanes[1]});
  }
  return lanes[0];
}

}  // namespace tfseg::core::lattice_filter

#endif  // TFSEG_CORE_LATTICE_FILTER_H_
