// Numbers for the vertices of an image, in the order in which they first appear, points in order,
// remainders in order; and the points of each vertex. The image is cut into bands, each of which
// numbers its own vertices while others number theirs.
#ifndef TFSEG_CORE_VERTEX_NUMBERS_H_
#define TFSEG_CORE_VERTEX_NUMBERS_H_

#include <algorithm>
#include <cstdint>

#include "core/simplices.h"
#include "core/vertex_table.h"

namespace tfseg::core::permutohedral_lattice {

// A vertex of a band: its number in the image, and how many of the band's points it has; later,
// where in the splat's lists the next of them goes.
struct Local {
  int32_t vertex, next;
};

template <typename Key>
struct Band {
  VertexTable<Key> table;
  Local* locals;
};

template <typename Key>
struct Image {
  Key* keys;
  int32_t* slots;
  int64_t most;  // vertices
  VertexTable<Key> table;
};

// Writes weights, and vertices by their numbers in the band.
template <int D, typename Key>
void NumberBand(const Box& box, const float* features, int64_t num_points, Band<Key>* band,
                int32_t* vertices, float* weights) {
  constexpr int kCorners = D + 1;
  constexpr int kWidth = Simplices<D>::kWidth;
  const Scales<D> scales;
  const Steps<D, Key> steps(box);
  VertexTable<Key> table = band->table;
  Local* locals = band->locals;
  // Neighbouring pixels mostly share vertices.
  Key last_keys[kCorners];
  int32_t last_vertices[kCorners];
  for (int r = 0; r < kCorners; ++r) {
    last_keys[r] = 0;  // in the corner of the box, where no vertex lies
    last_vertices[r] = 0;
  }
  for (int64_t n = 0; n < num_points; n += kWidth) {
    const int count = static_cast<int>(std::min<int64_t>(kWidth, num_points - n));
    const Simplices<D> simplices(scales, features + n * D, count);
    for (int lane = 0; lane < count; ++lane) {
      Key key = 0;
// Unrolled, so that what is kept of each remainder stays in registers.
#pragma GCC unroll 9
      for (int i = 0; i < D; ++i) {
        key += static_cast<uint32_t>(simplices.nearest[i][lane] - box.low[i]) * steps.of[i];
      }
      // The vertices of a simplex follow each other by steps along its axes, highest rank first.
      Key by_rank[kCorners];
      float heights[kCorners];
#pragma GCC unroll 9
      for (int i = 0; i < kCorners; ++i) {
        const int rank = simplices.ranks[i][lane];
        by_rank[rank] = steps.of[i];
        heights[rank] = simplices.heights[i][lane];
      }
      int32_t* to = vertices + (n + lane) * kCorners;
      float* weight = weights + (n + lane) * kCorners;
#pragma GCC unroll 9
      for (int r = 0; r < kCorners; ++r) {
        if (r > 0) key += by_rank[kCorners - r];
        weight[r] =
            r == 0 ? heights[D] + (1.0f - heights[0]) : heights[D - r] - heights[kCorners - r];
        if (key != last_keys[r]) {
          last_keys[r] = key;
          const int32_t size = table.size();
          last_vertices[r] = table.Number(key);
          if (last_vertices[r] == size) locals[size].next = 0;
        }
        ++locals[last_vertices[r]].next;
        to[r] = last_vertices[r];
      }
    }
  }
  band->table = table;
}

// Numbers the vertices of an image in the order in which they first appear, and finds where each
// one's points begin in the splat's lists.
template <typename Key>
void MergeBands(Band<Key>* bands, int64_t num_bands, Image<Key>* image,
                int32_t* splat_offsets) {  // [bound + 1]
  constexpr int kAhead = 8;
  VertexTable<Key> table(image->keys, image->slots, image->most, image->most);
  for (int64_t k = 0; k < num_bands; ++k) {
    const VertexTable<Key>& band = bands[k].table;
    for (int32_t l = 0; l < band.size(); ++l) {
      if (l + kAhead < band.size()) table.Prefetch(band.key(l + kAhead));
      Local& local = bands[k].locals[l];
      const int32_t size = table.size();
      local.vertex = table.Number(band.key(l));
      if (local.vertex == size) splat_offsets[size] = 0;
      const int32_t count = local.next;
      local.next = splat_offsets[local.vertex];
      splat_offsets[local.vertex] += count;
    }
  }
  int32_t sum = 0;
  for (int32_t v = 0; v < table.size(); ++v) {
    const int32_t count = splat_offsets[v];
    splat_offsets[v] = sum;
    sum += count;
  }
  image->table = table;
}

// From numbers in the band to numbers in the image, and to the points of each vertex.
template <int kCorners>
void PlaceBand(int64_t begin, int64_t end, Local* locals, int32_t num_locals,
               const int32_t* splat_offsets, const float* weights, int32_t* vertices,
               int32_t* splat_points, float* splat_weights) {
  for (int32_t l = 0; l < num_locals; ++l) locals[l].next += splat_offsets[locals[l].vertex];
  // Of each remainder the last vertex, out of memory: a counter there would make each point wait
  // for the one before.
  int32_t numbers[kCorners];
  Local last[kCorners];
  for (int r = 0; r < kCorners; ++r) last[r] = locals[numbers[r] = vertices[begin * kCorners + r]];
  for (int64_t n = begin; n < end; ++n) {
#pragma GCC unroll 9
    for (int r = 0; r < kCorners; ++r) {
      const int64_t k = n * kCorners + r;
      if (vertices[k] != numbers[r]) {
        locals[numbers[r]].next = last[r].next;
        last[r] = locals[numbers[r] = vertices[k]];
      }
      const int32_t place = last[r].next++;
      splat_points[place] = static_cast<int32_t>(n);
      splat_weights[place] = weights[k];
      vertices[k] = last[r].vertex;
    }
  }
}

}  // namespace tfseg::core::permutohedral_lattice

#endif  // TFSEG_CORE_VERTEX_NUMBERS_H_
