// Memory that adapters give to core, and what core tells the kernel about large outputs.
#ifndef TFSEG_CORE_MEMORY_H_
#define TFSEG_CORE_MEMORY_H_

#include <cstdint>
#include <cstdlib>
#include <vector>

namespace tfseg::core {

// Scratch memory for one call, given by the adapter and asked for only when it is needed.
class Workspace {
 public:
  virtual ~Workspace() = default;
  // 64-byte aligned and uninitialised; nullptr when there is none left. Lives as long as the call.
  virtual void* Allocate(int64_t bytes) = 0;
};

// For adapters whose framework has no scratch memory of its own (numpy; XLA on the CPU).
class HeapWorkspace final : public Workspace {
 public:
  HeapWorkspace() = default;
  HeapWorkspace(const HeapWorkspace&) = delete;
  HeapWorkspace& operator=(const HeapWorkspace&) = delete;
  ~HeapWorkspace() override {
    for (void* block : blocks_) std::free(block);
  }
  void* Allocate(int64_t bytes) override {
    const auto rounded = static_cast<size_t>((bytes + 63) / 64 * 64);
    void* block = std::aligned_alloc(64, rounded == 0 ? 64 : rounded);
    if (block != nullptr) blocks_.push_back(block);
    return block;
  }

 private:
  std::vector<void*> blocks_;
};

// Asks for huge pages under an output of 4 MiB or more, before its first write: the page faults of
// a fresh 100 MB tensor otherwise cost several times its stores. No effect on other systems.
void HintHugePages(void* data, int64_t bytes);

}  // namespace tfseg::core

#endif  // TFSEG_CORE_MEMORY_H_
