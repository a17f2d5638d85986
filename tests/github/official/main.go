// Command official takes GitHub's own client of the scale-set service, as it is, through the whole life of a scale set
// against the simulated GitHub. The first answer that is not as it should be ends it with status 1 and says which.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/actions/scaleset"
)

// patience is long enough for a busy machine; nothing waits for it to pass.
const patience = 60 * time.Second

// The models of job assignment, as sim-github names them.
const (
	broker = "broker"
	ghes   = "ghes"
)

func main() {
	url := flag.String("url", "", "configuration URL of the simulated GitHub: http://HOST:PORT/ORGANISATION")
	token := flag.String("token", "", "personal access token that it accepts")
	control := flag.String("control", "", "base of its control API: http://HOST:PORT/_control")
	model := flag.String("model", broker, "how it hands out jobs: broker or ghes")
	only := flag.String("only", "", "renewal: nothing but the renewal of admin tokens that are short-lived")
	flag.Parse()
	if err := run(*url, *token, *control, *model, *only); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(url, token, control, model, only string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	connect := func() (*scaleset.Client, error) {
		return scaleset.NewClientWithPersonalAccessToken(scaleset.NewClientWithPersonalAccessTokenConfig{
			GitHubConfigURL:     url,
			PersonalAccessToken: token,
			SystemInfo:          scaleset.SystemInfo{System: "paddock-tests", Subsystem: "witness"},
		})
	}
	client, err := connect()
	if err != nil {
		return fmt.Errorf("a new client: %w", err)
	}
	w := &witness{ctx: ctx, connect: connect, client: client, control: controller{base: control}, model: model}
	if only == "renewal" {
		return w.renewsShortLivedTokens()
	}
	return w.wholeLife()
}
