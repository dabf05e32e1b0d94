// SPDX-License-Identifier: Apache-2.0

// Package dataset holds what training and evaluation need: the manifest of
// labelled captures, the file names of the original ISCX release, the flows of
// a capture file, the dataset directory that the trainer reads, and metrics.
package dataset
