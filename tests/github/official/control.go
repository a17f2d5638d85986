package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// controller calls the simulation's control API: what happens at GitHub without a client's doing.
type controller struct{ base string }

func (c controller) call(method, path string, body, answer any) error {
	var sent bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&sent).Encode(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequest(method, c.base+path, &sent)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("control %s %s: %s: %s", method, path, response.Status, read)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(read, answer)
}

// queue queues a job and gives its number.
func (c controller) queue(label string) (int64, error) {
	var queued struct{ IDs []int64 }
	job := map[string]any{"repository": "acme/app", "labels": []string{label}}
	if err := c.call(http.MethodPost, "/jobs", job, &queued); err != nil {
		return 0, err
	}
	return queued.IDs[0], nil
}

// startJob has a registered runner take an assigned job.
func (c controller) startJob(job int64, runner string) error {
	return c.call(http.MethodPost, fmt.Sprintf("/jobs/%d/start?runner=%s", job, url.QueryEscape(runner)), nil, nil)
}

func (c controller) finishJob(job int64) error {
	return c.call(http.MethodPost, fmt.Sprintf("/jobs/%d/finish?result=succeeded", job), nil, nil)
}

func (c controller) expireQueueToken(set string) error {
	return c.call(http.MethodPost, "/scalesets/"+url.PathEscape(set)+"/expire-queue-token", nil, nil)
}

func (c controller) expireAdminTokens() error {
	return c.call(http.MethodPost, "/expire-admin-tokens", nil, nil)
}

// requests counts the requests to an endpoint so far.
func (c controller) requests(endpoint string) (int, error) {
	var log struct{ Requests []json.RawMessage }
	err := c.call(http.MethodGet, "/requests?endpoint="+endpoint, nil, &log)
	return len(log.Requests), err
}
