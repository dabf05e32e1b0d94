// SPDX-License-Identifier: Apache-2.0

// Command dpclass classifies the flows of a network interface with neural
// networks and enforces a policy on them in the kernel.
package main

import "os"

func main() { os.Exit(run()) }

// run is main with an exit code.
func run() int {
	ctx, stop := untilSignal()
	defer stop()
	return execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}
