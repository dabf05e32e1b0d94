// SPDX-License-Identifier: Apache-2.0

// Package bpffs knows where the BPF file system is.
package bpffs

// Path is where pins live.
const Path = "/sys/fs/bpf"
