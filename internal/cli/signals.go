// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// untilSignal returns a context that the first SIGINT or SIGTERM ends, so that a
// verb cleans up. A second signal ends the process at once.
func untilSignal() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Hangups returns a channel that gets a value for each SIGHUP until the context ends.
// Several signals in quick succession may give one value.
func Hangups(ctx context.Context) <-chan struct{} {
	received, asked := make(chan os.Signal, 1), make(chan struct{}, 1)
	signal.Notify(received, syscall.SIGHUP)
	go func() {
		defer signal.Stop(received)
		for {
			select {
			case <-ctx.Done():
				return
			case <-received:
			}
			select {
			case asked <- struct{}{}:
			default: // asked already
			}
		}
	}()
	return asked
}
