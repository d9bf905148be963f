// The outcome of a core function. Core throws nothing: adapters turn a Status into their
// framework's error.
#ifndef TFSEG_CORE_STATUS_H_
#define TFSEG_CORE_STATUS_H_

#include <string>
#include <utility>

// Core is compiled with hidden visibility; what bears this mark is its whole exported interface.
#define TFSEG_API __attribute__((visibility("default")))

namespace tfseg::core {

// kInternal: a device failed, which no argument explains.
enum class Code { kOk, kInvalidArgument, kInvalidType, kResourceExhausted, kInternal };

struct [[nodiscard]] Status {
  Code code = Code::kOk;
  std::string message;

  bool ok() const { return code == Code::kOk; }

  static Status Ok() { return {}; }
  static Status InvalidArgument(std::string message) {
    return {Code::kInvalidArgument, std::move(message)};
  }
  static Status InvalidType(std::string message) {
    return {Code::kInvalidType, std::move(message)};
  }
  static Status ResourceExhausted(std::string message) {
    return {Code::kResourceExhausted, std::move(message)};
  }
  static Status Internal(std::string message) { return {Code::kInternal, std::move(message)}; }
};

}  // namespace tfseg::core

#define TFSEG_RETURN_IF_ERROR(expression)               \
  do {                                                  \
    ::tfseg::core::Status tfseg_status_ = (expression); \
    if (!tfseg_status_.ok()) return tfseg_status_;      \
  } while (false)

#endif  // TFSEG_CORE_STATUS_H_
