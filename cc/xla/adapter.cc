// The one XlaOpKernel. It serves every op of this library: result shapes come from the op's own
// shape function (so from core's InferShape), attributes are forwarded by name, and the call goes
// to the FFI handler that bears the op's name. This unit includes TensorFlow's compiler and takes
// about a minute.
#include <algorithm>
#include <cctype>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/compiler/tf2xla/shape_util.h"
#include "tensorflow/compiler/tf2xla/type_util.h"
#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"
#include "tensorflow/compiler/tf2xla/xla_op_registry.h"
#include "tensorflow/core/framework/kernel_def_builder.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/public/version.h"
#include "xla/hlo/builder/xla_builder.h"
#include "xla/shape_util.h"

namespace tfseg::xla {
namespace {

using tensorflow::AttrValue;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpRegistrationData;
using tensorflow::OpRegistry;
using tensorflow::PartialTensorShape;
using tensorflow::Tensor;
using tensorflow::XlaOpKernelContext;

constexpr char kPrefix[] = "Tfseg>";
// Sizes of results: constants to the compiler, and no argument of the handler, which sees the
// results.
constexpr char kSizeInput[] = "output_shape";

// "Tfseg>MaxUnpoolGrad" -> "tfseg_max_unpool_grad".
std::string TargetOf(const std::string& op) {
  std::string target = "tfseg";
  for (const char letter : op.substr(sizeof(kPrefix) - 1)) {
    if (std::isupper(static_cast<unsigned char>(letter))) target += '_';
    target += static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  }
  return target;
}

// An attribute as MLIR writes it; empty for dtypes, which the handler reads from its buffers.
absl::StatusOr<std::string> ToMlir(const std::string& name, const AttrValue& value) {
  const auto format_float = [](std::string* text, float number) {
    absl::StrAppendFormat(text, "%.9e", number);
  };
  switch (value.value_case()) {
    case AttrValue::kB:
      return name + (value.b() ? " = true" : " = false");
    case AttrValue::kI:
      return absl::StrCat(name, " = ", value.i(), " : i64");
    case AttrValue::kF:
      return absl::StrFormat("%s = %.9e : f32", name, value.f());
    case AttrValue::kS:
      return absl::StrCat(name, " = \"", value.s(), "\"");
    case AttrValue::kList:
      if (!value.list().f().empty()) {
        return absl::StrCat(
            name, " = array<f32: ", absl::StrJoin(value.list().f(), ", ", format_float), ">");
      }
      return absl::StrCat(name, value.list().i().empty() ? " = array<i64" : " = array<i64: ",
                          absl::StrJoin(value.list().i(), ", "), ">");
    case AttrValue::kType:
      return std::string();
    default:
      return absl::UnimplementedError("attribute '" + name + "' has no form under XLA");
  }
}

class Adapter : public tensorflow::XlaOpKernel {
 public:
  explicit Adapter(OpKernelConstruction* context) : XlaOpKernel(context) {
    OP_REQUIRES_OK(context, OpRegistry::Global()->LookUp(type_string(), &op_));
    std::vector<std::string> parts;
    for (const auto& attr : op_->op_def.attr()) {
      const AttrValue* value = nullptr;
      OP_REQUIRES_OK(context, tensorflow::AttrSlice(def()).Find(attr.name(), &value));
      absl::StatusOr<std::string> part = ToMlir(attr.name(), *value);
      OP_REQUIRES_OK(context, part.status());
      if (!part->empty()) parts.push_back(*std::move(part));
    }
    attributes_ = "{" + absl::StrJoin(parts, ", ") + "}";
  }

  void Compile(XlaOpKernelContext* context) override {
    std::vector<::xla::XlaOp> operands;
    std::vector<::xla::Shape> operand_shapes;
    std::vector<PartialTensorShape> input_shapes;
    std::deque<Tensor> constants;
    std::vector<const Tensor*> input_tensors(context->num_inputs(), nullptr);
    int size_input = -1, behind = -1;
    InputRange(kSizeInput, &size_input, &behind).IgnoreError();  // most ops have none
    for (int i = 0; i < context->num_inputs(); ++i) {
      absl::StatusOr<::xla::Shape> shape = context->InputXlaShape(i);
      OP_REQUIRES_OK(context, shape.status());
      input_shapes.emplace_back(shape->dimensions());
      if (i == size_input) {
        std::vector<int64_t> sizes;
        OP_REQUIRES_OK(context, context->ConstantInputAsIntVector(i, &sizes));
        Tensor& tensor = constants.emplace_back(
            tensorflow::DT_INT64, tensorflow::TensorShape({static_cast<int64_t>(sizes.size())}));
        std::copy(sizes.begin(), sizes.end(), tensor.flat<int64_t>().data());
        input_tensors[i] = &tensor;
        continue;
      }
      operands.push_back(context->Input(i));
      operand_shapes.push_back(::xla::ShapeUtil::MakeShapeWithDescendingLayout(
          shape->element_type(), shape->dimensions()));
    }

    tensorflow::shape_inference::InferenceContext inference(
        TF_GRAPH_DEF_VERSION, tensorflow::AttrSlice(def()), op_->op_def, input_shapes,
        input_tensors, {}, {});
    OP_REQUIRES_OK(context, inference.construction_status());
    OP_REQUIRES_OK(context, inference.Run(op_->shape_inference_fn));
    std::vector<::xla::Shape> results;
    for (int i = 0; i < context->num_outputs(); ++i) {
      tensorflow::TensorShapeProto proto;
      inference.ShapeHandleToProto(inference.output(i), &proto);
      tensorflow::TensorShape shape;
      OP_REQUIRES_OK(context, tensorflow::TensorShape::BuildTensorShape(proto, &shape));
      ::xla::PrimitiveType type;
      OP_REQUIRES_OK(context, tensorflow::DataTypeToPrimitiveType(output_type(i), &type));
      results.push_back(::xla::ShapeUtil::MakeShapeWithDescendingLayout(type, shape.dim_sizes()));
    }

    const bool one = results.size() == 1;
    // Row-major layouts are asked for: XLA may otherwise hand over what suits a neighbouring
    // convolution.
    const ::xla::XlaOp call = ::xla::CustomCallWithLayout(
        context->builder(), TargetOf(type_string()), operands,
        one ? results[0] : ::xla::ShapeUtil::MakeTupleShape(results), operand_shapes, attributes_,
        /*has_side_effect=*/false, {}, nullptr, ::xla::CustomCallSchedule::SCHEDULE_NONE,
        ::xla::CustomCallApiVersion::API_VERSION_TYPED_FFI);
    for (int i = 0; i < context->num_outputs(); ++i) {
      context->SetOutput(i, one ? call : ::xla::GetTupleElement(call, i));
    }
  }

 private:
  const OpRegistrationData* op_ = nullptr;
  std::string attributes_;
};

OpKernel* MakeAdapter(OpKernelConstruction* context) { return new Adapter(context); }

// Registers the adapter on one device for every op of the ops library, which is loaded before this
// one.
void RegisterAll(const char* device) {
  // The registry turns its entries into kernels once, when the first op of the process runs. What
  // is loaded later has to add its kernels by itself.
  const tensorflow::KernelList kernels = tensorflow::GetRegisteredKernelsForOp("AddV2");
  bool late = false;
  for (const auto& kernel : kernels.kernel()) late = late || kernel.device_type() == device;
  std::vector<tensorflow::OpDef> ops;
  OpRegistry::Global()->GetRegisteredOps(&ops);
  for (const tensorflow::OpDef& op : ops) {
    if (op.name().rfind(kPrefix, 0) != 0) continue;
    auto builder = tensorflow::XlaOpRegistrationBuilder::Name(op.name());
    builder.Device(device);
    for (const auto& input : op.input_arg()) {
      if (input.name() == kSizeInput) builder.CompileTimeConstantInput(kSizeInput);
    }
    // Registrars live as long as the process, as static ones would.
    new tensorflow::XlaOpRegistrar(builder.Build(&MakeAdapter));
    if (late) {
      new tensorflow::kernel_factory::OpKernelRegistrar(
          tensorflow::KernelDefBuilder(op.name().c_str()).Device(device).Build(),
          "tfseg::xla::Adapter", &MakeAdapter);
    }
  }
}

const bool registered = [] {
  RegisterAll(tensorflow::DEVICE_CPU_XLA_JIT);
#if defined(TFSEG_CUDA)
  RegisterAll(tensorflow::DEVICE_GPU_XLA_JIT);
#endif
  return true;
}();

}  // namespace
}  // namespace tfseg::xla
