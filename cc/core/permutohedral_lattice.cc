#include "core/permutohedral_lattice.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

#include "core/first_error.h"
#include "core/memory.h"
#include "core/simplices.h"
#include "core/vertex_numbers.h"
#include "core/vertex_table.h"

namespace tfseg::core::permutohedral_lattice {
namespace {

constexpr char kOp[] = "permutohedral_lattice";

Status Invalid(const std::string& text) {
  return Status::InvalidArgument(std::string(kOp) + ": " + text);
}

Status OutOfMemory(const Geometry& g) {
  return Status::ResourceExhausted(std::string(kOp) + ": no memory to number the vertices of " +
                                   std::to_string(g.batch * g.points) + " points");
}

std::string TextOf(float number) {
  if (number != number) return "nan";
  char text[32];
  snprintf(text, sizeof(text), "%g", static_cast<double>(number));
  return text;
}

// Points are cut into bands. Each numbers its own vertices, and the bands of an image are merged in
// their order: the numbers are the same for any size of them and any number of threads.
constexpr int64_t kBand = 16384;
// Loops over the vertices of an image are cut into as many parts.
constexpr int64_t kParts = 32;

int64_t NumBands(const Geometry& g) { return (g.points + kBand - 1) / kBand; }

// Calls fn(b, begin, end) for parts of [0, sizes[b]) of each image. `cost` is that of one of them.
template <typename Fn>
void ForParts(const Context& context, int64_t batch, const int32_t* sizes, int64_t cost, Fn&& fn) {
  int64_t most = 0;
  for (int64_t b = 0; b < batch; ++b) most = std::max<int64_t>(most, sizes[b]);
  ParallelFor(context.threads, batch * kParts, most * cost / kParts + 1,
              [&](int64_t first, int64_t last) {
                for (int64_t part = first; part < last; ++part) {
                  const int64_t b = part / kParts, size = sizes[b];
                  fn(b, size * (part % kParts) / kParts, size * (part % kParts + 1) / kParts);
                }
              });
}

// --- Blur ------------------------------------------------------------------------------------

// The neighbours of vertices [begin, end) along all axes. The one that a step leads to knows of the
// other side, too.
template <int D, typename Key>
void FindNeighbours(const Steps<D, Key>& steps, const VertexTable<Key>& table, int64_t begin,
                    int64_t end, int64_t bound,
                    int32_t* neighbours) {  // [D + 1, bound, 2], -1
  constexpr int kAhead = 8;
  for (int axis = 0; axis <= D; ++axis) {
    int32_t* along = neighbours + axis * bound * 2;
    for (int64_t v = begin; v < end; ++v) {
      if (v + kAhead < end) table.Prefetch(table.key(v + kAhead) + steps.of[axis]);
      const int32_t next = table.Find(table.key(v) + steps.of[axis]);
      if (next < 0) continue;
      along[v * 2 + 1] = next;
      along[int64_t{next} * 2] = static_cast<int32_t>(v);
    }
  }
}

// One of kParts parts of an image's members behind what numbering has written, and the neighbours
// that were not found yet.
void FillPart(const Geometry& g, int64_t part, int64_t num_vertices, int32_t* splat_offsets,
              int32_t* neighbours) {
  const auto all = static_cast<int32_t>(g.points * g.corners());
  const int64_t begin = (g.bound + 1) * part / kParts, end = (g.bound + 1) * (part + 1) / kParts;
  if (end > num_vertices) {
    std::fill(splat_offsets + std::max(begin, num_vertices), splat_offsets + end, all);
  }
  const int64_t first = num_vertices * part / kParts, last = num_vertices * (part + 1) / kParts;
  for (int64_t axis = 0; axis < g.corners(); ++axis) {
    int32_t* along = neighbours + axis * g.bound * 2;
    std::fill(along + first * 2, along + last * 2, -1);
  }
}

// The filter of ones. `values` and `blurred` are scratch for the numbers of `most` vertices of each
// image and, before them, the 0 of absent ones.
void FilterOnes(const Context& context, const Geometry& g, const Members<Buffer>& out, int64_t most,
                float* values, float* blurred) {
  const auto* num_vertices = out.num_vertices.As<int32_t>();
  const int64_t corners = g.corners(), stride = most + 1;
  for (int64_t b = 0; b < g.batch; ++b) values[b * stride] = blurred[b * stride] = 0;
  ForParts(context, g.batch, num_vertices, 20, [&](int64_t b, int64_t begin, int64_t end) {
    const int32_t* offsets = out.splat_offsets.As<int32_t>() + b * (g.bound + 1);
    const float* weights = out.splat_weights.As<float>() + b * g.points * corners;
    for (int64_t v = begin; v < end; ++v) {
      float sum = 0;
      for (int32_t k = offsets[v]; k < offsets[v + 1]; ++k) sum += weights[k];
      values[b * stride + 1 + v] = sum;
    }
  });
  for (int64_t axis = 0; axis < corners; ++axis) {
    ForParts(context, g.batch, num_vertices, 3, [&](int64_t b, int64_t begin, int64_t end) {
      const int32_t* along = out.neighbours.As<int32_t>() + (b * corners + axis) * g.bound * 2;
      const float* from = values + b * stride + 1;
      float* to = blurred + b * stride + 1;
      for (int64_t v = begin; v < end; ++v) {
        to[v] = from[v] + 0.5f * (from[along[v * 2]] + from[along[v * 2 + 1]]);
      }
    });
    std::swap(values, blurred);
  }
  const float scale = 1.0f / (1.0f + std::ldexp(1.0f, -static_cast<int>(g.dimensions)));
  ParallelFor(context.threads, g.batch * g.points, 2 * corners, [&](int64_t begin, int64_t end) {
    const auto* vertices = out.vertices.As<int32_t>();
    const auto* weights = out.weights.As<float>();
    for (int64_t n = begin; n < end; ++n) {
      const float* from = values + n / g.points * stride + 1;
      float sum = 0;
      for (int64_t k = n * corners; k < (n + 1) * corners; ++k) {
        sum += weights[k] * from[vertices[k]];
      }
      out.norms.As<float>()[n] = sum * scale;
    }
  });
}

// --- All together ----------------------------------------------------------------------------

template <typename T>
T* Reserve(Workspace* workspace, int64_t count) {
  return static_cast<T*>(workspace->Allocate(count * static_cast<int64_t>(sizeof(T))));
}

// `features` are legal, `boxes` those of the images.
template <int D, typename Key>
Status Build(const Context& context, const Geometry& g, const float* features, const Box* boxes,
             const Members<Buffer>& out) {
  constexpr int kCorners = D + 1;
  const int64_t num_bands = NumBands(g), all_bands = g.batch * num_bands;
  const int64_t per_image = g.points * kCorners;
  auto* vertices = out.vertices.As<int32_t>();
  auto* weights = out.weights.As<float>();
  auto* splat_points = out.splat_points.As<int32_t>();
  auto* splat_weights = out.splat_weights.As<float>();
  auto* splat_offsets = out.splat_offsets.As<int32_t>();
  auto* neighbours = out.neighbours.As<int32_t>();
  auto* num_vertices = out.num_vertices.As<int32_t>();
  Workspace* workspace = &context.workspace;

  const int64_t most = std::min(kBand, g.points) * kCorners;
  const int64_t slots_per_band = VertexTable<Key>::MostSlots(most);
  auto* bands = Reserve<Band<Key>>(workspace, all_bands);
  auto* keys = Reserve<Key>(workspace, all_bands * most);
  auto* slots = Reserve<int32_t>(workspace, all_bands * slots_per_band);
  auto* locals = Reserve<Local>(workspace, all_bands * most);
  auto* images = Reserve<Image<Key>>(workspace, g.batch);
  if (!(bands && keys && slots && locals && images)) return OutOfMemory(g);
  ParallelFor(context.threads, all_bands, most * 8, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t first = k / num_bands * g.points + k % num_bands * kBand;
      const int64_t count = std::min(kBand, g.points - k % num_bands * kBand);
      bands[k] = {VertexTable<Key>(keys + k * most, slots + k * slots_per_band, most, 0),
                  locals + k * most};
      NumberBand<D>(boxes[k / num_bands], features + first * D, count, &bands[k],
                    vertices + first * kCorners, weights + first * kCorners);
    }
  });

  for (int64_t b = 0; b < g.batch; ++b) {
    Image<Key>& image = images[b];
    image.most = 0;
    for (int64_t k = 0; k < num_bands; ++k) image.most += bands[b * num_bands + k].table.size();
    image.keys = Reserve<Key>(workspace, image.most);
    image.slots = Reserve<int32_t>(workspace, VertexTable<Key>::MostSlots(image.most));
    if (!(image.keys && image.slots)) return OutOfMemory(g);
  }
  ParallelFor(context.threads, g.batch, most, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      MergeBands(bands + b * num_bands, num_bands, &images[b], splat_offsets + b * (g.bound + 1));
      num_vertices[b] = images[b].table.size();
    }
  });

  ParallelFor(context.threads, all_bands, most * 4, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t b = k / num_bands, first = k % num_bands * kBand;
      PlaceBand<kCorners>(first, std::min(first + kBand, g.points), bands[k].locals,
                          bands[k].table.size(), splat_offsets + b * (g.bound + 1),
                          weights + b * per_image, vertices + b * per_image,
                          splat_points + b * per_image, splat_weights + b * per_image);
    }
  });
  ParallelFor(context.threads, g.batch * kParts, g.bound / kParts + 1,
              [&](int64_t first, int64_t last) {
                for (int64_t part = first; part < last; ++part) {
                  const int64_t b = part / kParts;
                  FillPart(g, part % kParts, num_vertices[b], splat_offsets + b * (g.bound + 1),
                           neighbours + b * kCorners * g.bound * 2);
                }
              });
  ForParts(context, g.batch, num_vertices, 10 * kCorners,
           [&](int64_t b, int64_t begin, int64_t end) {
             FindNeighbours(Steps<D, Key>(boxes[b]), images[b].table, begin, end, g.bound,
                            neighbours + b * kCorners * g.bound * 2);
           });

  const int64_t largest = *std::max_element(num_vertices, num_vertices + g.batch);
  auto* values = Reserve<float>(workspace, g.batch * (largest + 1));
  auto* blurred = Reserve<float>(workspace, g.batch * (largest + 1));
  if (!(values && blurred)) return OutOfMemory(g);
  FilterOnes(context, g, out, largest, values, blurred);
  return Status::Ok();
}

// Says which feature is illegal.
Status IllegalFeature(const Geometry& g, const float* features, int64_t first_point) {
  int64_t element = first_point * g.dimensions;
  while (std::abs(features[element]) <= kLargestFeature) ++element;
  const Shape where{element / g.dimensions / g.points, element / g.dimensions % g.points,
                    element % g.dimensions};
  return Invalid("'features' must lie in [-100000, 100000], got " + TextOf(features[element]) +
                 " at " + where.ToString());
}

template <int D>
Status ForwardOf(const Context& context, const Geometry& g, const float* features,
                 const Members<Buffer>& out) {
  const int64_t num_bands = NumBands(g), all_bands = g.batch * num_bands;
  auto* ranges = Reserve<Range>(&context.workspace, all_bands);
  auto* boxes = Reserve<Box>(&context.workspace, g.batch);
  if (!(ranges && boxes)) return OutOfMemory(g);
  FirstError error;
  ParallelFor(context.threads, all_bands, kBand * D / 4, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t first = k / num_bands * g.points + k % num_bands * kBand;
      const int64_t count = std::min(kBand, g.points - k % num_bands * kBand);
      if (!FindRange<D>(features + first * D, count, &ranges[k])) error.Note(first);
    }
  });
  if (error.any()) return IllegalFeature(g, features, error.element());

  bool wide = false;
  for (int64_t b = 0; b < g.batch; ++b) {
    Range range;
    range.Clear();
    for (int64_t k = b * num_bands; k < (b + 1) * num_bands; ++k) {
      for (int i = 0; i < D; ++i) range.Add(i, ranges[k].lowest[i], ranges[k].highest[i]);
    }
    if (num_bands == 0) range = {};
    if (!FindBox<D>(range, &boxes[b])) {
      return Invalid("'features' must not spread so wide in " + std::to_string(D) +
                     " dimensions that vertices need more than 128 bits, got image " +
                     std::to_string(b));
    }
    wide = wide || boxes[b].volume >> 64 != 0;
  }
  return wide ? Build<D, WideKey>(context, g, features, boxes, out)
              : Build<D, uint64_t>(context, g, features, boxes, out);
}

// ForwardOf<D> for the dimensions of a geometry, looked for from D on.
template <int D>
Status ForwardFrom(const Context& context, const Geometry& g, const float* features,
                   const Members<Buffer>& out) {
  if constexpr (D < kMostDimensions) {
    if (g.dimensions != D) return ForwardFrom<D + 1>(context, g, features, out);
  }
  return ForwardOf<D>(context, g, features, out);
}

// Requires the sizes of an image, as far as they are known, to be in bounds.
Status CheckSizes(const char* op, const std::string& argument, int64_t points, int64_t dimensions) {
  const std::string name = std::string(op) + ": '" + argument + "' must ";
  if (dimensions == kUnknown) return Status::Ok();
  if (!(dimensions >= 1 && dimensions <= kMostDimensions)) {
    return Status::InvalidArgument(name + "have 1 to 8 dimensions, got " +
                                   std::to_string(dimensions));
  }
  if (points != kUnknown && points > std::numeric_limits<int32_t>::max() / (dimensions + 1)) {
    return Status::InvalidArgument(name + "have points * (dimensions + 1) < 2^31, got " +
                                   std::to_string(points) + " points in " +
                                   std::to_string(dimensions) + " dimensions");
  }
  return Status::Ok();
}

}  // namespace

Status InferShape(const Shape& features, Members<Shape>* shapes) {
  Dim batch{"batch"}, points{"points"}, dimensions{"dimensions"};
  ShapeChecker check(kOp);
  check.Require("features", features, {&batch, &points, &dimensions});
  TFSEG_RETURN_IF_ERROR(check.status());
  TFSEG_RETURN_IF_ERROR(CheckSizes(kOp, "features", points.size, dimensions.size));
  const int64_t corners = dimensions.size == kUnknown ? kUnknown : dimensions.size + 1;
  const bool known = points.size != kUnknown && corners != kUnknown;
  const int64_t bound = known ? points.size * corners : kUnknown;
  shapes->features = {batch.size, points.size, dimensions.size};
  shapes->vertices = shapes->weights = {batch.size, points.size, corners};
  shapes->splat_points = shapes->splat_weights = {batch.size, bound};
  shapes->splat_offsets = {batch.size, known ? bound + 1 : kUnknown};
  shapes->neighbours = {batch.size, corners, bound, 2};
  shapes->norms = {batch.size, points.size};
  shapes->num_vertices = {batch.size};
  if (!shapes->neighbours.countable()) {
    return Invalid("'features' must have a lattice that fits into memory, got " +
                   features.ToString());
  }
  return Status::Ok();
}

Status Forward(const Context& context, const ConstBuffer& features, const Members<Buffer>& out) {
  Members<Shape> shapes;
  TFSEG_RETURN_IF_ERROR(InferShape(features.shape, &shapes));
  TFSEG_RETURN_IF_ERROR(RequireDType(kOp, "features", features.dtype, DType::kFloat32));
  const Geometry g{features.shape[0], features.shape[1], features.shape[2], shapes.neighbours[2]};
  // Not the neighbours, of which only the head is written.
  for (const Buffer* buffer : {&out.vertices, &out.weights, &out.splat_points, &out.splat_weights,
                               &out.splat_offsets, &out.norms}) {
    HintHugePages(buffer->data, buffer->shape.num_elements() * SizeOf(buffer->dtype));
  }
  if (g.batch == 0) return Status::Ok();
  return ForwardFrom<1>(context, g, features.As<float>(), out);
}

Status CheckLattice(const char* op, const std::string& argument, const Lattice& lattice,
                    Geometry* geometry) {
  constexpr DType kFloat = DType::kFloat32, kInt = DType::kInt32;
  ShapeChecker check(op);
  const auto require = [&](const char* member, const ConstBuffer& buffer, DType dtype,
                           std::initializer_list<Dim*> dims) {
    const std::string name = argument + "." + member;
    check.Require(name.c_str(), buffer.shape, dims);
    TFSEG_RETURN_IF_ERROR(check.status());
    return RequireDType(op, name, buffer.dtype, dtype);
  };
  Dim batch{"batch"}, points{"points"}, dimensions{"dimensions"}, bound{"bound"};
  TFSEG_RETURN_IF_ERROR(
      require("features", lattice.features, kFloat, {&batch, &points, &dimensions}));
  TFSEG_RETURN_IF_ERROR(CheckSizes(op, argument + ".features", points.size, dimensions.size));
  Dim corners{"corners", dimensions.size + 1}, sides{nullptr, 2};
  TFSEG_RETURN_IF_ERROR(
      require("neighbours", lattice.neighbours, kInt, {&batch, &corners, &bound, &sides}));
  Dim entries{"points * corners", points.size * corners.size}, offsets{"bound + 1", bound.size + 1};
  TFSEG_RETURN_IF_ERROR(require("vertices", lattice.vertices, kInt, {&batch, &points, &corners}));
  TFSEG_RETURN_IF_ERROR(require("weights", lattice.weights, kFloat, {&batch, &points, &corners}));
  TFSEG_RETURN_IF_ERROR(require("splat_points", lattice.splat_points, kInt, {&batch, &entries}));
  TFSEG_RETURN_IF_ERROR(
      require("splat_weights", lattice.splat_weights, kFloat, {&batch, &entries}));
  TFSEG_RETURN_IF_ERROR(require("splat_offsets", lattice.splat_offsets, kInt, {&batch, &offsets}));
  TFSEG_RETURN_IF_ERROR(require("norms", lattice.norms, kFloat, {&batch, &points}));
  TFSEG_RETURN_IF_ERROR(require("num_vertices", lattice.num_vertices, kInt, {&batch}));
  *geometry = {batch.size, points.size, dimensions.size, bound.size};
  return Status::Ok();
}

}  // namespace tfseg::core::permutohedral_lattice
