// A grader in Go for items of the custom kind "word-count": full points for config.words words, a share for fewer.
//
// It keeps the whole protocol of work_service.proto: credits, heartbeats, cancellations, and a stop that loses
// nothing. CINNABAR_SCHEDULER is the address of a scheduler.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	gradev1 "cinnabar.dev/examples/go-grader/gen/cinnabar/grader/v1"
	workv1 "cinnabar.dev/examples/go-grader/gen/cinnabar/scheduler/v1"
)

const (
	queue   = "custom-word-count"
	credits = 16
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	connection, err := grpc.NewClient(os.Getenv("CINNABAR_SCHEDULER"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := workv1.NewWorkServiceClient(connection)
	for number := 0; ctx.Err() == nil; number++ {
		if err := work(ctx, client, number); err != nil {
			log.Printf("stream lost: %v", err)
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
}

// work serves one stream until it ends, or until ctx does and everything held is reported.
func work(ctx context.Context, client workv1.WorkServiceClient, number int) error {
	stream, err := client.Work(context.Background()) // not ctx: what is held is reported first
	if err != nil {
		return err
	}
	received := make(chan *workv1.WorkResponse)
	ended := make(chan error, 1)
	go func() {
		for {
			response, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			received <- response
		}
	}()

	worker := fmt.Sprintf("go-%d-%d", os.Getpid(), number)
	if err := stream.Send(&workv1.WorkRequest{Event: &workv1.WorkRequest_Hello{
		Hello: &workv1.Hello{Worker: worker, Queues: []string{queue}, Version: "1"}}}); err != nil {
		return err
	}
	if err := grant(stream, credits); err != nil {
		return err
	}
	held := map[string]bool{}
	items := map[string]*gradev1.Item{}
	heart := time.NewTicker(time.Second)
	defer heart.Stop()
	leaving := ctx.Done()
	for {
		select {
		case <-leaving: // grants nothing more; the stream closes when nothing is held
			leaving = nil
			if err := stream.CloseSend(); err != nil {
				return err
			}
		case <-heart.C:
			if leaving == nil {
				continue
			}
			tokens := make([]string, 0, len(held))
			for token := range held {
				tokens = append(tokens, token)
			}
			if err := stream.Send(&workv1.WorkRequest{Event: &workv1.WorkRequest_Heartbeat{
				Heartbeat: &workv1.Heartbeat{LeaseTokens: tokens}}}); err != nil {
				return err
			}
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case response := <-received:
			if welcome := response.GetWelcome(); welcome != nil {
				heart.Reset(welcome.HeartbeatInterval.AsDuration())
			}
			for _, token := range response.GetCancellations().GetLeaseTokens() {
				delete(held, token)
			}
			for _, receipt := range response.GetReceipts().GetReceipts() {
				delete(held, receipt.LeaseToken)
			}
			leases := response.GetLeases()
			for _, item := range leases.GetItems() {
				items[item.ItemKey] = item.Item
			}
			if len(leases.GetTasks()) == 0 || leaving == nil { // a closed stream gives back what it holds
				continue
			}
			report := &workv1.Report{}
			for _, task := range leases.Tasks {
				held[task.LeaseToken] = true
				report.Outcomes = append(report.Outcomes, outcome(items[task.ItemKey], task))
			}
			if err := stream.Send(&workv1.WorkRequest{Event: &workv1.WorkRequest_Report{Report: report}}); err != nil {
				return err
			}
			if err := grant(stream, int32(len(report.Outcomes))); err != nil {
				return err
			}
		}
	}
}

func grant(stream grpc.BidiStreamingClient[workv1.WorkRequest, workv1.WorkResponse], count int32) error {
	return stream.Send(&workv1.WorkRequest{Event: &workv1.WorkRequest_Ready{
		Ready: &workv1.Ready{Queue: queue, Credits: count}}})
}

// outcome is a grade, or a failure when the item makes no sense, which is no fault of the student's.
func outcome(item *gradev1.Item, task *workv1.LeasedTask) *workv1.Outcome {
	wanted := item.GetCustom().GetConfig().GetFields()["words"].GetNumberValue()
	if wanted < 1 {
		return &workv1.Outcome{LeaseToken: task.LeaseToken, Result: &workv1.Outcome_Failure{
			Failure: &status.Status{Code: int32(codes.FailedPrecondition), Message: "config.words must be 1 or more"}}}
	}
	count := len(strings.Fields(task.Answer.GetText()))
	score := item.Points * min(1, float64(count)/wanted)
	return &workv1.Outcome{LeaseToken: task.LeaseToken, Result: &workv1.Outcome_Grade{Grade: &gradev1.Grade{
		Score:    score,
		MaxScore: item.Points,
		Feedback: fmt.Sprintf("%d of %.0f words.", count, wanted),
		Criteria: []*gradev1.CriterionScore{{
			Criterion: "answer", Score: score, MaxScore: item.Points, Confidence: 1,
			Provenance: &gradev1.Provenance{Grader: "word-count", Version: "1"},
		}},
	}}}
}
