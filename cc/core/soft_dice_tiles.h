// Tiles of soft_dice_sums: the pixels of a few registers, class by class, and what the sums and the
// gradient take from them.
#ifndef TFSEG_CORE_SOFT_DICE_TILES_H_
#define TFSEG_CORE_SOFT_DICE_TILES_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "core/first_error.h"
#include "core/simd.h"
#include "core/soft_dice_sums.h"

namespace tfseg::core::soft_dice_sums {

inline constexpr char kOp[] = "soft_dice_sums";

// Sums over pixels are kept in so many lanes whatever a register's width, so that every instruction
// level adds in the same order.
inline constexpr int kSumLanes = 16;
inline constexpr int kMostLanes = 32;
inline constexpr int kTileNumbers = 4096;

// How many pixels a tile has: few enough for the first-level cache, and for the lines written past
// it not to queue.
inline int LanesOf(int64_t classes) {
  int lanes = kMostLanes;
  while (lanes > kSumLanes && lanes * classes > kTileNumbers) lanes /= 2;
  return lanes;
}

#if defined(__AVX__)
// to[column][row] = from[row][column] of 8 by 8 numbers. Returns the largest of each row.
__attribute__((always_inline)) inline Vector<float> Transpose8(const float* from, int64_t from_step,
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
    t[k] = _mm256_permute2f128_ps(r[k], r[k + 4], 0x20);
    t[k + 4] = _mm256_permute2f128_ps(r[k], r[k + 4], 0x31);
  }
  for (int k = 0; k < 8; ++k) _mm256_storeu_ps(to + k * to_step, t[k]);
  for (int k = 0; k < 4; ++k) t[k] = _mm256_max_ps(t[k], t[k + 4]);
  return _mm256_max_ps(_mm256_max_ps(t[0], t[1]), _mm256_max_ps(t[2], t[3]));
}
#endif

// to[column][row] = from[row][column]; rows and columns of whatever number. With kLargest, also the
// largest number of each row, of rows that are whole vectors; anything where one of them is NaN.
template <bool kLargest, typename A>
void Transpose(const A* from, int64_t rows, int64_t columns, A* to, A* largest = nullptr) {
#if defined(__AVX__)
  if constexpr (std::is_same_v<A, float>) {
    if (rows >= 8 && columns >= 8) {
      // The last step is moved back where it would reach over the end: it does some twice.
      for (int64_t row = 0; row < rows; row += 8) {
        const int64_t y = std::min(row, rows - 8);
        Vector<float> most = Vector<float>{} - std::numeric_limits<float>::infinity();
        for (int64_t column = 0; column < columns; column += 8) {
          const int64_t x = std::min(column, columns - 8);
          // Long rows are more streams than the processor foresees: the next tile's numbers.
          for (int k = 0; kLargest && columns >= 64 && k < 64; k += 16) {
            __builtin_prefetch(from + (rows + y) * columns + column * 8 + k);
          }
          most = Largest<Vector<float>>(
              Transpose8(from + y * columns + x, columns, to + x * rows + y, rows), most);
        }
        if (kLargest) StoreVector<float>(most, largest + y);
      }
      return;
    }
  }
#endif
  for (int64_t column = 0; column < columns; ++column) {
    for (int64_t row = 0; row < rows; ++row) to[column * rows + row] = from[row * columns + column];
  }
  for (int64_t row = 0; kLargest && row < rows; row += VectorOf<A>::kWidth) {
    Vector<A> most = LoadVector(to + row);
    for (int64_t column = 1; column < columns; ++column) {
      most = Largest<Vector<A>>(LoadVector(to + column * rows + row), most);
    }
    StoreVector<A>(most, largest + row);
  }
}

template <typename From, typename A>
void Convert(const void* from, int64_t first, int64_t count, A* to) {
  const From* numbers = static_cast<const From*>(from) + first;
  if constexpr (std::is_same_v<From, A>) {
    memcpy(to, numbers, sizeof(A) * count);
    return;
  }
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

inline int64_t LabelAt(const ConstBuffer& labels, int64_t pixel) {
  switch (labels.dtype) {
    case DType::kUInt8:
      return labels.As<uint8_t>()[pixel];
    case DType::kInt32:
      return labels.As<int32_t>()[pixel];
    default:
      return labels.As<int64_t>()[pixel];
  }
}

// Gradients of the sums of one image.
template <typename A>
struct ImageGrad {
  const A* intersection;  // [classes]
  const A* prediction;    // [classes]
  A cross_entropy;
};

// Loads tiles and turns their logits into probabilities. Rows are classes, lanes are pixels.
template <typename T>
class Tile {
  using A = AccumulatorOf<T>;
  static constexpr int kWidth = WideVectorOf<A>::kWidth;

 public:
  using V = WideVector<A>;

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
  // Of each pixel, for softmax: the mean by p of what p is multiplied with in the sums, the
  // intersection with labels left out.
  const A* mean() const { return mean_; }
  A* stage() { return stage_; }

  A class_weight(int64_t c) const {
    return params_.has_class_weights ? inputs_.class_weights.As<A>()[c] : A(1);
  }

  // Pixels [first, first + count) of image b. With gradients, mean() is known afterwards, without
  // them entropy().
  void Load(int64_t b, int64_t first, int count, const ImageGrad<A>* grad) {
    count_ = count;
    LoadWeightsAndLabels(b * g_.pixels + first);
    const T* logits = inputs_.logits.template As<T>() + (b * g_.pixels + first) * g_.classes;
    const int64_t numbers = count * g_.classes;
    if (std::is_same_v<T, A> && count == lanes_) {
      Transpose<true>(reinterpret_cast<const A*>(logits), lanes_, g_.classes, p_, largest_);
    } else {
      for (int64_t k = 0; k < numbers; k += kLanes) {
        LoadLanes(logits + k, static_cast<int>(std::min<int64_t>(kLanes, numbers - k)), stage_ + k);
      }
      std::fill(stage_ + numbers, stage_ + lanes_ * g_.classes, A(0));
      Transpose<true>(stage_, lanes_, g_.classes, p_, largest_);
    }
    if (!sparse_) LoadTargets(b * g_.pixels + first);
    if (params_.activation != Activation::kSoftmax) std::fill(scale_, scale_ + lanes_, A(1));
    if (any_left_out_) {
      ForVectors([&](int k) {
        const V w = LoadWide(weights_ + k);
        if (AllSet(reinterpret_cast<V>(w != A(0)))) return;
        StoreWide<A>(w != A(0) ? LoadWide(largest_ + k) : V{}, largest_ + k);
        for (int64_t c = 0; c < g_.classes; ++c) {
          StoreWide<A>(w != A(0) ? LoadWide(p(c) + k) : V{}, p(c) + k);
          if (sparse_) continue;
          A* target = targets_ + c * lanes_ + k;
          StoreWide<A>(w != A(0) ? LoadWide(target) : V{}, target);
        }
      });
    }
    switch (params_.activation) {
      case Activation::kSoftmax:
        if (sparse_) return grad ? Softmax<true, true>(grad) : Softmax<true, false>(grad);
        return grad ? Softmax<false, true>(grad) : Softmax<false, false>(grad);
      case Activation::kSigmoid:
        return Sigmoid(grad == nullptr);
      case Activation::kNone:
        return Probabilities(grad == nullptr);
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
    // Without branches and, but for labels of 64 bits, in lanes of 32: vector code.
    using Wide = std::conditional_t<sizeof(Label) == 8, int64_t, int32_t>;
    const auto limit = static_cast<Wide>(NumLabels(params_, g_.classes));
    const auto ignore_label = static_cast<Wide>(params_.ignore_label);
    const Wide ignores = params_.has_ignore_label && ignore_label == params_.ignore_label;
    Wide left_out = 0, illegal = 0;
    for (int lane = 0, count = count_; lane < count; ++lane) {
      const Wide label = labels[lane];
      const Wide legal = (label >= 0) & (label < limit);
      const Wide ignored = (label == ignore_label) & ignores;
      const bool counts = legal > ignored;
      labels_[lane] = counts ? static_cast<int32_t>(label) : 0;
      weights_[lane] = counts ? weights_[lane] : A(0);
      left_out |= !counts;
      illegal |= (legal | ignored) ^ 1;
    }
    any_left_out_ = any_left_out_ || left_out != 0;
    for (int lane = 0; illegal != 0 && lane < count_; ++lane) {
      const Wide label = labels[lane];
      const bool legal = label >= 0 && label < limit;
      if (!legal && !(ignores && label == ignore_label)) error_->Note(first + lane);
    }
  }

  void LoadTargets(int64_t first) {
    if (params_.dense) {
      ConvertTargets(inputs_.labels, first * g_.classes, count_ * g_.classes, stage_);
      std::fill(stage_ + count_ * g_.classes, stage_ + lanes_ * g_.classes, A(0));
      return Transpose<false>(stage_, lanes_, g_.classes, targets_);
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

  template <bool kSparse, bool kGrad>
  void Softmax(const ImageGrad<A>* grad) {
    const int64_t classes = g_.classes, step = lanes_;
    const bool squared = params_.power == 2;
    auto common = V{} == V{};
    ForVectors([&](int k) {
      const V largest = LoadWide(largest_ + k);
      common &= (largest <= A(kLargestLogit)) & (largest >= A(-kLargestLogit));
    });
    if (!AllSet(reinterpret_cast<V>(common))) {
      for (int64_t k = 0; k < step * classes; k += kWidth) {
        StoreWide<A>(Clamped(LoadWide(p_ + k)), p_ + k);
      }
      ForVectors([&](int k) { StoreWide<A>(Clamped(LoadWide(largest_ + k)), largest_ + k); });
    }
    for (int lane = 0; kSparse && lane < lanes_; ++lane) {
      shares_[lane] = class_weight(labels_[lane]);
      if (!kGrad) weighted_[lane] = p_[labels_[lane] * step + lane];
    }
    ForVectors([&](int k) {
      A* const row = p_ + k;
      const V largest = LoadWide(largest_ + k);
      V sum{}, counted{}, weighted{}, linear{}, square{};
      for (int64_t c = 0; c < classes; ++c) {
        V logit = LoadWide(row + c * step);
        // Products of infinity and a target of 0 would be NaN.
        if (!kSparse) logit = Largest<V>(V{} - A(kLargestLogit), logit);
        const V distance = logit - largest;
        const V e = ExpOfNegative(distance);
        StoreWide<A>(e, row + c * step);
        sum += e;
        if (kGrad) {
          if (squared) {
            square += e * (e * (A(2) * grad->prediction[c]));
          } else {
            linear += e * grad->prediction[c];
          }
        }
        if (kSparse) continue;
        const V target = LoadWide(targets_ + c * step + k);
        const V share = target * class_weight(c);
        counted += share;
        if (kGrad) {
          linear += e * (target * grad->intersection[c]);
        } else {
          weighted += share * distance;
        }
      }
      const V scale = A(1) / sum;
      StoreWide<A>(scale, scale_ + k);
      if (kSparse) {
        counted = LoadWide(shares_ + k);
        if (!kGrad) {
          const V own = Largest<V>(V{} - A(kLargestLogit), LoadWide(weighted_ + k));
          weighted = counted * (own - largest);
        }
      }
      StoreWide<A>(counted, shares_ + k);
      if (kGrad) {
        StoreWide<A>((square * scale + linear) * scale, mean_ + k);
      } else {
        StoreWide<A>(weighted, weighted_ + k);
        StoreWide<A>(sum, entropy_ + k);
      }
    });
    if (kGrad) return;
    // On its own: the loop above need not wait for the logarithm's chain of operations.
    ForVectors([&](int k) {
      const V log_sum = LogOfNormal(LoadWide(entropy_ + k));
      const V entropy = LoadWide(shares_ + k) * log_sum - LoadWide(weighted_ + k);
      StoreWide<A>(entropy, entropy_ + k);
    });
  }

  void Sigmoid(bool with_entropy) {
    ForVectors([&](int k) {
      V entropy{};
      A shares = 0;
      for (int64_t c = 0; c < g_.classes; ++c) {
        const V logit = Clamped(LoadWide(p(c) + k));
        const V target = LoadWide(targets(c) + k);
        const V size = logit < A(0) ? -logit : logit;
        const V e = ExpOfNegative(-size);
        const V of_size = A(1) / (A(1) + e);
        StoreWide<A>(logit < A(0) ? e * of_size : of_size, p(c) + k);
        if (!with_entropy) continue;
        const V positive = logit < A(0) ? V{} : logit;
        // log(1 + e) to its last bit is of no use beside the larger terms.
        const V h = (positive - logit * target) + LogOfNormal(A(1) + e);
        entropy += h * class_weight(c);
        shares += class_weight(c);
      }
      StoreWide<A>(entropy, entropy_ + k);
      StoreWide<A>(V{} + shares, shares_ + k);
    });
  }

  void Probabilities(bool with_entropy) {
    constexpr A kSmallest = kSmallestProbability;
    const auto log_of = [](const V& probability) {
      return LogOfNormal(probability < kSmallest ? V{} + kSmallest : probability);
    };
    const bool binary = IsBinary(params_, g_.classes);
    ForVectors([&](int k) {
      V entropy{}, shares{};
      for (int64_t c = 0; c < g_.classes; ++c) {
        const V probability = Clamped(LoadWide(p(c) + k));
        const V target = LoadWide(targets(c) + k);
        StoreWide<A>(probability, p(c) + k);
        if (!with_entropy) continue;
        V h = -(target * log_of(probability));
        if (binary) h -= (A(1) - target) * log_of(A(1) - probability);
        entropy += h * class_weight(c);
        shares += binary ? V{} + class_weight(c) : target * class_weight(c);
      }
      StoreWide<A>(entropy, entropy_ + k);
      StoreWide<A>(shares, shares_ + k);
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
  A entropy_[kMostLanes], shares_[kMostLanes], mean_[kMostLanes];
  A largest_[kMostLanes];   // of the logits
  A weighted_[kMostLanes];  // sum of each class's share of the divisor times its logit less largest
  alignas(kLine) A own_[3 * kTileNumbers];
};

}  // namespace tfseg::core::soft_dice_sums

#endif  // TFSEG_CORE_SOFT_DICE_TILES_H_
