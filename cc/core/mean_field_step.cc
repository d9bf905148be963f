#include "core/mean_field_step.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

#include "core/lattice_features_grad.h"
#include "core/lattice_filter.h"
#include "core/softmax_rows.h"

namespace tfseg::core::mean_field_step {
namespace {

using lattice_filter::Columns;
using lattice_filter::Faults;
using lattice_filter::FeaturesScratch;
using lattice_filter::Geometry;
using lattice_filter::Image;
using lattice_filter::kChunkUnits;
using lattice_filter::kRegisters;
using lattice_filter::kUnit;
using lattice_filter::LoadChunk;
using lattice_filter::Loss;
using lattice_filter::Mixing;
using lattice_filter::Registers;
using lattice_filter::Rows;
using lattice_filter::RowsOf;
using lattice_filter::SliceOnto;
using lattice_filter::SoftmaxRows;
using lattice_filter::StoreChunk;
using lattice_filter::Table;

constexpr char kOp[] = "mean_field_step";

Status Invalid(const std::string& message) {
  return Status::InvalidArgument(std::string(kOp) + ": " + message);
}

std::string NameOfLattice(size_t k) { return "lattices[" + std::to_string(k) + "]"; }

template <typename A>
Vector<A> SquareRoot(const Vector<A>& x) {
  Vector<A> root{};
  for (int lane = 0; lane < VectorOf<A>::kWidth; ++lane) root[lane] = std::sqrt(x[lane]);
  return root;
}
#if defined(__AVX2__)
template <>
Vector<float> SquareRoot<float>(const Vector<float>& x) {
  return reinterpret_cast<Vector<float>>(_mm256_sqrt_ps(reinterpret_cast<__m256>(x)));
}
#elif defined(__SSE2__)
template <>
Vector<float> SquareRoot<float>(const Vector<float>& x) {
  return reinterpret_cast<Vector<float>>(_mm_sqrt_ps(reinterpret_cast<__m128>(x)));
}
#endif

// The factor of a normalization, of points [begin, end).
template <typename A>
void Normalize(Normalization normalization, const float* norms, int64_t begin, int64_t end,
               A* factors) {
  constexpr int kWidth = VectorOf<A>::kWidth;
  const auto factor_of = [&](Vector<A> norm) {
    norm += A(1e-20);
    if (normalization == Normalization::kSymmetric) norm = SquareRoot<A>(norm);
    return A(1) / norm;
  };
  int64_t point = begin;
  for (; point + kWidth <= end; point += kWidth) {
    StoreVector<A>(factor_of(LoadVectorAs<A>(norms + point)), factors + point);
  }
  for (; point < end; ++point) {
    factors[point] = factor_of(Vector<A>{} + static_cast<A>(norms[point]))[0];
  }
}

// --- One step
// ------------------------------------------------------------------------------------

// What the directions of the op have in common. Images are taken one after the other, so that
// scratch memory is that of one.
template <typename T>
class Step {
 public:
  using A = AccumulatorOf<T>;

  Step(const Params& params, const Context& context, const Inputs& inputs,
       const std::vector<Geometry>& geometries, Faults* faults)
      : params_(params),
        context_(context),
        inputs_(inputs),
        geometries_(geometries),
        faults_(faults),
        batch_(inputs.q.shape[0]),
        points_(inputs.q.shape[1]),
        columns_{inputs.q.shape[2]} {
    for (size_t k = 0; k < geometries.size(); ++k) {
      most_vertices_ =
          std::max(most_vertices_, lattice_filter::MostVertices(inputs.lattices[k], geometries[k]));
    }
  }

  Status Forward(const Buffer& output) {
    TFSEG_RETURN_IF_ERROR(Allocate(num_lattices() + 1, false));
    for (int64_t b = 0; b < batch_ && !faults_->any(); ++b) {
      Begin(b);
      lattice_filter::Splat<T>(context_, RowsOf<T>(inputs_.q, b), Tables(b_));
      for (int64_t k = 0; k < num_lattices(); ++k) {
        lattice_filter::BlurAndMix<A>(context_, images_[k], columns_, false, mixing(k), &tables_[k],
                                      &tables_.back());
      }
      if (faults_->any()) break;
      T* to = output.As<T>() + b * points_ * columns_.channels;
      const Rows<T> unary = RowsOf<T>(inputs_.unary, b);
      const std::vector<Table<A>> tables = Tables(a_);
      if (columns_.units() > kChunkUnits) {
        FinishLongRows(tables, unary, to);
      } else {
        lattice_filter::ForUnits<kChunkUnits>(columns_.units(), [&](auto units) {
          ParallelFor(context_.threads, points_, SliceCost(), [&](int64_t begin, int64_t end) {
            FinishRows<units()>(tables, unary, begin, end, to);
          });
        });
      }
    }
    return Status::Ok();
  }

  Status Backward(const ConstBuffer& output, const ConstBuffer& grad, const Grads& grads) {
    const bool of_q = grads.q.data != nullptr, of_mixing = grads.mixing.data != nullptr;
    TFSEG_RETURN_IF_ERROR(Allocate(of_q || of_mixing ? num_lattices() + 2 : 0, of_mixing));
    T* const of_unary = grads.unary.As<T>();
    TFSEG_RETURN_IF_ERROR(AllocateUpstream(of_unary != nullptr));
    for (int64_t b = 0; b < batch_ && !faults_->any(); ++b) {
      Begin(b);
      T* unary = of_unary == nullptr ? nullptr : of_unary + b * points_ * columns_.channels;
      WithUpstream(output, grad, b, unary, [&](const auto& upstream) {
        if (!of_q && !of_mixing) return;
        lattice_filter::Splat(context_, upstream, Tables(a_));
        for (int64_t k = 0; k < num_lattices(); ++k) {
          DifferentiateLattice(k, b, of_q, of_mixing);
        }
      });
      if (!of_q || faults_->any()) continue;
      T* to = grads.q.As<T>() + b * points_ * columns_.channels;
      const std::vector<Table<A>> tables = Tables(b_);
      ParallelFor(context_.threads, points_, SliceCost(),
                  [&](int64_t begin, int64_t end) { SliceGrad(tables, begin, end, to); });
    }
    if (of_mixing) {
      A* to = grads.mixing.As<A>();
      for (int64_t k = 0; k < num_lattices() * mixing_size(); ++k) {
        to[k] = static_cast<A>(totals_[k]);
      }
    }
    return Status::Ok();
  }

  Status FeaturesGrad(const ConstBuffer& output, const ConstBuffer& grad,
                      const std::vector<Buffer>& grad_features) {
    TFSEG_RETURN_IF_ERROR(Allocate(0, false));
    TFSEG_RETURN_IF_ERROR(AllocateUpstream(false));
    int64_t most_dimensions = 0;
    for (const Geometry& g : geometries_) most_dimensions = std::max(most_dimensions, g.dimensions);
    FeaturesScratch<A> scratch;
    if (!scratch.Allocate(context_, points_, most_dimensions, most_vertices_, columns_.channels)) {
      return OutOfMemory();
    }
    for (int64_t b = 0; b < batch_ && !faults_->any(); ++b) {
      Begin(b);
      WithUpstream(output, grad, b, nullptr, [&](const auto& upstream) {
        for (int64_t k = 0; k < num_lattices(); ++k) {
          if (grad_features[k].data == nullptr) continue;
          DifferentiateFeatures(k, b, upstream, &scratch);
          const int64_t size = points_ * geometries_[k].dimensions;
          float* to = grad_features[k].template As<float>() + b * size;
          for (int64_t n = 0; n < size; ++n) to[n] = static_cast<float>(scratch.sums[n]);
        }
      });
    }
    return Status::Ok();
  }

 private:
  int64_t num_lattices() const { return static_cast<int64_t>(geometries_.size()); }
  // Numbers of the mixing of one lattice.
  int64_t mixing_size() const {
    return params_.diagonal ? columns_.channels : columns_.channels * columns_.channels;
  }
  // Of channels; nothing of the padding.
  const A* counts() const { return counts_ + columns_.stride() - kUnit<A>; }
  const A* plain(int64_t k) const { return plain_ + k * PlainStride(); }
  int64_t PlainStride() const {
    constexpr int64_t kOfPositions = 2 * kUnit<float>;  // kMostDimensions + 1 and more
    return std::max(columns_.stride(), kOfPositions);
  }
  // K's scale is part of it.
  Mixing<A> mixing(int64_t k) const { return MixingAt(forward_, k); }
  Mixing<A> transpose(int64_t k) const {
    return MixingAt(params_.diagonal ? forward_ : backward_, k);
  }
  Mixing<A> MixingAt(const A* memory, int64_t k) const {
    const int64_t rows = params_.diagonal ? 1 : columns_.channels;
    const A* own = memory + k * rows * columns_.stride();
    return params_.diagonal ? Mixing<A>{own, nullptr} : Mixing<A>{nullptr, own};
  }

  Status OutOfMemory() const {
    return Status::ResourceExhausted(std::string(kOp) + ": no memory for " +
                                     std::to_string(most_vertices_) + " vertices of " +
                                     std::to_string(columns_.channels) + " classes");
  }
  A* AllocateNumbers(int64_t numbers) {
    return static_cast<A*>(context_.workspace.Allocate(numbers * static_cast<int64_t>(sizeof(A))));
  }

  // `tables` of [most vertices + 1, stride]; `sums`: for the gradient of the mixing.
  Status Allocate(int64_t tables, bool sums) {
    const int64_t stride = columns_.stride(), channels = columns_.channels;
    const int64_t table_size = (most_vertices_ + 1) * stride;
    const int64_t of_mixing = num_lattices() * (params_.diagonal ? 1 : channels) * stride;
    const bool is_long = columns_.units() > kChunkUnits;
    const int64_t of_long_rows = is_long ? kLongBlocks * SoftmaxRows<A, 0>::kPoints : 0;
    const int64_t numbers = tables * table_size + num_lattices() * (points_ + PlainStride()) +
                            2 * of_mixing + (1 + of_long_rows) * stride;
    A* memory = AllocateNumbers(numbers);
    if (memory == nullptr) return OutOfMemory();
    HintHugePages(memory, numbers * static_cast<int64_t>(sizeof(A)));
    const auto take = [&](int64_t count) {
      A* const taken = memory;
      memory += count;
      return taken;
    };
    for (int64_t k = 0; k < tables; ++k) tables_.push_back(take(table_size));
    forward_ = take(of_mixing);
    backward_ = take(of_mixing);
    plain_ = take(num_lattices() * PlainStride());
    counts_ = take(stride);
    long_rows_ = take(of_long_rows * stride);
    factors_ = take(num_lattices() * points_);
    for (int64_t n = 0; n < stride; ++n) counts_[n] = A(n < channels);
    a_.assign(geometries_.size(), nullptr);
    b_ = a_;
    images_.reserve(geometries_.size());
    FillMixing();
    if (!sums) return Status::Ok();
    // So many parts depend on sizes alone.
    const int64_t part = (params_.diagonal ? 1 : channels) * stride;
    constexpr int64_t kMostNumbers = int64_t{1} << 19, kVerticesOfPart = 1024;
    num_parts_ =
        std::clamp<int64_t>(std::min(kMostNumbers / part, most_vertices_ / kVerticesOfPart), 1, 32);
    const int64_t total = num_lattices() * mixing_size();
    parts_ = static_cast<double*>(context_.workspace.Allocate((num_parts_ * part + total) * 8));
    if (parts_ == nullptr) return OutOfMemory();
    totals_ = parts_ + num_parts_ * part;
    std::fill(totals_, totals_ + total, 0.0);
    return Status::Ok();
  }

  void FillMixing() {
    const int64_t stride = columns_.stride(), channels = columns_.channels;
    const A* given = inputs_.mixing.template As<A>();
    for (int64_t k = 0; k < num_lattices(); ++k) {
      const A scale = lattice_filter::ScaleOf<A>(geometries_[k].dimensions);
      std::fill(plain_ + k * PlainStride(), plain_ + (k + 1) * PlainStride(), scale);
      const A* own = given + k * mixing_size();
      if (params_.diagonal) {
        for (int64_t m = 0; m < stride; ++m) {
          forward_[k * stride + m] = m < channels ? scale * own[m] : A(0);
        }
        continue;
      }
      for (int64_t m = 0; m < channels; ++m) {
        const int64_t row = (k * channels + m) * stride;
        for (int64_t l = 0; l < stride; ++l) {
          forward_[row + l] = l < channels ? scale * own[l * channels + m] : A(0);
          backward_[row + l] = l < channels ? scale * own[m * channels + l] : A(0);
        }
      }
    }
  }

  // The lattices of an image, and their factors.
  void Begin(int64_t b) {
    images_.clear();
    for (int64_t k = 0; k < num_lattices(); ++k) {
      images_.emplace_back(inputs_.lattices[k], geometries_[k], k, b, faults_);
      const Normalization normalization = params_.normalizations[k];
      const A* factors = factors_ + k * points_;
      const bool both = normalization == Normalization::kSymmetric;
      a_[k] = both || normalization == Normalization::kAfter ? factors : nullptr;
      b_[k] = both || normalization == Normalization::kBefore ? factors : nullptr;
    }
    ParallelFor(context_.threads, points_, 1 + num_lattices(), [&](int64_t begin, int64_t end) {
      for (int64_t k = 0; k < num_lattices(); ++k) {
        if (params_.normalizations[k] == Normalization::kNone) continue;
        Normalize(params_.normalizations[k], images_[k].norms, begin, end, factors_ + k * points_);
      }
    });
  }

  // Each lattice's own.
  std::vector<Table<A>> Tables(const std::vector<const A*>& scales) const {
    std::vector<Table<A>> tables;
    for (size_t k = 0; k < images_.size(); ++k) {
      tables.push_back({&images_[k], scales[k], tables_[k]});
    }
    return tables;
  }

  int64_t SliceCost() const {
    int64_t corners = 4;
    for (const Geometry& g : geometries_) corners += g.corners();
    return corners * columns_.units();
  }

  // Adds to `row` what a point reads in all tables.
  template <int kUnits>
  static TFSEG_INLINE void SliceAll(const std::vector<Table<A>>& tables, int64_t point,
                                    int64_t column, int64_t stride, Registers<A, kUnits>* row) {
    const Table<A>* table = tables.data();
    const Table<A>* const end = table + tables.size();
    for (; table < end; ++table) SliceOnto<A, kUnits>(*table, point, column, stride, row);
  }

  template <int kUnits>
  void FinishRows(const std::vector<Table<A>>& tables, const Rows<T>& unary, int64_t begin,
                  int64_t end, T* output) const {
    using Softmax = SoftmaxRows<A, kUnits>;
    constexpr int kNumbers = Registers<A, kUnits>::kNumbers;
    const int64_t channels = columns_.channels;
    const int64_t wide = unary.Wide(0, kNumbers);
    const A* const of_last_unit = counts();
    // What a whole chunk writes too much is the beginning of the next point, which comes after it.
    const int64_t last_whole = end * channels - kNumbers;
    const auto store = [&](int64_t point, const Registers<A, kUnits>& row) {
      const int64_t at = point * channels;
      StoreChunk<T, kUnits>(row, at <= last_whole ? kNumbers : channels, output + at);
    };
    if (params_.logits) {
      for (int64_t point = begin; point < end; ++point) {
        auto row = LoadChunk<A, kUnits>(unary, point, 0, wide);
        SliceAll<kUnits>(tables, point, 0, kNumbers, &row);
        store(point, row);
      }
      return;
    }
    alignas(kLine) A memory[Softmax::kPoints * kNumbers];
    Softmax softmax(memory, kNumbers);
    for (int64_t first = begin; first < end; first += Softmax::kPoints) {
      const int count = static_cast<int>(std::min<int64_t>(Softmax::kPoints, end - first));
      for (int n = 0; n < count; ++n) {
        // The processor's own prefetching ends with a page.
        const int64_t later = std::min(first + n + lattice_filter::kPointsAhead, points_ - 1);
        lattice_filter::PrefetchRow(unary.at(later), kNumbers);
        lattice_filter::PrefetchRow<true>(output + later * channels, kNumbers);
        auto row = LoadChunk<A, kUnits>(unary, first + n, 0, wide);
        SliceAll<kUnits>(tables, first + n, 0, kNumbers, &row);
        softmax.Put(n, of_last_unit, row);
      }
      softmax.Normalize(count);
      for (int n = 0; n < count; ++n) store(first + n, softmax.Get(n));
    }
  }

  // Rows that are too long for registers.
  void FinishLongRows(const std::vector<Table<A>>& tables, const Rows<T>& unary, T* output) const {
    using Softmax = SoftmaxRows<A, 0>;
    const int64_t block = (points_ + kLongBlocks - 1) / kLongBlocks;
    ParallelFor(context_.threads, kLongBlocks, block * SliceCost(), [&](int64_t from, int64_t to) {
      for (int64_t n = from; n < to; ++n) {
        Softmax softmax(long_rows_ + n * Softmax::kPoints * columns_.stride(), columns_.stride());
        const int64_t end = std::min(points_, (n + 1) * block);
        for (int64_t first = n * block; first < end; first += Softmax::kPoints) {
          const int count = static_cast<int>(std::min<int64_t>(Softmax::kPoints, end - first));
          for (int k = 0; k < count; ++k) {
            LongLogits(tables, unary, first + k, output, softmax.row(k));
            if (!params_.logits) softmax.Put(k, counts());
          }
          if (!params_.logits) softmax.Normalize(count);
          for (int k = 0; k < count; ++k) {
            const int64_t at = (first + k) * columns_.channels;
            StoreLongRow(softmax.row(k), params_.logits ? A(1) : softmax.scale[k],
                         at + columns_.stride() <= end * columns_.channels, output + at);
          }
        }
      }
    });
  }

  void LongLogits(const std::vector<Table<A>>& tables, const Rows<T>& unary, int64_t point,
                  const T* output, A* row) const {
    const int64_t later = std::min(point + kLongAhead, points_ - 1);
    const int64_t channels = columns_.channels;
    lattice_filter::PrefetchRow(unary.at(later), channels);
    lattice_filter::PrefetchRow<true>(output + later * channels, channels);
    // Twelve sums, a weight and what is read beside them are all that AVX2's 16 registers hold.
    columns_.template ForChunks<12>([&](int64_t column, auto units) {
      constexpr int kNumbers = Registers<A, units()>::kNumbers;
      auto logits = LoadChunk<A, units()>(unary, point, column, unary.Wide(column, kNumbers));
      SliceAll<units()>(tables, point, column, columns_.stride(), &logits);
      StoreChunk<A, units()>(logits, kNumbers, row + column);
    });
  }

  // Scales the row, too. `whole`: what its padding writes too much will be written again.
  void StoreLongRow(A* row, A scale, bool whole, T* to) const {
    for (int64_t k = 0; k < columns_.stride(); k += VectorOf<A>::kWidth) {
      const Vector<A> scaled = LoadVector(row + k) * scale;
      if constexpr (std::is_same_v<T, A>) {
        if (whole) {
          StoreVector<A>(scaled, to + k);
          continue;
        }
      }
      StoreVector<A>(scaled, row + k);
    }
    if (std::is_same_v<T, A> && whole) return;
    for (int64_t k = 0; k < columns_.channels; k += kLanes) {
      const int64_t count = std::min<int64_t>(kLanes, columns_.channels - k);
      StoreLanes(row + k, static_cast<int>(count), to + k);
    }
  }

  // --- Gradients

  // Where the gradient of the logits is kept: as the gradient of the unary, where that is wanted
  // and has the accumulator's dtype. The gradient of logits that are the output is the given one.
  Status AllocateUpstream(bool of_unary) {
    if (params_.logits || (of_unary && std::is_same_v<T, A>)) return Status::Ok();
    upstream_ = AllocateNumbers(points_ * columns_.channels + kUnit<A>);
    if (upstream_ == nullptr) return OutOfMemory();
    HintHugePages(upstream_, points_ * columns_.channels * static_cast<int64_t>(sizeof(A)));
    return Status::Ok();
  }

  // Calls fn(the gradient of the logits of image b), and writes it to `of_unary` unless that is
  // nullptr.
  template <typename Fn>
  void WithUpstream(const ConstBuffer& output, const ConstBuffer& grad, int64_t b, T* of_unary,
                    Fn&& fn) {
    const int64_t channels = columns_.channels, size = points_ * channels;
    const Rows<T> grads = RowsOf<T>(grad, b);
    if (params_.logits) {
      if (of_unary != nullptr) std::copy(grads.data, grads.data + size, of_unary);
      return fn(grads);
    }
    A* to = upstream_;
    int64_t readable = size + kUnit<A>;
    if constexpr (std::is_same_v<T, A>) {
      if (of_unary != nullptr) {
        to = of_unary;
        of_unary = nullptr;
        readable = grads.readable;
      }
    }
    ParallelFor(context_.threads, points_, 4 * columns_.units(), [&](int64_t begin, int64_t end) {
      DifferentiateSoftmax(RowsOf<T>(output, b), grads, begin, end, to);
      if (of_unary == nullptr) return;
      for (int64_t k = begin * channels; k < end * channels; k += kLanes) {
        const auto count = static_cast<int>(std::min<int64_t>(kLanes, end * channels - k));
        StoreLanes(to + k, count, of_unary + k);
      }
    });
    fn(Rows<A>{to, points_, channels, channels, readable});
  }

  void DifferentiateSoftmax(const Rows<T>& output, const Rows<T>& grad, int64_t begin, int64_t end,
                            A* to) const {
    using Unit = Registers<A, 1>;
    const int64_t channels = columns_.channels, stride = columns_.stride();
    for (int64_t point = begin; point < end; ++point) {
      Unit sums{};
      for (int64_t column = 0; column < stride; column += kUnit<A>) {
        const int64_t wide = output.Wide(column, kUnit<A>);
        const Unit p = LoadChunk<A, 1>(output, point, column, wide);
        const Unit g = LoadChunk<A, 1>(grad, point, column, wide);
        for (int r = 0; r < kRegisters; ++r) {
          const auto is_channel = LoadVector(counts_ + column + r * Unit::kWidth) != A(0);
          sums.v[r] += is_channel ? p.v[r] * g.v[r] : Vector<A>{};
        }
      }
      const A mean =
          lattice_filter::Fold<A>(sums.v, [](const auto& a, const auto& b) { return a + b; });
      for (int64_t column = 0; column < stride; column += kUnit<A>) {
        const int64_t wide = output.Wide(column, kUnit<A>);
        Unit p = LoadChunk<A, 1>(output, point, column, wide);
        const Unit g = LoadChunk<A, 1>(grad, point, column, wide);
        for (int r = 0; r < kRegisters; ++r) p.v[r] *= g.v[r] - mean;
        const int64_t at = point * channels + column;
        const bool whole = at + kUnit<A> <= end * channels;
        StoreChunk<A, 1>(p, whole ? kUnit<A> : channels - column, to + at);
      }
    }
  }

  // Given the splatted gradients in tables_[k], leaves there what those of the points are read
  // from.
  void DifferentiateLattice(int64_t k, int64_t b, bool of_q, bool of_mixing) {
    A*& own = tables_[k];
    A*& first = tables_[num_lattices()];
    A*& second = tables_[num_lattices() + 1];
    if (of_mixing) {
      lattice_filter::Splat<T>(context_, RowsOf<T>(inputs_.q, b), {{&images_[k], b_[k], first}});
      lattice_filter::BlurAndMix<A>(context_, images_[k], columns_, false, {plain(k), nullptr},
                                    &first, &second);
      AddMixingGrad(k, own, first);
    }
    if (!of_q) return;
    lattice_filter::BlurAndMix<A>(context_, images_[k], columns_, true, transpose(k), &own,
                                  &second);
  }

  // Slicing is the transpose of splatting, so that sums over points of the gradient times the
  // message are sums over vertices of the splatted gradient times the blurred values.
  void AddMixingGrad(int64_t k, const A* splatted, const A* blurred) {
    const int64_t vertices = images_[k].num_vertices, stride = columns_.stride();
    const int64_t rows = params_.diagonal ? 1 : columns_.channels;
    const int64_t cost = vertices / num_parts_ * columns_.units() * rows;
    ParallelFor(context_.threads, num_parts_, cost, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        double* sums = parts_ + part * rows * stride;
        std::fill(sums, sums + rows * stride, 0.0);
        const int64_t last = vertices * (part + 1) / num_parts_;
        constexpr int64_t kFlush = 64;  // vertices that are added in the accumulator's dtype
        for (int64_t vertex = vertices * part / num_parts_; vertex < last; vertex += kFlush) {
          const int64_t count = std::min(kFlush, last - vertex);
          const A* left = splatted + (vertex + 1) * stride;
          const A* right = blurred + (vertex + 1) * stride;
          if (params_.diagonal) {
            AddProducts(left, right, count, sums);
          } else {
            AddOuterProducts(left, right, count, sums);
          }
        }
      }
    });
    double* totals = totals_ + k * mixing_size();
    for (int64_t part = 0; part < num_parts_; ++part) {
      for (int64_t row = 0; row < rows; ++row) {
        const double* sums = parts_ + (part * rows + row) * stride;
        for (int64_t m = 0; m < columns_.channels; ++m) {
          totals[row * columns_.channels + m] += sums[m];
        }
      }
    }
  }

  void AddProducts(const A* left, const A* right, int64_t count, double* sums) const {
    const int64_t stride = columns_.stride();
    constexpr int kWidth = VectorOf<A>::kWidth;
    for (int64_t column = 0; column < stride; column += kWidth) {
      Vector<A> sum{};
      for (int64_t n = 0; n < count; ++n) {
        sum += LoadVector(left + n * stride + column) * LoadVector(right + n * stride + column);
      }
      for (int lane = 0; lane < kWidth; ++lane) {
        sums[column + lane] += static_cast<double>(sum[lane]);
      }
    }
  }

  void AddOuterProducts(const A* left, const A* right, int64_t count, double* sums) const {
    const int64_t stride = columns_.stride(), channels = columns_.channels;
    constexpr int kRows = 4;  // at once
    columns_.template ForChunks<3>([&](int64_t column, auto units) {
      using R = Registers<A, units()>;
      for (int64_t l = 0; l < channels; l += kRows) {
        R outer[kRows] = {};
        for (int64_t n = 0; n < count; ++n) {
          // Rows after the last channel are of padding, and left out below.
          const A* factors = left + n * stride + l;
          for (int i = 0; i < R::kCount; ++i) {
            const Vector<A> numbers = LoadVector(right + n * stride + column + i * R::kWidth);
            for (int row = 0; row < kRows; ++row) outer[row].v[i] += factors[row] * numbers;
          }
        }
        for (int row = 0; row < std::min<int64_t>(kRows, channels - l); ++row) {
          A lanes[R::kNumbers];
          StoreChunk<A, units()>(outer[row], R::kNumbers, lanes);
          double* to = sums + (l + row) * stride + column;
          for (int lane = 0; lane < R::kNumbers; ++lane)
            to[lane] += static_cast<double>(lanes[lane]);
        }
      }
    });
  }

  void SliceGrad(const std::vector<Table<A>>& tables, int64_t begin, int64_t end, T* to) const {
    const int64_t channels = columns_.channels, stride = columns_.stride();
    columns_.ForChunks([&](int64_t column, auto units) {
      using R = Registers<A, units()>;
      const int64_t count = std::min<int64_t>(R::kNumbers, channels - column);
      const int64_t last_whole =
          count == channels || count == R::kNumbers ? end * channels - R::kNumbers : -1;
      for (int64_t point = begin; point < end; ++point) {
        R sums{};
        SliceAll<units()>(tables, point, column, stride, &sums);
        const int64_t at = point * channels + column;
        StoreChunk<T, units()>(sums, at <= last_whole ? R::kNumbers : count, to + at);
      }
    });
  }

  template <typename U>
  void DifferentiateFeatures(int64_t k, int64_t b, const Rows<U>& upstream,
                             FeaturesScratch<A>* scratch) {
    const Image& image = images_[k];
    const Loss<U, T> loss{upstream,     a_[k], RowsOf<T>(inputs_.q, b), b_[k], mixing(k),
                          transpose(k), false};
    lattice_filter::FeaturesGradOf(context_, image, loss, scratch);
    const Normalization normalization = params_.normalizations[k];
    if (normalization == Normalization::kNone || faults_->any()) return;
    // The derivative by each norm n, of which a or b is 1 / n, or both are n^-1/2.
    A* z = scratch->scale;
    for (int64_t point = 0; point < points_; ++point) {
      const A of_a = scratch->totals[0][point], of_b = scratch->totals[1][point];
      const A factor = factors_[k * points_ + point];
      if (normalization == Normalization::kSymmetric) {
        z[point] = A(-0.5) * (factor * factor) * (of_a + of_b);
      } else {
        z[point] = -factor * (normalization == Normalization::kAfter ? of_a : of_b);
      }
    }
    lattice_filter::AddNormsFeaturesGradOf(context_, image, z, plain(k), scratch);
  }

  static constexpr int64_t kLongBlocks = 64;
  static constexpr int64_t kLongAhead = 16;  // points

  const Params& params_;
  const Context& context_;
  const Inputs& inputs_;
  const std::vector<Geometry>& geometries_;
  Faults* const faults_;
  const int64_t batch_, points_;
  const Columns<A> columns_;
  int64_t most_vertices_ = 0;

  std::vector<Image> images_;                    // of each lattice, as are:
  std::vector<const A*> a_, b_;                  // [points], or nullptr for ones
  std::vector<A*> tables_;                       // and spare ones
  A *forward_ = nullptr, *backward_ = nullptr;   // mixing: diagonals or matrices
  A* plain_ = nullptr;                           // the filter's scale, for each column
  A* counts_ = nullptr;                          // [stride]: 1 for channels
  A* long_rows_ = nullptr;                       // [kLongBlocks, 8 points, stride]
  A* factors_ = nullptr;                         // [lattices, points]
  A* upstream_ = nullptr;                        // [points, channels]
  double *parts_ = nullptr, *totals_ = nullptr;  // of the mixing's gradient
  int64_t num_parts_ = 1;
};

// --- Checks
// --------------------------------------------------------------------------------------

std::vector<Shape> FeatureShapes(const Inputs& inputs) {
  std::vector<Shape> shapes;
  for (const auto& lattice : inputs.lattices) shapes.push_back(lattice.features.shape);
  return shapes;
}

Status RequireLike(const char* argument, const Shape& shape, DType dtype, const Inputs& inputs) {
  Dim batch{"batch", inputs.q.shape[0]}, points{"points", inputs.q.shape[1]};
  Dim classes{"classes", inputs.q.shape[2]};
  ShapeChecker check(kOp);
  check.Require(argument, shape, {&batch, &points, &classes});
  TFSEG_RETURN_IF_ERROR(check.status());
  return RequireDType(kOp, argument, dtype, inputs.q.dtype);
}

// Checks, then calls fn(Step<T>&) unless there is nothing to compute.
template <typename Fn>
Status Run(const Params& params, const Context& context, const Inputs& inputs, Fn&& fn) {
  Shape output;
  TFSEG_RETURN_IF_ERROR(InferShape(params, inputs.q.shape, inputs.unary.shape, inputs.mixing.shape,
                                   FeatureShapes(inputs), &output));
  TFSEG_RETURN_IF_ERROR(RequireDType(kOp, "unary", inputs.unary.dtype, inputs.q.dtype));
  std::vector<Geometry> geometries(inputs.lattices.size());
  for (size_t k = 0; k < geometries.size(); ++k) {
    TFSEG_RETURN_IF_ERROR(permutohedral_lattice::CheckLattice(kOp, NameOfLattice(k),
                                                              inputs.lattices[k], &geometries[k]));
  }
  Faults faults;
  TFSEG_RETURN_IF_ERROR(DispatchFloat(kOp, "q", inputs.q.dtype, [&](auto value) {
    using T = typename decltype(value)::type;
    TFSEG_RETURN_IF_ERROR(RequireDType(kOp, "mixing", inputs.mixing.dtype, kAccumulatorDType<T>));
    if (inputs.q.shape.num_elements() == 0) return Status::Ok();
    Step<T> step(params, context, inputs, geometries, &faults);
    return fn(step);
  }));
  return faults.ToStatus(kOp, inputs.lattices.data(), true);
}

void HintHugePagesOf(const Buffer& buffer) {
  if (buffer.data == nullptr) return;
  HintHugePages(buffer.data, buffer.shape.num_elements() * SizeOf(buffer.dtype));
}

template <typename Number>
void FillZeros(const Buffer& buffer) {
  if (buffer.data == nullptr) return;
  std::fill(buffer.As<Number>(), buffer.As<Number>() + buffer.shape.num_elements(), Number(0));
}

}  // namespace

Status InferShape(const Params& params, const Shape& q, const Shape& unary, const Shape& mixing,
                  const std::vector<Shape>& features, Shape* output) {
  if (params.normalizations.size() != features.size()) {
    return Invalid("'normalizations' must be one for each of " + std::to_string(features.size()) +
                   " lattices, got " + std::to_string(params.normalizations.size()));
  }
  Dim batch{"batch"}, points{"points"}, classes{"classes"};
  Dim lattices{"lattices", static_cast<int64_t>(features.size())};
  ShapeChecker check(kOp);
  check.Require("q", q, {&batch, &points, &classes});
  check.Require("unary", unary, {&batch, &points, &classes});
  if (params.diagonal) {
    check.Require("mixing", mixing, {&lattices, &classes});
  } else {
    check.Require("mixing", mixing, {&lattices, &classes, &classes});
  }
  for (size_t k = 0; k < features.size(); ++k) {
    Dim dimensions{"dimensions"};
    const std::string name = NameOfLattice(k) + ".features";
    check.Require(name.c_str(), features[k], {&batch, &points, &dimensions});
  }
  *output = {batch.size, points.size, classes.size};
  return check.status();
}

Status Forward(const Params& params, const Context& context, const Inputs& inputs,
               const Buffer& output) {
  HintHugePagesOf(output);
  return Run(params, context, inputs, [&](auto& step) { return step.Forward(output); });
}

Status Backward(const Params& params, const Context& context, const Inputs& inputs,
                const ConstBuffer& output, const ConstBuffer& grad, const Grads& grads) {
  HintHugePagesOf(grads.q);
  HintHugePagesOf(grads.unary);
  // Where there are no points, it is that of nothing.
  if (inputs.mixing.dtype == DType::kFloat64) {
    FillZeros<double>(grads.mixing);
  } else {
    FillZeros<float>(grads.mixing);
  }
  return Run(params, context, inputs, [&](auto& step) {
    if (!params.logits) {
      TFSEG_RETURN_IF_ERROR(RequireLike("output", output.shape, output.dtype, inputs));
    }
    TFSEG_RETURN_IF_ERROR(RequireLike("grad", grad.shape, grad.dtype, inputs));
    return step.Backward(output, grad, grads);
  });
}

Status FeaturesGrad(const Params& params, const Context& context, const Inputs& inputs,
                    const ConstBuffer& output, const ConstBuffer& grad,
                    const std::vector<Buffer>& grad_features) {
  for (const Buffer& buffer : grad_features) FillZeros<float>(buffer);
  return Run(params, context, inputs, [&](auto& step) {
    if (!params.logits) {
      TFSEG_RETURN_IF_ERROR(RequireLike("output", output.shape, output.dtype, inputs));
    }
    TFSEG_RETURN_IF_ERROR(RequireLike("grad", grad.shape, grad.dtype, inputs));
    return step.FeaturesGrad(output, grad, grad_features);
  });
}

}  // namespace tfseg::core::mean_field_step
