package main

import (
	"errors"
	"fmt"

	"github.com/actions/scaleset"
	"github.com/google/uuid"
)

// capacity is how many jobs the polls say that the set can have in hand.
const capacity = 5

func (w *witness) opensSession() error {
	session, err := w.client.MessageSessionClient(w.ctx, w.set.ID, "witness")
	if err != nil {
		return err
	}
	w.session = session
	got := session.Session()
	right := got.SessionID != uuid.Nil && got.OwnerName == "witness" && got.MessageQueueURL != "" &&
		got.MessageQueueAccessToken != "" && got.Statistics != nil &&
		got.RunnerScaleSet != nil && got.RunnerScaleSet.ID == w.set.ID
	if !right {
		return fmt.Errorf("got %+v", got)
	}
	return nil
}

func (w *witness) isRefusedASecondSession() error {
	_, err := w.client.MessageSessionClient(w.ctx, w.set.ID, "another")
	return errors.Join(
		wantText(err, "RunnerScaleSetSessionConflictException"),
		wantText(err, "for owner witness"),
	)
}

func (w *witness) pollsQuietly() error {
	message, err := w.session.GetMessage(w.ctx, w.last, 0)
	if message != nil || err != nil {
		return fmt.Errorf("got %+v, %w", message, err)
	}
	return nil
}

// receive polls until there is a message.
func (w *witness) receive() (*scaleset.RunnerScaleSetMessage, error) {
	for {
		message, err := w.session.GetMessage(w.ctx, w.last, capacity)
		if message != nil || err != nil {
			return message, err
		}
	}
}

func (w *witness) acknowledge(message *scaleset.RunnerScaleSetMessage) error {
	w.last = message.MessageID
	return w.session.DeleteMessage(w.ctx, message.MessageID)
}

func (w *witness) isGivenAJob() error {
	job, err := w.control.queue(renamed)
	if err != nil {
		return err
	}
	w.job = job
	message, err := w.receive()
	if err != nil {
		return err
	}
	return w.tellsOfTheJob(message)
}

// tellsOfTheJob wants the first message of a job: offered at GHES, assigned by the broker.
func (w *witness) tellsOfTheJob(message *scaleset.RunnerScaleSetMessage) error {
	var base *scaleset.JobMessageBase
	switch {
	case w.model == ghes && len(message.JobAvailableMessages) == 1 && len(message.JobAssignedMessages) == 0:
		base = &message.JobAvailableMessages[0].JobMessageBase
	case w.model == broker && len(message.JobAssignedMessages) == 1 && len(message.JobAvailableMessages) == 0:
		base = &message.JobAssignedMessages[0].JobMessageBase
	default:
		return fmt.Errorf("got %+v", message)
	}
	offered, assigned := 1, 0
	request := w.job
	if w.model == broker {
		offered, assigned, request = 0, 1, 0
	}
	counts := message.Statistics
	right := base.OwnerName == "acme" && base.RepositoryName == "app" && !base.QueueTime.IsZero() &&
		base.RunnerRequestID == request && len(base.RequestLabels) == 1 && counts != nil &&
		counts.TotalAvailableJobs == offered && counts.TotalAssignedJobs == assigned
	if !right {
		return fmt.Errorf("got %+v, %+v", base, counts)
	}
	return nil
}

func (w *witness) seesMessagesAgain() error {
	first, err := w.session.GetMessage(w.ctx, 0, capacity)
	if err != nil || first == nil {
		return fmt.Errorf("in the same session: %+v, %w", first, err)
	}
	if err := w.session.Close(w.ctx); err != nil {
		return err
	}
	if err := w.opensSession(); err != nil {
		return err
	}
	again, err := w.receive()
	if err != nil {
		return err
	}
	if again.MessageID != first.MessageID {
		return fmt.Errorf("message %d came as %d", first.MessageID, again.MessageID)
	}
	if err := w.tellsOfTheJob(again); err != nil {
		return err
	}
	return w.acknowledge(again)
}

// getsTheJob: at GHES what was offered is acquired; the broker has no such call.
func (w *witness) getsTheJob() error {
	acquired, err := w.session.AcquireJobs(w.ctx, []int64{w.job})
	if w.model == broker {
		return wantText(err, "404")
	}
	if err != nil {
		return err
	}
	if len(acquired) != 1 || acquired[0] != w.job {
		return fmt.Errorf("acquired %v", acquired)
	}
	message, err := w.receive()
	if err != nil {
		return err
	}
	if len(message.JobAssignedMessages) != 1 || message.Statistics.TotalAssignedJobs != 1 {
		return fmt.Errorf("got %+v", message)
	}
	return w.acknowledge(message)
}

func (w *witness) renewsQueueToken() error {
	before := w.session.Session()
	if err := w.control.expireQueueToken(renamed); err != nil {
		return err
	}
	if err := w.pollsQuietly(); err != nil {
		return err
	}
	after := w.session.Session()
	if after.SessionID != before.SessionID || after.MessageQueueAccessToken == before.MessageQueueAccessToken {
		return fmt.Errorf("the session was not renewed in place: %+v", after)
	}
	return nil
}

func (w *witness) mint(name string) (*scaleset.RunnerReference, error) {
	setting := &scaleset.RunnerScaleSetJitRunnerSetting{Name: name, WorkFolder: "_work"}
	jit, err := w.client.GenerateJitRunnerConfig(w.ctx, setting, w.set.ID)
	if err != nil {
		return nil, err
	}
	right := jit.Runner != nil && jit.Runner.ID > 0 && jit.Runner.Name == name &&
		jit.Runner.RunnerScaleSetID == w.set.ID && jit.EncodedJITConfig != ""
	if !right {
		return nil, fmt.Errorf("got %+v", jit)
	}
	return jit.Runner, nil
}

func (w *witness) mintsAndFinds() error {
	runner, err := w.mint("fleet-busy")
	if err != nil {
		return err
	}
	w.runner = runner
	_, err = w.mint("fleet-busy")
	if err := want(err, scaleset.RunnerExistsError); err != nil {
		return err
	}
	byName, err := w.client.GetRunnerByName(w.ctx, "fleet-busy")
	if err != nil {
		return err
	}
	byID, err := w.client.GetRunner(w.ctx, runner.ID)
	if err != nil {
		return err
	}
	if byName == nil || *byName != *runner || *byID != *runner {
		return fmt.Errorf("by name %+v, by id %+v", byName, byID)
	}
	nobody, err := w.client.GetRunnerByName(w.ctx, "nobody")
	if nobody != nil || err != nil {
		return fmt.Errorf("of a runner that is not there: %+v, %w", nobody, err)
	}
	_, err = w.client.GetRunner(w.ctx, 999_999)
	return want(err, scaleset.RunnerNotFoundError)
}

func (w *witness) isRefusedABusyRunner() error {
	if err := w.control.startJob(w.job, w.runner.Name); err != nil {
		return err
	}
	message, err := w.receive()
	if err != nil {
		return err
	}
	if len(message.JobStartedMessages) != 1 {
		return fmt.Errorf("got %+v", message)
	}
	started := message.JobStartedMessages[0]
	if started.RunnerID != w.runner.ID || started.RunnerName != w.runner.Name {
		return fmt.Errorf("got %+v", started)
	}
	if err := w.acknowledge(message); err != nil {
		return err
	}
	return want(w.client.RemoveRunner(w.ctx, int64(w.runner.ID)), scaleset.JobStillRunningError)
}

func (w *witness) hearsOfTheEnd() error {
	if err := w.control.finishJob(w.job); err != nil {
		return err
	}
	message, err := w.receive()
	if err != nil {
		return err
	}
	if len(message.JobCompletedMessages) != 1 || message.Statistics.TotalAssignedJobs != 0 {
		return fmt.Errorf("got %+v", message)
	}
	completed := message.JobCompletedMessages[0]
	if completed.Result != "succeeded" || completed.RunnerName != w.runner.Name || completed.FinishTime.IsZero() {
		return fmt.Errorf("got %+v", completed)
	}
	return w.acknowledge(message)
}

func (w *witness) removesAnIdleRunner() error {
	runner, err := w.mint("fleet-idle")
	if err != nil {
		return err
	}
	if err := w.client.RemoveRunner(w.ctx, int64(runner.ID)); err != nil {
		return err
	}
	gone, err := w.client.GetRunnerByName(w.ctx, runner.Name)
	if gone != nil || err != nil {
		return fmt.Errorf("after its removal: %+v, %w", gone, err)
	}
	return nil
}
