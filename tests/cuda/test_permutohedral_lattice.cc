// The launcher of permutohedral_lattice: core's bits and core's errors, and no write beyond what
// core writes.
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include "core/permutohedral_lattice.h"
#include "cuda/lattice_test.h"
#include "cuda/permutohedral_lattice.h"

namespace {

using namespace tfseg;
using namespace tfseg::test;

// The neighbours of vertices that there are.
bool SameNeighbours(Members& a, Members& b) {
  const Geometry& g = a.g;
  bool same = true;
  for (int64_t plane = 0; plane < g.batch * g.corners(); ++plane) {
    const int64_t count = a.num_vertices.As<int32_t>()[plane / g.corners()];
    for (int64_t k = plane * g.bound * 2; k < (plane * g.bound + count) * 2; ++k) {
      same = same && a.neighbours.As<int32_t>()[k] == b.neighbours.As<int32_t>()[k];
    }
  }
  return same;
}

void Compare(Members& actual, const std::string& what) {
  Members expected(actual.g);
  if (actual.features.size() > 0) {
    std::memcpy(expected.features.Out().data, actual.features.In().data,
                static_cast<size_t>(actual.features.size()) * sizeof(float));
  }
  Contexts contexts;
  ExpectOk(Forward(contexts.cuda(), actual.features.In(), actual.Out()), what);
  ExpectOk(Forward(contexts.core(), expected.features.In(), expected.Out()), what + ", core");
  const auto same = [&](Array Members::* member, const char* name) {
    Expect(SameBits(actual.*member, expected.*member), what + ": " + name);
  };
  same(&Members::vertices, "vertices");
  same(&Members::weights, "weights");
  same(&Members::splat_points, "splat_points");
  same(&Members::splat_weights, "splat_weights");
  same(&Members::splat_offsets, "splat_offsets");
  same(&Members::norms, "norms");
  same(&Members::num_vertices, "num_vertices");
  Expect(SameNeighbours(actual, expected), what + ": neighbours");
}

void TestDrawnFeatures() {
  for (int64_t dimensions = 1; dimensions <= 8; ++dimensions) {
    Draw draw(static_cast<unsigned>(dimensions));
    const int64_t points = draw.Number(1, 200);
    Members lattice({draw.Number(1, 3), points, dimensions, points * (dimensions + 1)});
    draw.Fill(lattice.features, false);
    Compare(lattice, std::to_string(dimensions) + " dimensions");
  }
}

// So many that the host's threads share them.
void TestManyPoints() {
  const int64_t points = kSmall ? 20000 : 60000;
  Members lattice({2, points, 2, points * 3});
  for (int64_t k = 0; k < lattice.features.size(); ++k) {
    Set(lattice.features, k, static_cast<double>(k / 2 % points / (k % 2 == 0 ? 1 : 200)) / 50);
  }
  Compare(lattice, "many points");
}

void TestEmptyInputs() {
  for (const Geometry& g : {Geometry{0, 3, 2, 9}, Geometry{2, 0, 3, 0}}) {
    Members lattice(g);
    Compare(lattice, "empty");
  }
}

void TestBadInputsAreErrors() {
  Members lattice({2, 5, 3, 20});
  Draw draw(1);
  Contexts contexts;
  const auto expect = [&](const core::ConstBuffer& features, core::Code code) {
    const core::Status status = Forward(contexts.cuda(), features, lattice.Out());
    const core::Status of_core = Forward(contexts.core(), features, lattice.Out());
    Expect(status.code == code && status.message == of_core.message,
           "error: " + status.message + "; core: " + of_core.message);
  };
  constexpr auto kShape = core::Code::kInvalidArgument;
  for (const double number :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -2e5}) {
    draw.Fill(lattice.features, false);
    Set(lattice.features, 17, number);
    expect(lattice.features.In(), kShape);
  }
  Array flat(core::DType::kFloat32, {5, 3}), wide(core::DType::kFloat32, {2, 5, 9});
  Array doubles(core::DType::kFloat64, {2, 5, 3});
  expect(flat.In(), kShape);
  expect(wide.In(), kShape);
  expect(doubles.In(), core::Code::kInvalidType);
}

}  // namespace

int main() {
  TestDrawnFeatures();
  TestManyPoints();
  TestEmptyInputs();
  TestBadInputsAreErrors();
  return Finish();
}
