#include "core/soft_dice_sums.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>

#include "core/first_error.h"
#include "core/simd.h"

namespace tfseg::core::soft_dice_sums {
namespace {

constexpr char kOp[] = "soft_dice_sums";

Status Invalid(const std::string& message) {
  return Status::InvalidArgument(std::string(kOp) + ": " + message);
}

// --- Tiles: the pixels of a few registers, class by class
// ------------------------------------------

// Sums over pixels are kept in so many lanes whatever a register's width, so that every instruction
// level adds in the same order.
constexpr int kSumLanes = 8;
constexpr int kMostLanes = 64;
constexpr int kTileNumbers = 4096;

// How many pixels a tile has: few enough for the first-level cache.
int LanesOf(int64_t classes) {
  const int64_t fitting = kTileNumbers / std::max<int64_t>(1, classes);
  return static_cast<int>(
      std::clamp<int64_t>(fitting / kSumLanes * kSumLanes, kSumLanes, kMostLanes));
}

#if defined(__AVX__)
// to[column][row] = from[row][column] of 8 by 8 numbers.
__attribute__((always_inline)) inline void Transpose8(const float* from, int64_t from_step,
                                                      float* to, int64_t to_step) {
  __m256 r[8], t[8];
  for (int k = 0; k < 8; ++k) r[k] = _mm256_loadu_ps(from + k * from_step);
  for (int k = 0; k < 8; k += 2) {
    t[k] = _mm256_unpacklo_ps(r[k], r[k + 1]);
    t[k + 1] = _mm256_unpackhi_ps(r[k], r[k + 1]);
  }
  for (int k = 0; k < 8; k += 4) {
    r[k] = _mm256_shuffle_ps(t[k], t[k + 2], 0x44);
    r[k + 1] = _mm256_shuffle_ps(t[k], t[k + 2], 0xee);
    r[k + 2] = _mm256_shuffle_ps(t[k + 1], t[k + 3], 0x44);
    r[k + 3] = _mm256_shuffle_ps(t[k + 1], t[k + 3], 0xee);
  }
  for (int k = 0; k < 4; ++k) {
    _mm256_storeu_ps(to + k * to_step, _mm256_permute2f128_ps(r[k], r[k + 4], 0x20));
    _mm256_storeu_ps(to + (k + 4) * to_step, _mm256_permute2f128_ps(r[k], r[k + 4], 0x31));
  }
}
#endif

// to[column][row] = from[row][column]; rows and columns of whatever number.
template <typename A>
void Transpose(const A* from, int64_t rows, int64_t columns, A* to) {
#if defined(__AVX__)
  if constexpr (std::is_same_v<A, float>) {
    if (rows >= 8 && columns >= 8) {
      // The last step is moved back where it would reach over the end: it does some twice.
      for (int64_t row = 0; row < rows; row += 8) {
        const int64_t y = std::min(row, rows - 8);
        for (int64_t column = 0; column < columns; column += 8) {
          const int64_t x = std::min(column, columns - 8);
          Transpose8(from + y * columns + x, columns, to + x * rows + y, rows);
        }
      }
      return;
    }
  }
#endif
  for (int64_t column = 0; column < columns; ++column) {
    for (int64_t row = 0; row < rows; ++row) to[column * rows + row] = from[row * columns + column];
  }
}

template <typename From, typename A>
void Convert(const void* from, int64_t first, int64_t count, A* to) {
  const From* numbers = static_cast<const From*>(from) + first;
  for (int64_t k = 0; k < count; ++k) {
    if constexpr (std::is_same_v<From, Half> || std::is_same_v<From, BFloat16>) {
      to[k] = static_cast<float>(numbers[k]);
    } else {
      to[k] = static_cast<A>(numbers[k]);
    }
  }
}

// Targets of any dtype as A.
template <typename A>
void ConvertTargets(const ConstBuffer& labels, int64_t first, int64_t count, A* to) {
#define TFSEG_CASE(enumerator, type, name) \
  case DType::enumerator:                  \
    return Convert<type>(labels.data, first, count, to);
  switch (labels.dtype) {
    TFSEG_FLOAT_DTYPES(TFSEG_CASE)
    TFSEG_INDEX_DTYPES(TFSEG_CASE)
    TFSEG_BYTE_DTYPES(TFSEG_CASE)
    default:
      return;  // refused before
  }
#undef TFSEG_CASE
}

int64_t LabelAt(const ConstBuffer& labels, int64_t pixel) {
  switch (labels.dtype) {
    case DType::kUInt8:
      return labels.As<uint8_t>()[pixel];
    case DType::kInt32:
      return labels.As<int32_t>()[pixel];
    default:
      return labels.As<int64_t>()[pixel];
  }
}

// Loads tiles and turns their logits into probabilities. Rows are classes, lanes are pixels.
template <typename T>
class Tile {
  using A = AccumulatorOf<T>;
  static constexpr int kWidth = VectorOf<A>::kWidth;

 public:
  using V = Vector<A>;

  // Numbers of scratch memory beyond the object's own.
  static int64_t ScratchNumbers(int64_t classes) {
    const int64_t numbers = LanesOf(classes) * classes;
    return numbers <= kTileNumbers ? 0 : 3 * numbers;
  }

  Tile(const Params& params, const Geometry& g, const Inputs& inputs, A* scratch, FirstError* error)
      : params_(params),
        g_(g),
        inputs_(inputs),
        error_(error),
        lanes_(LanesOf(g.classes)),
        sparse_(params.activation == Activation::kSoftmax && !params.dense) {
    const int64_t numbers = lanes_ * g.classes;
    A* memory = numbers <= kTileNumbers ? own_ : scratch;
    p_ = memory;
    targets_ = memory + numbers;
    stage_ = memory + 2 * numbers;
  }

  int lanes() const { return lanes_; }
  bool sparse() const { return sparse_; }  // labels() instead of targets()
  int count() const { return count_; }     // of the lanes that are pixels
  const A* weights() const { return weights_; }
  const int32_t* labels() const { return labels_; }
  // Times scale() it is the probability.
  A* p(int64_t c) { return p_ + c * lanes_; }
  const A* scale() const { return scale_; }
  const A* targets(int64_t c) const { return targets_ + c * lanes_; }
  // Of each pixel: its cross entropy and its divisor, without the pixel's weight.
  const A* entropy() const { return entropy_; }
  const A* shares() const { return shares_; }
  A* stage() { return stage_; }

  A class_weight(int64_t c) const {
    return params_.has_class_weights ? inputs_.class_weights.As<A>()[c] : A(1);
  }

  // Pixels [first, first + count) of image b.
  void Load(int64_t b, int64_t first, int count) {
    count_ = count;
    LoadWeightsAndLabels(b * g_.pixels + first);
    const T* logits = inputs_.logits.template As<T>() + (b * g_.pixels + first) * g_.classes;
    const int64_t numbers = count * g_.classes;
    if (std::is_same_v<T, A> && count == lanes_) {
      Transpose(reinterpret_cast<const A*>(logits), lanes_, g_.classes, p_);
    } else {
      for (int64_t k = 0; k < numbers; k += kLanes) {
        LoadLanes(logits + k, static_cast<int>(std::min<int64_t>(kLanes, numbers - k)), stage_ + k);
      }
      std::fill(stage_ + numbers, stage_ + lanes_ * g_.classes, A(0));
      Transpose(stage_, lanes_, g_.classes, p_);
    }
    if (!sparse_) LoadTargets(b * g_.pixels + first);
    if (params_.activation != Activation::kSoftmax) std::fill(scale_, scale_ + lanes_, A(1));
    if (any_left_out_) {
      ForVectors([&](int k) {
        const V w = LoadVector(weights_ + k);
        for (int64_t c = 0; c < g_.classes; ++c) {
          StoreVector<A>(w != A(0) ? LoadVector(p(c) + k) : V{}, p(c) + k);
          if (sparse_) continue;
          A* target = targets_ + c * lanes_ + k;
          StoreVector<A>(w != A(0) ? LoadVector(target) : V{}, target);
        }
      });
    }
    switch (params_.activation) {
      case Activation::kSoftmax:
        return sparse_ ? Softmax<true>(logits) : Softmax<false>(logits);
      case Activation::kSigmoid:
        return Sigmoid();
      case Activation::kNone:
        return Probabilities();
    }
  }

  template <typename Fn>
  void ForVectors(Fn&& fn) {
    for (int k = 0; k < lanes_; k += kWidth) fn(k);
  }

 private:
  void LoadWeightsAndLabels(int64_t first) {
    any_left_out_ = count_ < lanes_;
    for (int lane = 0; lane < lanes_; ++lane) {
      labels_[lane] = 0;
      weights_[lane] = lane < count_ ? A(1) : A(0);
    }
    if (params_.has_weights) {
      memcpy(weights_, inputs_.weights.template As<A>() + first, sizeof(A) * count_);
    }
    if (!params_.dense) {
      // Its dtype has been checked.
      (void)DispatchLabel(kOp, "labels", inputs_.labels.dtype, [&](auto label) {
        LoadLabels(inputs_.labels.template As<typename decltype(label)::type>() + first, first);
        return Status::Ok();
      });
    }
    for (int lane = 0; params_.has_weights && lane < count_; ++lane) {
      any_left_out_ = any_left_out_ || weights_[lane] == A(0);
    }
  }

  template <typename Label>
  void LoadLabels(const Label* labels, int64_t first) {
    const int64_t limit = NumLabels(params_, g_.classes);
    for (int lane = 0; lane < count_; ++lane) {
      const int64_t label = labels[lane];
      const bool ignored = params_.has_ignore_label && label == params_.ignore_label;
      if (label >= 0 && label < limit && !ignored) {
        labels_[lane] = static_cast<int32_t>(label);
        continue;
      }
      if (!ignored) error_->Note(first + lane);
      weights_[lane] = A(0);
      any_left_out_ = true;
    }
  }

  void LoadTargets(int64_t first) {
    if (params_.dense) {
      ConvertTargets(inputs_.labels, first * g_.classes, count_ * g_.classes, stage_);
      std::fill(stage_ + count_ * g_.classes, stage_ + lanes_ * g_.classes, A(0));
      return Transpose(stage_, lanes_, g_.classes, targets_);
    }
    std::fill(targets_, targets_ + lanes_ * g_.classes, A(0));
    for (int lane = 0; lane < count_; ++lane) {
      if (g_.classes == 1) {
        targets_[lane] = static_cast<A>(labels_[lane]);
      } else {
        targets_[labels_[lane] * lanes_ + lane] = A(1);
      }
    }
  }

  static V Clamped(const V& logit) {
    constexpr A kLargest = kLargestLogit;
    // NaN passes through both.
    const V upper = logit > kLargest ? V{} + kLargest : logit;
    return upper < -kLargest ? V{} - kLargest : upper;
  }

  template <bool kSparse>
  void Softmax(const T* logits) {
    const int64_t classes = g_.classes, step = lanes_;
    if (kSparse) {
      for (int lane = 0; lane < count_; ++lane) {
        const int32_t label = labels_[lane];
        own_logits_[lane] = static_cast<A>(logits[lane * classes + label]);
        shares_[lane] = class_weight(label);
      }
      for (int lane = 0; any_left_out_ && lane < lanes_; ++lane) {
        if (weights_[lane] == A(0)) own_logits_[lane] = shares_[lane] = A(0);
      }
    }
    ForVectors([&](int k) {
      A* const row = p_ + k;
      V largest = LoadVector(row);
      V smallest = largest;
      for (int64_t c = 1; c < classes; ++c) {
        const V logit = LoadVector(row + c * step);
        largest = logit > largest ? logit : largest;
        if (!kSparse) smallest = logit < smallest ? logit : smallest;
      }
      // A NaN in the first class stays; one in another class makes its own probability NaN.
      const auto common = (largest <= A(kLargestLogit)) & (smallest >= A(-kLargestLogit));
      if (!AllSet<A>(reinterpret_cast<V>(common))) {
        for (int64_t c = 0; c < classes; ++c) {
          StoreVector<A>(Clamped(LoadVector(row + c * step)), row + c * step);
        }
        largest = Clamped(largest);
      }
      V sum{}, counted{}, weighted{};
      for (int64_t c = 0; c < classes; ++c) {
        const V distance = LoadVector(row + c * step) - largest;
        const V e = ExpOfNegative(distance);
        StoreVector<A>(e, row + c * step);
        sum += e;
        if (kSparse) continue;
        const V share = LoadVector(targets(c) + k) * class_weight(c);
        counted += share;
        weighted += share * distance;
      }
      StoreVector<A>(A(1) / sum, scale_ + k);
      const V log_sum = LogOfNormal(sum);
      if (kSparse) {
        const V distance = Clamped(LoadVector(own_logits_ + k)) - largest;
        StoreVector<A>(LoadVector(shares_ + k) * (log_sum - distance), entropy_ + k);
      } else {
        StoreVector<A>(counted * log_sum - weighted, entropy_ + k);
        StoreVector<A>(counted, shares_ + k);
      }
    });
  }

  void Sigmoid() {
    ForVectors([&](int k) {
      V entropy{};
      A shares = 0;
      for (int64_t c = 0; c < g_.classes; ++c) {
        const V logit = Clamped(LoadVector(p(c) + k));
        const V target = LoadVector(targets(c) + k);
        const V size = logit < A(0) ? -logit : logit;
        const V e = ExpOfNegative(-size);
        const V of_size = A(1) / (A(1) + e);
        StoreVector<A>(logit < A(0) ? e * of_size : of_size, p(c) + k);
        const V positive = logit < A(0) ? V{} : logit;
        // log(1 + e) to its last bit is of no use beside the larger terms.
        const V h = (positive - logit * target) + LogOfNormal(A(1) + e);
        entropy += h * class_weight(c);
        shares += class_weight(c);
      }
      StoreVector<A>(entropy, entropy_ + k);
      StoreVector<A>(V{} + shares, shares_ + k);
    });
  }

  void Probabilities() {
    constexpr A kSmallest = kSmallestProbability;
    const auto log_of = [](const V& probability) {
      return LogOfNormal(probability < kSmallest ? V{} + kSmallest : probability);
    };
    const bool binary = IsBinary(params_, g_.classes);
    ForVectors([&](int k) {
      V entropy{}, shares{};
      for (int64_t c = 0; c < g_.classes; ++c) {
        const V probability = Clamped(LoadVector(p(c) + k));
        const V target = LoadVector(targets(c) + k);
        StoreVector<A>(probability, p(c) + k);
        V h = -(target * log_of(probability));
        if (binary) h -= (A(1) - target) * log_of(A(1) - probability);
        entropy += h * class_weight(c);
        shares += binary ? V{} + class_weight(c) : target * class_weight(c);
      }
      StoreVector<A>(entropy, entropy_ + k);
      StoreVector<A>(shares, shares_ + k);
    });
  }

  const Params& params_;
  const Geometry& g_;
  const Inputs& inputs_;
  FirstError* error_;
  const int lanes_;
  const bool sparse_;
  int count_ = 0;
  bool any_left_out_ = false;
  A* p_;        // [classes, lanes]
  A* targets_;  // [classes, lanes]
  A* stage_;    // [lanes, classes]
  int32_t labels_[kMostLanes];
  A weights_[kMostLanes], scale_[kMostLanes];
  A entropy_[kMostLanes], shares_[kMostLanes], own_logits_[kMostLanes];
  alignas(kLine) A own_[3 * kTileNumbers];
};

// --- Blocks: parts of an image whose sums are kept apart
// -------------------------------------------

struct Blocks {
  int64_t per_image;  // depends on sizes alone, never on threads
  int64_t lanes;
  int64_t pixels;  // of an image

  int64_t begin(int64_t block) const {
    const int64_t tiles = (pixels + lanes - 1) / lanes;
    return std::min(pixels, tiles * block / per_image * lanes);
  }
};

Blocks BlocksOf(const Geometry& g, int64_t bytes_per_block) {
  constexpr int64_t kScratch = 512 << 10;
  constexpr int64_t kSmallestBlock = 1 << 16;  // numbers
  const int64_t affordable = kScratch / (bytes_per_block * std::max<int64_t>(1, g.batch));
  const int64_t worthwhile = g.pixels * g.classes / kSmallestBlock;
  return {std::clamp<int64_t>(std::min(affordable, worthwhile), 1, 64), LanesOf(g.classes),
          g.pixels};
}

// Sums of one block, in doubles so that no image is too large: intersection, prediction and target
// of each class, cross entropy and divisor.
template <typename T>
void SumBlock(const Params& params, const Geometry& g, Tile<T>* tile, int64_t b, int64_t begin,
              int64_t end,
              double* sums,               // [3 * classes + 2]
              AccumulatorOf<T>* in_lanes  // [3 * classes + 2, kSumLanes]
) {
  using A = AccumulatorOf<T>;
  using V = Vector<A>;
  constexpr int kWidth = VectorOf<A>::kWidth;
  constexpr int64_t kFlush = 4096;  // pixels that single lanes add up
  const int64_t classes = g.classes, size = 3 * classes + 2;
  const int lanes = tile->lanes();
  std::fill(sums, sums + size, 0.0);
  std::fill(in_lanes, in_lanes + size * kSumLanes, A(0));
  const auto flush = [&] {
    for (int64_t n = 0; n < size; ++n) {
      for (int lane = 0; lane < kSumLanes; ++lane) {
        sums[n] += static_cast<double>(in_lanes[n * kSumLanes + lane]);
        in_lanes[n * kSumLanes + lane] = A(0);
      }
    }
  };
  // Adds fn(k), for the lanes from k on, to sum number n.
  const auto add = [&](int64_t n, auto&& fn) {
    for (int j = 0; j < kSumLanes; j += kWidth) {
      A* to = in_lanes + n * kSumLanes + j;
      V sum = LoadVector(to);
      for (int k = j; k < lanes; k += kSumLanes) sum += fn(k);
      StoreVector<A>(sum, to);
    }
  };
  int64_t unflushed = 0;
  A weighted_scale[kMostLanes];
  for (int64_t first = begin; first < end; first += lanes) {
    const int count = static_cast<int>(std::min<int64_t>(lanes, end - first));
    tile->Load(b, first, count);
    const A* weights = tile->weights();
    tile->ForVectors([&](int k) {
      StoreVector<A>(LoadVector(weights + k) * LoadVector(tile->scale() + k), weighted_scale + k);
    });
    const auto weighted = [&](const A* values) {
      return [=](int k) -> V { return LoadVector(values + k) * LoadVector(weights + k); };
    };
    add(3 * classes, weighted(tile->entropy()));
    add(3 * classes + 1, weighted(tile->shares()));
    for (int lane = 0; tile->sparse() && lane < count; ++lane) {
      const int64_t label = tile->labels()[lane];
      sums[label] += static_cast<double>(tile->p(label)[lane] * weighted_scale[lane]);
      sums[2 * classes + label] += static_cast<double>(weights[lane]);
    }
    for (int64_t c = 0; c < classes; ++c) {
      const A* p = tile->p(c);
      if (params.power == 1) {
        add(classes + c,
            [&](int k) -> V { return LoadVector(p + k) * LoadVector(weighted_scale + k); });
      } else {
        add(classes + c, [&](int k) -> V {
          const V scaled = LoadVector(p + k) * LoadVector(tile->scale() + k);
          return scaled * scaled * LoadVector(weights + k);
        });
      }
      if (tile->sparse()) continue;
      const A* target = tile->targets(c);
      add(c, [&](int k) -> V {
        return LoadVector(target + k) * (LoadVector(p + k) * LoadVector(weighted_scale + k));
      });
      add(2 * classes + c, [&](int k) -> V {
        const V of_class = LoadVector(target + k);
        const V w = LoadVector(weights + k);
        return params.power == 1 ? of_class * w : of_class * of_class * w;
      });
    }
    unflushed += count;
    if (unflushed >= kFlush) {
      flush();
      unflushed = 0;
    }
  }
  flush();
}

template <typename T>
Status Sum(const Params& params, const Geometry& g, const Context& context, const Inputs& inputs,
           const Sums& out, FirstError* error) {
  using A = AccumulatorOf<T>;
  const int64_t classes = g.classes;
  const int64_t size = 3 * classes + 2;  // sums of a block
  const int64_t numbers = Tile<T>::ScratchNumbers(classes) + size * kSumLanes;
  const int64_t bytes =
      size * static_cast<int64_t>(sizeof(double)) + numbers * static_cast<int64_t>(sizeof(A));
  const Blocks blocks = BlocksOf(g, bytes);
  const int64_t num_blocks = g.batch * blocks.per_image;
  auto* sums = static_cast<double*>(context.workspace.Allocate(num_blocks * size * 8));
  auto* scratch = static_cast<A*>(
      context.workspace.Allocate(num_blocks * numbers * static_cast<int64_t>(sizeof(A))));
  if (sums == nullptr || scratch == nullptr) {
    return Status::ResourceExhausted(std::string(kOp) + ": no memory for sums of " +
                                     std::to_string(classes) + " classes");
  }
  const int64_t cost = g.pixels * classes / blocks.per_image;
  ParallelFor(context.threads, num_blocks, cost, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      A* own = scratch + block * numbers;
      Tile<T> tile(params, g, inputs, own + size * kSumLanes, error);
      const int64_t b = block / blocks.per_image, part = block % blocks.per_image;
      SumBlock<T>(params, g, &tile, b, blocks.begin(part), blocks.begin(part + 1),
                  sums + block * size, own);
    }
  });
  A* const of_classes[3] = {out.intersection.As<A>(), out.prediction.As<A>(), out.target.As<A>()};
  const auto total = [&](int64_t b, int64_t n) {
    double sum = 0;
    for (int64_t part = 0; part < blocks.per_image; ++part) {
      sum += sums[(b * blocks.per_image + part) * size + n];
    }
    return static_cast<A>(sum);
  };
  for (int64_t b = 0; b < g.batch; ++b) {
    out.cross_entropy.As<A>()[b] = total(b, 3 * classes);
    out.weight_sum.As<A>()[b] = total(b, 3 * classes + 1);
    for (int n = 0; n < 3; ++n) {
      for (int64_t c = 0; c < classes; ++c) {
        of_classes[n][b * classes + c] = total(b, n * classes + c);
      }
    }
  }
  return Status::Ok();
}

// --- Backward ----------------------------------------------------------------------------------

// Turns a tile's probabilities into the gradient of its logits, in place.
template <typename T>
void Differentiate(const Params& params, const Geometry& g, Tile<T>* tile,
                   const AccumulatorOf<T>* of_intersection,  // [classes]
                   const AccumulatorOf<T>* of_prediction,    // [classes]
                   AccumulatorOf<T> of_entropy) {
  using A = AccumulatorOf<T>;
  using V = Vector<A>;
  const int64_t classes = g.classes;
  const bool binary = IsBinary(params, classes);
  const auto slope = [&](int64_t c, const V& p) {
    return params.power == 2 ? p * (A(2) * of_prediction[c]) : V{} + of_prediction[c];
  };
  A label_p[kMostLanes], of_label[kMostLanes];
  for (int lane = 0; tile->sparse() && lane < tile->lanes(); ++lane) {
    const int64_t label = tile->labels()[lane];
    label_p[lane] = tile->p(label)[lane] * tile->scale()[lane];
    of_label[lane] = of_intersection[label] * label_p[lane];
  }
  tile->ForVectors([&](int k) {
    const V w = LoadVector(tile->weights() + k);
    if (params.activation == Activation::kSoftmax) {
      const V scale = LoadVector(tile->scale() + k);
      V mean = tile->sparse() ? LoadVector(of_label + k) : V{};
      for (int64_t c = 0; c < classes; ++c) {
        const V p = LoadVector(tile->p(c) + k) * scale;
        StoreVector<A>(p, tile->p(c) + k);
        V by_p = slope(c, p);
        if (!tile->sparse()) by_p += LoadVector(tile->targets(c) + k) * of_intersection[c];
        mean += by_p * p;
      }
      const V entropy = LoadVector(tile->shares() + k) * of_entropy;
      for (int64_t c = 0; c < classes; ++c) {
        const V p = LoadVector(tile->p(c) + k);
        V by_p = slope(c, p) - mean + entropy;
        V by_logit = by_p * p;
        if (!tile->sparse()) {
          const V target = LoadVector(tile->targets(c) + k);
          by_logit += target * (p * of_intersection[c] - of_entropy * tile->class_weight(c));
        }
        StoreVector<A>(by_logit * w, tile->p(c) + k);
      }
      return;
    }
    for (int64_t c = 0; c < classes; ++c) {
      const V p = LoadVector(tile->p(c) + k);
      const V target = LoadVector(tile->targets(c) + k);
      const V by_p = slope(c, p) + target * of_intersection[c];
      const A entropy = of_entropy * tile->class_weight(c);
      V by_logit;
      if (params.activation == Activation::kSigmoid) {
        by_logit = by_p * (p * (A(1) - p)) + (p - target) * entropy;
      } else {
        constexpr A kSmallest = kSmallestProbability;
        const V q = A(1) - p;
        by_logit = by_p - (p < kSmallest ? V{} : target * entropy / p);
        if (binary) by_logit += q < kSmallest ? V{} : (A(1) - target) * entropy / q;
      }
      StoreVector<A>(by_logit * w, tile->p(c) + k);
    }
  });
  if (!tile->sparse()) return;
  for (int lane = 0; lane < tile->count(); ++lane) {
    const int64_t label = tile->labels()[lane];
    tile->p(label)[lane] += tile->weights()[lane] * (of_intersection[label] * label_p[lane] -
                                                     of_entropy * tile->shares()[lane]);
  }
}

// Writes a tile's numbers, past the caches where that pays.
template <typename T>
void Write(const AccumulatorOf<T>* from, int64_t count, bool large, T* to) {
  const bool stream = large && reinterpret_cast<uintptr_t>(to) % kLine == 0;
  for (int64_t k = 0; k < count; k += kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes, count - k));
    if (!stream || lanes < kLanes) {
      StoreLanes(from + k, lanes, to + k);
    } else if constexpr (std::is_same_v<T, AccumulatorOf<T>>) {
      StreamLines<kLanes>(from + k, to + k);
    } else {
      T narrow[kLanes];
      StoreLanes(from + k, kLanes, narrow);
      StreamLines<kLanes>(narrow, to + k);
    }
  }
}

template <typename T>
Status DifferentiateAll(const Params& params, const Geometry& g, const Context& context,
                        const Inputs& inputs, const SumsGrad& grad, const Buffer& grad_logits,
                        FirstError* error) {
  using A = AccumulatorOf<T>;
  const int64_t classes = g.classes;
  const int64_t numbers = Tile<T>::ScratchNumbers(classes);
  const Blocks blocks = BlocksOf(g, numbers * static_cast<int64_t>(sizeof(A)) + 1);
  const int64_t num_blocks = g.batch * blocks.per_image;
  auto* scratch = static_cast<A*>(
      context.workspace.Allocate(num_blocks * numbers * static_cast<int64_t>(sizeof(A))));
  if (scratch == nullptr) {
    return Status::ResourceExhausted(std::string(kOp) + ": no memory for tiles of " +
                                     std::to_string(classes) + " classes");
  }
  const bool large = WorthStreaming(
      grad_logits.data, g.batch * g.pixels * classes * SizeOf(grad_logits.dtype), kLine);
  const int64_t cost = 2 * g.pixels * classes / blocks.per_image;
  ParallelFor(context.threads, num_blocks, cost, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      Tile<T> tile(params, g, inputs, scratch + block * numbers, error);
      const int64_t b = block / blocks.per_image, part = block % blocks.per_image;
      const int64_t last = blocks.begin(part + 1);
      for (int64_t first = blocks.begin(part); first < last; first += tile.lanes()) {
        const int count = static_cast<int>(std::min<int64_t>(tile.lanes(), last - first));
        tile.Load(b, first, count);
        Differentiate<T>(params, g, &tile, grad.intersection.As<A>() + b * classes,
                         grad.prediction.As<A>() + b * classes, grad.cross_entropy.As<A>()[b]);
        Transpose<A>(tile.p(0), classes, tile.lanes(), tile.stage());
        T* to = grad_logits.As<T>() + (b * g.pixels + first) * classes;
        Write(tile.stage(), count * classes, large, to);
      }
    }
    StreamFence();
  });
  return Status::Ok();
}

// --- Checks --------------------------------------------------------------------------------------

// All dimensions but the last, which is that of the classes.
Shape PixelsOf(const Shape& logits) {
  if (!logits.has_rank()) return logits;
  Shape shape = Shape::OfRank(logits.rank() - 1);
  for (int axis = 0; axis < shape.rank(); ++axis) shape.set(axis, logits[axis]);
  return shape;
}

Status RequireSame(const char* argument, const Shape& shape, const Shape& wanted) {
  if (!shape.has_rank() || !wanted.has_rank()) return Status::Ok();
  bool same = shape.rank() == wanted.rank();
  for (int axis = 0; same && axis < shape.rank(); ++axis) {
    same = shape[axis] == kUnknown || wanted[axis] == kUnknown || shape[axis] == wanted[axis];
  }
  if (same) return Status::Ok();
  return Invalid(std::string("'") + argument + "' must have shape " + wanted.ToString() + ", got " +
                 shape.ToString());
}

Geometry GeometryOf(const Shape& logits) {
  Geometry g{logits[0], 1, logits[logits.rank() - 1]};
  for (int axis = 1; axis < logits.rank() - 1; ++axis) g.pixels *= logits[axis];
  return g;
}

Status Check(const Params& params, const Inputs& inputs) {
  Shape sums, totals;
  TFSEG_RETURN_IF_ERROR(InferShape(params, inputs.logits.shape, inputs.labels.shape,
                                   inputs.weights.shape, inputs.class_weights.shape, &sums,
                                   &totals));
  if (params.dense && SizeOf(inputs.labels.dtype) > 0) return Status::Ok();
  return DispatchLabel(kOp, "labels", inputs.labels.dtype, [](auto) { return Status::Ok(); });
}

// Calls fn with the type of the logits, and says which label was illegal.
template <typename Fn>
Status Run(const Params& params, const Inputs& inputs, Fn&& fn) {
  TFSEG_RETURN_IF_ERROR(Check(params, inputs));
  FirstError error;
  TFSEG_RETURN_IF_ERROR(DispatchFloat(kOp, "logits", inputs.logits.dtype, [&](auto value) {
    using T = typename decltype(value)::type;
    if (params.has_weights) {
      TFSEG_RETURN_IF_ERROR(
          RequireDType(kOp, "weights", inputs.weights.dtype, kAccumulatorDType<T>));
    }
    if (params.has_class_weights) {
      TFSEG_RETURN_IF_ERROR(
          RequireDType(kOp, "class_weights", inputs.class_weights.dtype, kAccumulatorDType<T>));
    }
    return fn(value, GeometryOf(inputs.logits.shape), &error);
  }));
  if (!error.any()) return Status::Ok();
  const Geometry g = GeometryOf(inputs.logits.shape);
  const Shape& labels = inputs.labels.shape;
  Shape where = Shape::OfRank(labels.rank());
  int64_t rest = error.element();
  for (int axis = labels.rank() - 1; axis >= 0; --axis) {
    where.set(axis, rest % labels[axis]);
    rest /= labels[axis];
  }
  std::string rule = "lie in [0, " + std::to_string(NumLabels(params, g.classes)) + ")";
  if (params.has_ignore_label) rule += " or be " + std::to_string(params.ignore_label);
  return Invalid("'labels' must " + rule + ", got " +
                 std::to_string(LabelAt(inputs.labels, error.element())) + " at " +
                 where.ToString());
}

}  // namespace

Status InferShape(const Params& params, const Shape& logits, const Shape& labels,
                  const Shape& weights, const Shape& class_weights, Shape* sums, Shape* totals) {
  if (params.power != 1 && params.power != 2) {
    return Invalid("'power' must be 1 or 2, got " + std::to_string(params.power));
  }
  if (params.dense && params.has_ignore_label) {
    return Invalid("'ignore_label' must be None where labels are targets for each class, got " +
                   std::to_string(params.ignore_label));
  }
  int64_t batch = kUnknown, classes = kUnknown;
  if (logits.has_rank()) {
    if (logits.rank() < 2 || logits.rank() > Shape::kMaxRank) {
      return Invalid("'logits' must have shape [batch, ..., classes], got " + logits.ToString());
    }
    batch = logits[0];
    classes = logits[logits.rank() - 1];
    if (classes == 0) {
      return Invalid("'logits' must have at least one class, got " + logits.ToString());
    }
  }
  const Shape pixels = PixelsOf(logits);
  TFSEG_RETURN_IF_ERROR(RequireSame("labels", labels, params.dense ? logits : pixels));
  if (params.has_weights) TFSEG_RETURN_IF_ERROR(RequireSame("weights", weights, pixels));
  if (params.has_class_weights) {
    TFSEG_RETURN_IF_ERROR(RequireSame("class_weights", class_weights, Shape{classes}));
  }
  *sums = {batch, classes};
  *totals = {batch};
  return Status::Ok();
}

Status Forward(const Params& params, const Context& context, const Inputs& inputs,
               const Sums& sums) {
  return Run(params, inputs, [&](auto value, const Geometry& g, FirstError* error) {
    using T = typename decltype(value)::type;
    return Sum<T>(params, g, context, inputs, sums, error);
  });
}

Status Backward(const Params& params, const Context& context, const Inputs& inputs,
                const SumsGrad& grad, const Buffer& grad_logits) {
  HintHugePages(grad_logits.data, grad_logits.shape.num_elements() * SizeOf(grad_logits.dtype));
  return Run(params, inputs, [&](auto value, const Geometry& g, FirstError* error) {
    using T = typename decltype(value)::type;
    const Shape sums{g.batch, g.classes};
    TFSEG_RETURN_IF_ERROR(RequireSame("grad_intersection", grad.intersection.shape, sums));
    TFSEG_RETURN_IF_ERROR(RequireSame("grad_prediction", grad.prediction.shape, sums));
    TFSEG_RETURN_IF_ERROR(
        RequireSame("grad_cross_entropy", grad.cross_entropy.shape, Shape{g.batch}));
    for (const auto* buffer : {&grad.intersection, &grad.prediction, &grad.cross_entropy}) {
      TFSEG_RETURN_IF_ERROR(
          RequireDType(kOp, "grad_intersection", buffer->dtype, kAccumulatorDType<T>));
    }
    return DifferentiateAll<T>(params, g, context, inputs, grad, grad_logits, error);
  });
}

}  // namespace tfseg::core::soft_dice_sums
