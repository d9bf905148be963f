// Keys, numbered by first appearance: open addressing with linear probing, in
// memory from the caller, of which it touches only as much as its vertices need.
#ifndef TFSEG_CORE_VERTEX_TABLE_H_
#define TFSEG_CORE_VERTEX_TABLE_H_

#include <algorithm>
#include <cstdint>

namespace tfseg::core {

__extension__ typedef unsigned __int128 WideKey;

template <typename Key>
class VertexTable {
 public:
  // How many slots a table of so many vertices has at most.
  static int64_t MostSlots(int64_t most) {
    int bits = kFewestBits;
    while (Limit(bits) < most) ++bits;
    return int64_t{1} << bits;
  }

  VertexTable() = default;
  // An empty table with room for `most` vertices, slots for `expected` of them.
  VertexTable(Key* keys,       // [most]
              int32_t* slots,  // [MostSlots(most)]
              int64_t most, int64_t expected)
      : keys_(keys), slots_(slots) {
    while (Limit(bits_) < std::min(most, expected)) ++bits_;
    Refill(keys_, 0, slots_, bits_);
  }

  int32_t size() const { return size_; }
  const Key& key(int64_t vertex) const { return keys_[vertex]; }

  // The number of a vertex, a new one where it has none.
  int32_t Number(const Key& key) {
    int64_t slot;
    const int32_t vertex = Probe(key, &slot);
    if (vertex >= 0) return vertex;
    keys_[size_] = key;
    slots_[slot] = size_;
    if (size_ >= Limit(bits_)) Refill(keys_, size_ + 1, slots_, ++bits_);
    return size_++;
  }

  // The number of a vertex, or -1.
  int32_t Find(const Key& key) const {
    int64_t slot;
    return Probe(key, &slot);
  }

  void Prefetch(const Key& key) const { __builtin_prefetch(slots_ + Slot(key, bits_)); }

 private:
  static constexpr int kFewestBits = 6;
  // For how many vertices 2^bits slots suffice.
  static int64_t Limit(int bits) { return int64_t{1} << (bits - 1); }

  // The upper bits of a product spread keys that lie in a row.
  static int64_t Slot(uint64_t key, int bits) {
    return static_cast<int64_t>((key * 0x9e3779b97f4a7c15u) >> (64 - bits));
  }
  static int64_t Slot(const WideKey& key, int bits) {
    const auto upper = static_cast<uint64_t>(key >> 64);
    return Slot(static_cast<uint64_t>(key) ^ (upper * 0xd6e8feb86659fd93u), bits);
  }

  int32_t Probe(const Key& key, int64_t* slot) const {
    const int64_t mask = (int64_t{1} << bits_) - 1;
    for (*slot = Slot(key, bits_);; *slot = (*slot + 1) & mask) {
      const int32_t vertex = slots_[*slot];
      if (vertex < 0 || keys_[vertex] == key) return vertex;
    }
  }

  // Static, so that a table in a hot loop can stay in registers.
  static __attribute__((noinline)) void Refill(const Key* keys, int32_t size, int32_t* slots,
                                               int bits) {
    const int64_t mask = (int64_t{1} << bits) - 1;
    std::fill(slots, slots + mask + 1, -1);
    for (int32_t vertex = 0; vertex < size; ++vertex) {
      int64_t slot = Slot(keys[vertex], bits);
      while (slots[slot] >= 0) slot = (slot + 1) & mask;
      slots[slot] = vertex;
    }
  }

  Key* keys_ = nullptr;
  int32_t* slots_ = nullptr;
  int32_t size_ = 0;
  int bits_ = kFewestBits;
};

}  // namespace tfseg::core

#endif  // TFSEG_CORE_VERTEX_TABLE_H_
