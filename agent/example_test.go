// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os/signal"
	"syscall"

	"github.com/dpclass/dpclass/agent"
	"github.com/dpclass/dpclass/classifier"
	"github.com/dpclass/dpclass/flow"
	"github.com/dpclass/dpclass/loader"
)

// A program that attaches to eth0, prints each verdict and detaches at Ctrl-C.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	engine, err := classifier.New(classifier.Options{}) // the default model
	if err != nil {
		log.Fatal(err)
	}
	attached, err := loader.Attach(ctx, "eth0", loader.Config{}, nil)
	if err != nil {
		log.Fatal(err)
	}
	a := agent.New(agent.Config{
		Ports:      []agent.Port{agent.NewPort(attached)},
		Classifier: agent.NewClassifier(engine, nil),
		Stored: func(decisions []flow.Decision) {
			for _, d := range decisions {
				fmt.Println(d.ID.Key, "is", d.Verdicts[flow.Category].Label)
			}
		},
	})
	if err := errors.Join(a.Run(ctx), attached.Detach(), a.Close(context.Background()), engine.Close()); err != nil {
		log.Fatal(err)
	}
}
