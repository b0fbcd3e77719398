// The cases of gRPC's interop tests that are about compression, which the client of gRPC for Go leaves out.
//
// See grpc/grpc doc/interop-test-descriptions.md. Left out are the probes that ask a server whether it tells its
// servicers how a single message came: Python's API has no word for that. What a message was on the wire is seen
// here, on the client's side.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/stats"
)

const (
	requestBytes  = 271828
	responseBytes = 314159
)

// wire remembers of each message whether it was smaller on the wire than in memory, in order.
type wire struct {
	mu       sync.Mutex
	sent     []bool
	received []bool
}

func (w *wire) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (w *wire) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (w *wire) HandleConn(context.Context, stats.ConnStats)                       {}

func (w *wire) HandleRPC(_ context.Context, event stats.RPCStats) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch one := event.(type) {
	case *stats.OutPayload:
		w.sent = append(w.sent, one.CompressedLength < one.Length)
	case *stats.InPayload:
		w.received = append(w.received, one.CompressedLength < one.Length)
	}
}

// expect fails unless messages since the last call were compressed as told.
func (w *wire) expect(sent, received []bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if fmt.Sprint(w.sent) != fmt.Sprint(sent) || fmt.Sprint(w.received) != fmt.Sprint(received) {
		log.Fatalf("compressed were, of what was sent, %v and not %v; of what came, %v and not %v",
			w.sent, sent, w.received, received)
	}
	w.sent, w.received = nil, nil
}

func must[T any](made T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return made
}

func payload(size int) *pb.Payload {
	return &pb.Payload{Body: make([]byte, size)}
}

func yes() *pb.BoolValue { return &pb.BoolValue{Value: true} }
func no() *pb.BoolValue  { return &pb.BoolValue{Value: false} }

func checkSize(got *pb.Payload, want int) {
	if len(got.GetBody()) != want {
		log.Fatalf("an answer of %d bytes came, and %d were asked for", len(got.GetBody()), want)
	}
}

func clientCompressedUnary(ctx context.Context, client pb.TestServiceClient, seen *wire) {
	request := &pb.SimpleRequest{ResponseSize: responseBytes, Payload: payload(requestBytes), ExpectCompressed: yes()}
	checkSize(must(client.UnaryCall(ctx, request, grpc.UseCompressor(gzip.Name))).GetPayload(), responseBytes)
	seen.expect([]bool{true}, []bool{false})
	request.ExpectCompressed = no()
	checkSize(must(client.UnaryCall(ctx, request)).GetPayload(), responseBytes)
	seen.expect([]bool{false}, []bool{false})
}

func serverCompressedUnary(ctx context.Context, client pb.TestServiceClient, seen *wire) {
	request := &pb.SimpleRequest{ResponseSize: responseBytes, Payload: payload(requestBytes), ResponseCompressed: yes()}
	checkSize(must(client.UnaryCall(ctx, request)).GetPayload(), responseBytes)
	seen.expect([]bool{false}, []bool{true})
	request.ResponseCompressed = no()
	checkSize(must(client.UnaryCall(ctx, request)).GetPayload(), responseBytes)
	seen.expect([]bool{false}, []bool{false})
}

func clientCompressedStreaming(ctx context.Context, client pb.TestServiceClient, seen *wire) {
	stream := must(client.StreamingInputCall(ctx, grpc.UseCompressor(gzip.Name)))
	for _, request := range []*pb.StreamingInputCallRequest{
		{Payload: payload(27182), ExpectCompressed: yes()},
		{}, // an empty message is the one that this client sends as it is
		{Payload: payload(45904), ExpectCompressed: yes()},
	} {
		if err := stream.Send(request); err != nil {
			log.Fatal(err)
		}
	}
	answer := must(stream.CloseAndRecv())
	if sum := answer.GetAggregatedPayloadSize(); sum != 27182+45904 {
		log.Fatalf("the server counted %d bytes", sum)
	}
	seen.expect([]bool{true, false, true}, []bool{false})
}

func serverCompressedStreaming(ctx context.Context, client pb.TestServiceClient, seen *wire) {
	sizes := []int{31415, 92653}
	stream := must(client.StreamingOutputCall(ctx, &pb.StreamingOutputCallRequest{
		ResponseParameters: []*pb.ResponseParameters{
			{Compressed: yes(), Size: int32(sizes[0])},
			{Compressed: no(), Size: int32(sizes[1])},
		},
	}))
	for _, size := range sizes {
		checkSize(must(stream.Recv()).GetPayload(), size)
	}
	if _, err := stream.Recv(); err != io.EOF {
		log.Fatalf("the stream ended with %v", err)
	}
	seen.expect([]bool{false}, []bool{true, false})
}

var cases = map[string]func(context.Context, pb.TestServiceClient, *wire){
	"client_compressed_unary":     clientCompressedUnary,
	"server_compressed_unary":     serverCompressedUnary,
	"client_compressed_streaming": clientCompressedStreaming,
	"server_compressed_streaming": serverCompressedStreaming,
}

func main() {
	host := flag.String("server_host", "127.0.0.1", "the server's host")
	port := flag.Int("server_port", 0, "the server's port")
	name := flag.String("test_case", "", "the case to run")
	flag.Parse()
	run, found := cases[*name]
	if !found {
		log.Fatalf("there is no case %q", *name)
	}
	seen := &wire{}
	connection := must(grpc.NewClient(fmt.Sprintf("passthrough:///%s:%d", *host, *port),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStatsHandler(seen)))
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	run(ctx, pb.NewTestServiceClient(connection), seen)
}
