package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/actions/scaleset"
)

const (
	// group has what must be escaped in a query.
	group   = "R&D big iron"
	set     = "fleet"
	renamed = "fleet-2"
)

// witness is the client and what it has come by so far.
type witness struct {
	ctx     context.Context
	connect func() (*scaleset.Client, error)
	client  *scaleset.Client
	control controller
	model   string

	groupID int
	set     *scaleset.RunnerScaleSet
	session *scaleset.MessageSessionClient
	last    int // id of the last message acknowledged
	job     int64
	runner  *scaleset.RunnerReference
}

// wholeLife takes the steps in order; the first that fails is named.
func (w *witness) wholeLife() error {
	steps := []struct {
		name string
		step func() error
	}{
		{"finds a group whose name has & and spaces", w.findsGroup},
		{"creates a scale set with further labels", w.creates},
		{"finds it by name and by id", w.finds},
		{"changes its name and labels", w.updates},
		{"is refused a second set of that name", w.isRefusedTheName},
		{"goes on after admin tokens were voided", w.survivesVoidedTokens},
		{"opens a session", w.opensSession},
		{"is refused a second session", w.isRefusedASecondSession},
		{"polls a quiet queue", w.pollsQuietly},
		{"is given a job", w.isGivenAJob},
		{"sees what it did not acknowledge again in a new session", w.seesMessagesAgain},
		{"gets a job by acquiring or by assignment", w.getsTheJob},
		{"renews the queue's token", w.renewsQueueToken},
		{"makes a JIT configuration and finds the runner", w.mintsAndFinds},
		{"is refused the removal of a busy runner", w.isRefusedABusyRunner},
		{"hears of the job's end", w.hearsOfTheEnd},
		{"removes an idle runner", w.removesAnIdleRunner},
		{"closes the session and deletes the set", w.deletes},
	}
	for _, s := range steps {
		if err := s.step(); err != nil {
			return fmt.Errorf("the official client (%s model) %s: %w", w.model, s.name, err)
		}
	}
	return nil
}

func (w *witness) findsGroup() error {
	// The client escapes nothing: its callers do. Unescaped, the name ends at the &.
	if found, err := w.client.GetRunnerGroupByName(w.ctx, group); err == nil {
		return fmt.Errorf("an unescaped & found the group %+v", found)
	}
	found, err := w.client.GetRunnerGroupByName(w.ctx, url.QueryEscape(group))
	if err != nil {
		return err
	}
	if found.Name != group || found.ID < 2 || found.IsDefault {
		return fmt.Errorf("got %+v", found)
	}
	w.groupID = found.ID
	_, err = w.client.GetRunnerGroupByName(w.ctx, "nobody")
	return wantText(err, "no runner group found")
}

func (w *witness) creates() error {
	labels := []scaleset.Label{{Name: set}, {Name: "linux"}, {Name: "x64"}}
	created, err := w.client.CreateRunnerScaleSet(w.ctx, &scaleset.RunnerScaleSet{
		Name: set, RunnerGroupID: w.groupID, Labels: labels,
		RunnerSetting: scaleset.RunnerSetting{DisableUpdate: true},
	})
	if err != nil {
		return err
	}
	w.set = created
	return w.isAsCreated(created)
}

func (w *witness) isAsCreated(found *scaleset.RunnerScaleSet) error {
	right := found != nil && found.ID > 0 && found.Name == set && found.RunnerGroupID == w.groupID &&
		found.RunnerGroupName == group && found.RunnerSetting.DisableUpdate && !found.CreatedOn.IsZero() &&
		slices.Equal(names(found), []string{set, "linux", "x64"}) && found.Statistics != nil
	if !right {
		return fmt.Errorf("got %+v", found)
	}
	return nil
}

func (w *witness) finds() error {
	byName, err := w.client.GetRunnerScaleSet(w.ctx, w.groupID, set)
	if err != nil {
		return err
	}
	byID, err := w.client.GetRunnerScaleSetByID(w.ctx, w.set.ID)
	if err != nil {
		return err
	}
	if byName == nil || byName.ID != w.set.ID || byID.ID != w.set.ID {
		return fmt.Errorf("by name %+v, by id %+v", byName, byID)
	}
	if err := errors.Join(w.isAsCreated(byName), w.isAsCreated(byID)); err != nil {
		return err
	}
	nobody, err := w.client.GetRunnerScaleSet(w.ctx, w.groupID, "nobody")
	if nobody != nil || err != nil {
		return fmt.Errorf("of a set that is not there: %+v, %w", nobody, err)
	}
	_, err = w.client.GetRunnerScaleSetByID(w.ctx, 999_999)
	return wantText(err, "RunnerScaleSetNotFoundException")
}

func (w *witness) updates() error {
	labels := []scaleset.Label{{Name: renamed}, {Name: "arm64"}}
	updated, err := w.client.UpdateRunnerScaleSet(w.ctx, w.set.ID, &scaleset.RunnerScaleSet{
		Name: renamed, RunnerGroupID: w.groupID, Labels: labels,
		RunnerSetting: scaleset.RunnerSetting{DisableUpdate: true},
	})
	if err != nil {
		return err
	}
	found, err := w.client.GetRunnerScaleSetByID(w.ctx, w.set.ID)
	if err != nil {
		return err
	}
	for _, got := range []*scaleset.RunnerScaleSet{updated, found} {
		right := got.ID == w.set.ID && got.Name == renamed && got.RunnerGroupID == w.groupID &&
			slices.Equal(names(got), []string{renamed, "arm64"})
		if !right {
			return fmt.Errorf("got %+v", got)
		}
	}
	return nil
}

func (w *witness) isRefusedTheName() error {
	_, err := w.client.CreateRunnerScaleSet(w.ctx, &scaleset.RunnerScaleSet{Name: renamed, RunnerGroupID: w.groupID})
	return wantText(err, "RunnerScaleSetExistsException")
}

// survivesVoidedTokens shows that the client goes by the token's own expiry: one that GitHub voids before is an error
// until there is another client.
func (w *witness) survivesVoidedTokens() error {
	if err := w.control.expireAdminTokens(); err != nil {
		return err
	}
	_, err := w.client.GetRunnerScaleSetByID(w.ctx, w.set.ID)
	if err := wantText(err, "401"); err != nil {
		return err
	}
	if w.client, err = w.connect(); err != nil {
		return err
	}
	_, err = w.client.GetRunnerScaleSetByID(w.ctx, w.set.ID)
	return err
}

// renewsShortLivedTokens shows that a token that is about to expire by its own word is renewed before the next call.
func (w *witness) renewsShortLivedTokens() error {
	const calls = 3
	for range calls {
		if _, err := w.client.GetRunnerGroupByName(w.ctx, "default"); err != nil {
			return fmt.Errorf("the official client with short-lived admin tokens: %w", err)
		}
	}
	renewed, err := w.control.requests("runnerRegistration")
	if err != nil {
		return err
	}
	if renewed != calls {
		return fmt.Errorf("the official client renewed its admin token %d times in %d calls", renewed, calls)
	}
	return nil
}

func (w *witness) deletes() error {
	if err := w.session.Close(w.ctx); err != nil {
		return err
	}
	if err := w.client.DeleteRunnerScaleSet(w.ctx, w.set.ID); err != nil {
		return err
	}
	_, err := w.client.GetRunnerScaleSetByID(w.ctx, w.set.ID)
	return wantText(err, "RunnerScaleSetNotFoundException")
}

func names(of *scaleset.RunnerScaleSet) []string {
	var names []string
	for _, label := range of.Labels {
		names = append(names, label.Name)
	}
	return names
}

// wantText is nil for an error that says so.
func wantText(err error, text string) error {
	if err == nil {
		return fmt.Errorf("no error, where one with %q was due", text)
	}
	if !strings.Contains(err.Error(), text) {
		return fmt.Errorf("%q is not said: %w", text, err)
	}
	return nil
}

// want is nil for an error of that kind.
func want(err, kind error) error {
	if !errors.Is(err, kind) {
		return fmt.Errorf("%q was due: %w", kind, err)
	}
	return nil
}
