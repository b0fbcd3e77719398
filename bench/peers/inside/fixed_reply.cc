// A gRPC server that answers every unary call with the bytes of a file: fixed_reply PORT FILE
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

namespace {

// One call: the message is read in full and looked at no further.
class Call final : public grpc::ServerGenericBidiReactor {
 public:
  explicit Call(const grpc::ByteBuffer& reply) : reply_(reply) { StartRead(&message_); }

  void OnReadDone(bool ok) override {
    if (ok) {
      StartWriteAndFinish(&reply_, grpc::WriteOptions(), grpc::Status::OK);
    } else {
      Finish(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no message"));
    }
  }

  void OnDone() override { delete this; }

 private:
  grpc::ByteBuffer message_;
  // Shares the bytes of the service's own.
  grpc::ByteBuffer reply_;
};

class FixedReply final : public grpc::CallbackGenericService {
 public:
  explicit FixedReply(const std::string& bytes) {
    grpc::Slice slice(bytes);
    reply_ = grpc::ByteBuffer(&slice, 1);
  }

  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override {
    return new Call(reply_);
  }

 private:
  grpc::ByteBuffer reply_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: fixed_reply PORT FILE\n";
    return 2;
  }
  std::ifstream file(argv[2], std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  FixedReply service(bytes);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(std::string("127.0.0.1:") + argv[1], grpc::InsecureServerCredentials());
  builder.RegisterCallbackGenericService(&service);
  const auto server = builder.BuildAndStart();
  if (server == nullptr) {
    std::cerr << "cannot listen on port " << argv[1] << "\n";
    return 1;
  }
  server->Wait();
}
